// A broadcaster in the studio and a viewer on the watch page, both behind firewalls that let them through to a TURN server alone.
//
//   KEY=… node turn.mjs ORIGIN STREAM
//
// Events: live (the broadcaster is) and watched (the viewer sees it by WebRTC); whether by a relay, and the user names they were given.

import { relayOnly, relayed, run, tell, visit } from "./page.mjs";

const [origin, stream] = process.argv.slice(2);
const TIMEOUT = 60_000;

await run(
  async (browser) => {
    const studio = await visit(browser, `${origin}/studio#key=${process.env.KEY}&stream=${stream}`);
    await relayOnly(studio.page);
    await studio.goto();
    await studio.page.getByLabel("Quality").selectOption("low");
    await studio.page.getByRole("button", { name: "Turn on camera and microphone" }).click();
    await studio.page.waitForFunction(() => document.querySelector("#preview").videoWidth > 0, null, { timeout: TIMEOUT });
    await studio.page.getByRole("button", { name: "Go live" }).click();
    await studio.page.waitForSelector('html[data-phase="live"]', { state: "attached", timeout: TIMEOUT });
    tell("live", { relayed: await relayed(studio.page), user: await user(studio.page), problems: studio.problems });

    // It shows a picture only once there is a playlist: until then it does not know what the stream has.
    const viewer = await visit(browser, `${origin}/watch/${stream}?via=webrtc`);
    await relayOnly(viewer.page);
    await viewer.goto();
    await viewer.page.waitForFunction(() => window.clock.frames.length > 20, null, { timeout: TIMEOUT });
    const player = await viewer.page.evaluate(() => window.tidecast.stats().player);
    tell("watched", { player, relayed: await relayed(viewer.page), user: await user(viewer.page), problems: viewer.problems });
  },
  ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream=fps=20", "--allow-loopback-in-peer-connection"],
);

function user(page) {
  return page.evaluate(() => window.newestPeer.getConfiguration().iceServers.find(({ username }) => username)?.username ?? "");
}
