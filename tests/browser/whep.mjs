// Watches a stream by WHEP (WebRTC), as a page with thirty lines of script does.
//
//   node whep.mjs ORIGIN STREAM SECONDS SCREENSHOT [RENDITION]
//
// Events: playing (there is a picture); watched (after SECONDS: how soon it was there, and what getStats counted); pinned (with
// RENDITION: after it was asked for); stood, returned (with RENDITION: once the picture stood still for a second, and once it
// moved again); ended (the server said goodbye).

import { run, tell, visit } from "./page.mjs";
import { watch } from "./whep-viewer.mjs";

const STEP_TIMEOUT = 60_000;

const [origin, stream, seconds, screenshot, rendition] = process.argv.slice(2);

await run(scenario, ["--allow-loopback-in-peer-connection"]);

async function scenario(browser) {
  const { page, goto } = await visit(browser, `${origin}/`);
  await goto();
  const times = await page.evaluate(watch, `${origin}/whep/${stream}?wait`);
  const before = await page.evaluate(() => window.whep.stats());
  tell("playing", {});
  await page.waitForFunction((until) => performance.now() > until, before.now + Number(seconds) * 1000, {
    timeout: STEP_TIMEOUT,
  });
  const after = await page.evaluate(() => window.whep.stats());
  await page.screenshot({ path: screenshot });
  tell("watched", {
    times,
    watched_s: (after.now - before.now) / 1000,
    frames: after.video.framesDecoded - before.video.framesDecoded,
    lost: after.video.packetsLost + (after.audio?.packetsLost ?? 0),
    freezes: after.video.freezeCount - before.video.freezeCount,
    still_ms: await page.evaluate(() => window.whep.longestStill()),
    frozen_s: after.video.totalFreezesDuration - before.video.totalFreezesDuration,
    delay_ms: (1000 * after.video.jitterBufferDelay) / after.video.jitterBufferEmittedCount,
    energy: after.audio?.totalAudioEnergy ?? 0,
    width: after.width,
    profile: after.profile,
  });
  if (rendition !== undefined) {
    tell("pinned", await page.evaluate((name) => window.whep.pin(name), rendition));
    await page.evaluate(() => window.whep.stands());
    tell("stood", {});
    tell("returned", await page.evaluate(() => window.whep.moves()));
  }
  await page.waitForFunction(() => window.whep.isOver(), null, { timeout: STEP_TIMEOUT });
  tell("ended", {});
}
