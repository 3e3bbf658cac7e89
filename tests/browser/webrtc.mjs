// The watch page where WebRTC is wanted. tests/tests/watch_webrtc.rs does to the stream and its server what has to be done.
//
//   node webrtc.mjs ORIGIN STREAM SCREENSHOT_FOLDER SCENE [QUERY]
//
// SCENE
//   plays     playing, pinned, sound, switched, lost, climbed-by-hand; then the stream is interrupted: interrupted, returned; then it ends: ended
//   blocked   UDP and TCP get nowhere: fell-back, remembered; then they do: climbed
//   once      playing, whatever it plays by: for servers that offer only one way. QUERY goes into the address.

import axe from "axe-core";
import { quantile, run, tell, visit } from "./page.mjs";

const [origin, stream, folder, scene, query = ""] = process.argv.slice(2);

/** Longer than anything a viewer would wait for. */
const PATIENCE = 60_000;
/** A minute from falling back, what the attempt takes, and a busy machine. */
const CLIMB_MAX = 120_000;
/** An address that nobody has (RFC 5737). */
const NOWHERE = "192.0.2.1";

await run(async (browser) => {
  const { page, problems, goto } = await visit(browser, `${origin}/watch/${stream}${query}`);
  page.setDefaultTimeout(PATIENCE);
  let posts = 0;
  page.on("request", (request) => { posts += request.method() === "POST" && request.url().includes("/whep/") ? 1 : 0; });
  /** Address of the newest one. */
  let session = "";
  page.on("response", async (response) => {
    if (response.status() === 201) session = new URL((await response.allHeaders()).location, origin).href;
  });
  const playsBy = (player) => page.waitForFunction((wanted) => window.tidecast.stats().player === wanted, player);
  await { plays, blocked, once }[scene]();

  async function plays() {
    const began = Date.now();
    await goto();
    await moves();
    // The server tells its clock every few seconds.
    await page.waitForFunction(() => window.tidecast.stats().latency !== null);
    tell("playing", { ...(await look(began)), ...(await inspect("webrtc-live")) });

    await page.keyboard.press("s");
    await page.locator("#stats-list", { hasText: /Round trip\d+ ms/ }).waitFor();
    const overlay = await page.locator("#stats-list").innerText();
    await inMenu("webrtc-menu", /^180p/);
    await page.waitForFunction(() => window.tidecast.video.videoHeight === 180);
    await page.locator("#stats-list", { hasText: /Rendition320×180, \d+ kb\/s(?! \(auto\))/ }).waitFor();
    const pinned = await page.evaluate(() => window.tidecast.stats());
    await inMenu(null, /^Auto/);
    await page.waitForFunction(() => window.tidecast.video.videoHeight === 360);
    tell("pinned", { overlay, player: pinned.player, rendition: pinned.rendition, ...(await inspect("webrtc-stats")) });

    await inMenu(null, /^Audio only/);
    await playsBy("hls.js");
    await page.waitForFunction(() => window.tidecast.stats().renditionWords === "Audio only" && window.tidecast.video.currentTime > 0);
    await inMenu(null, /^Auto/);
    await playsBy("webrtc");
    await moves();
    tell("sound");

    await inMenu("webrtc-off", /^Low latency/);
    await playsBy("hls.js");
    await moves();
    const before = posts;
    await page.reload();
    await moves();
    const { player, link } = await page.evaluate(() => window.tidecast.stats());
    const kept = { player, link, posts: posts - before };
    await inMenu(null, /^Low latency/);
    await playsBy("webrtc");
    await moves();
    tell("switched", { kept });

    posts = 0;
    await Promise.all([page.waitForRequest((request) => request.method() === "POST" && request.url().includes("/whep/")), page.request.delete(session)]);
    await playsBy("webrtc");
    await moves();
    const once = { player: "webrtc", posts };
    // And there is no other.
    await page.route("**/whep/**", (route) => route.fulfill({ status: 503 }));
    await page.request.delete(session);
    await playsBy("hls.js");
    await moves();
    await page.unrouteAll();
    tell("lost", { once, twice: { player: "hls.js", posts } });
    await inMenu("webrtc-fell-back", /^Low latency/);
    await inMenu(null, /^Low latency/);
    await playsBy("webrtc");
    await moves();
    tell("climbed-by-hand");

    posts = 0;
    await page.locator("#notice-title", { hasText: "Interrupted" }).waitFor();
    tell("interrupted", await inspect("webrtc-interrupted"));
    await page.locator("#notice").waitFor({ state: "hidden" });
    await moves();
    tell("returned", { player: await page.evaluate(() => window.tidecast.stats().player), posts });

    await page.waitForSelector('html[data-state="ended"]', { state: "attached" });
    tell("ended", { ...(await inspect("webrtc-ended")), problems });
  }

  async function blocked() {
    await page.route("**/whep/**", async (route) => {
      const response = await route.fetch();
      const body = await response.text();
      await route.fulfill({ response, body: body.replaceAll(/^(a=candidate:.*) \S+ (\d+) typ host/gm, `$1 ${NOWHERE} $2 typ host`) });
    });
    let began = Date.now();
    await goto();
    await moves(1);
    tell("fell-back", { ...(await look(began)), posts });
    await page.unrouteAll();
    posts = 0;
    began = Date.now();
    await page.reload();
    await moves(1);
    tell("remembered", { ...(await look(began)), posts });
    await page.waitForFunction(() => window.tidecast.stats().player === "webrtc", null, { timeout: CLIMB_MAX });
    await moves();
    const times = await page.evaluate(() => window.clock.frames.slice(-90).map(({ now }) => now));
    const stood = Math.max(...times.slice(1).map((time, i) => time - times[i]));
    tell("climbed", { ...(await look(began)), posts, stood_ms: stood, problems });
  }

  async function once() {
    const began = Date.now();
    await goto();
    await moves();
    await page.waitForSelector("#quality-button:not([hidden])");
    await page.click("#quality-button");
    const item = page.locator('#quality-menu [data-choice="low-latency"]');
    const lowLatency = (await item.count()) > 0 ? await item.getAttribute("aria-checked") : null;
    await page.screenshot({ path: `${folder}/webrtc-${query ? "asked" : "default"}.png` });
    await page.keyboard.press("Escape");
    tell("playing", { ...(await look(began)), posts, low_latency: lowLatency, problems });
  }

  /** Waits for pictures that nobody has seen yet. */
  async function moves(frames = 30) {
    const from = await page.evaluate(() => window.clock?.frames.length ?? 0);
    await page.waitForFunction((until) => window.clock.frames.length >= until, from + frames);
  }

  async function look(began) {
    return page.evaluate((began) => {
      const { stats, video } = window.tidecast;
      const [first] = window.clock.frames;
      const read = window.clock.frames.slice(-30).map(({ latency }) => latency).filter((latency) => latency !== null);
      // ffmpeg may be a moment ahead of the clock that it burns in.
      const latencies = read.map((latency) => (latency > 2 ** 19 ? latency - 2 ** 20 : latency));
      const { player, link, latency } = stats();
      return {
        player, link, told_latency_s: latency, latencies, width: video.videoWidth,
        first_ms: performance.timeOrigin + first.now - began, audio: video.srcObject?.getAudioTracks().length ?? null,
      };
    }, began).then(({ latencies, ...more }) => ({ ...more, latency_ms: quantile(latencies, 0.5) }));
  }

  async function inMenu(name, item) {
    await page.click("#quality-button");
    if (name !== null) await page.screenshot({ path: `${folder}/${name}.png` });
    await page.locator("#quality-menu > *", { hasText: item }).click();
  }

  /** What people look at, and what axe says is serious or worse. */
  async function inspect(name) {
    await page.screenshot({ path: `${folder}/${name}.png` });
    await page.evaluate(axe.source);
    const { violations } = await page.evaluate(() => window.axe.run());
    const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
    return { axe: serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`) };
  }
});
