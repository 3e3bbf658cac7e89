// Plays one stream in several players at once, as people embed them: no handler of any error, no script that helps.
//
//   node players.mjs ORIGIN STREAM PLAYER[,PLAYER...] SCREENSHOT_FOLDER SECONDS
//
// PLAYER: watch (our page), webrtc (the same, by WebRTC), hls.js, shaka, native. STREAM is "live/name", with a burned-in clock (scripts/publish.sh).
// Events: playing (all of them show moving pictures); then, over and over, seen: what the viewer of each one saw in the
// next SECONDS, told when the picture moves again after the longest freeze among them. Whoever starts this interrupts
// the stream early enough for everybody to be back within that time.
//
// The viewer measures: a picture is a frame the browser presented, and its age is what the clock in it says.

import { once } from "node:events";
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";
import { run, tell, visit } from "./page.mjs";

const [origin, stream, wanted, folder, seconds] = process.argv.slice(2);

/** Longer than anything a viewer would wait for. */
const PATIENCE = 60_000;
/** Pictures again for this long, in milliseconds: it is back, and not for a moment. */
const SETTLED = 3000;

/**
 * Players that are embedded bare do not ask twice whether there is a stream. shaka 5.2.12 probes a segment of each
 * rendition by its URI, which the open segment has not (hls_parser.js, getBasicInfoFromSegments_): it failed with one
 * segment and with two.
 */
const SEGMENTS_MIN = { watch: 1, webrtc: 1, "hls.js": 1, shaka: 4, native: 1 };

const source = `${origin}/hls/${stream}/index.m3u8`;
const OWN = { watch: `${origin}/watch/${stream}`, webrtc: `${origin}/watch/${stream}?via=webrtc` };
const modules = new URL("./node_modules/", import.meta.url);
const SCRIPTS = {
  "/hls.js": new URL("hls.js/dist/hls.min.js", modules),
  "/shaka.js": new URL("shaka-player/dist/shaka-player.compiled.js", modules),
};
/**
 * Chromium 156 takes the start of a live stream for the end of a pause: if it has loaded the last three segments before it
 * plays, it reloads the playlist, and gives up if that brings nothing new (hls_rendition_impl.cc,
 * ManifestUpdateForLiveResume). So `native` is started until it plays, as a viewer would; after that it is alone.
 */
const EMBEDDED = {
  "hls.js": `<script src="/hls.js"></script><script>
    const hls = new Hls({ lowLatencyMode: true }); hls.loadSource(source); hls.attachMedia(video);
    hls.on(Hls.Events.ERROR, (_, error) => { if (error.fatal) window.fatal = error.details; });</script>`,
  shaka: `<script src="/shaka.js"></script><script>
    shaka.polyfill.installAll(); const player = new shaka.Player();
    player.addEventListener("error", (event) => { if (event.detail.severity === 2) window.fatal = event.detail.code + " " + event.detail.data; });
    player.attach(video).then(() => { player.configure({ streaming: { lowLatencyMode: true } }); return player.load(source); }).catch((error) => { window.fatal = "load: " + (error.code ? error.code + " " + error.data : error.stack); });</script>`,
  native: `<script>video.src = source;
    video.addEventListener("error", () => { if (!window.started) { window.clock.frames.length = 0; video.src = source; } });</script>`,
};

const server = createServer(async ({ url }, response) => {
  const script = SCRIPTS[url];
  if (script) {
    response.setHeader("Content-Type", "text/javascript");
    return response.end(await readFile(script));
  }
  response.setHeader("Content-Type", "text/html");
  response.end(`<!doctype html><video crossorigin="anonymous" muted autoplay width="640" height="360"></video>
    <script>const video = document.querySelector("video"), source = ${JSON.stringify(source)};</script>${EMBEDDED[url.slice("/play/".length)]}`);
});
await once(server.listen(0, "127.0.0.1"), "listening");
const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
const embedder = `http://127.0.0.1:${port}`;

await run(async (browser) => {
  await segments(Math.max(...wanted.split(",").map((name) => SEGMENTS_MIN[name])));
  const players = await Promise.all(wanted.split(",").map(async (name) => {
    const visitor = await visit(browser, OWN[name] ?? `${embedder}/play/${name}`);
    visitor.page.setDefaultTimeout(PATIENCE);
    await visitor.goto();
    return { name, ...visitor };
  }));
  await Promise.all(players.map(async ({ name, page }) => {
    const moving = page.waitForFunction((settled) => {
      const { frames } = window.clock;
      return frames.length > 30 && frames.at(-1).now - frames[0].now > settled;
    }, SETTLED, { polling: 100 });
    await moving.catch(async () => {
      await page.screenshot({ path: `${folder}/never-played-${name}.png` });
      throw new Error(`${name} did not play: ${JSON.stringify(await page.evaluate(describe))}`);
    });
    await page.evaluate(() => { window.started = true; });
  }));
  tell("playing");

  for (let since = await now(), number = 1; ; number += 1) {
    const seen = await Promise.all(players.map(({ name, page, problems }) => saw(name, page, problems, since[name], number)));
    const otherwise = await now();
    // From where the last look ended: what stops meanwhile is seen, too.
    since = Object.fromEntries(seen.map(({ name, until }) => [name, until ?? otherwise[name]]));
    tell("seen", { number, players: seen });
  }

  /** Waits until the stream is there and has `min` segments. */
  async function segments(min) {
    const started = performance.now();
    for (let last; ; await setTimeout(200)) {
      last = await count().catch(String);
      if (typeof last === "number" && last >= min) return;
      if (performance.now() - started > PATIENCE) throw new Error(`waited for ${min} segments of ${source}: ${last}`);
    }
  }

  async function count() {
    const multivariant = await text(source);
    const variant = multivariant.split("\n").find((line) => line && !line.startsWith("#"));
    return (await text(new URL(variant, source))).match(/#EXTINF/g)?.length ?? 0;
  }

  async function text(url) {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
    return answer.text();
  }

  function describe() {
    const video = window.tidecast?.video ?? document.querySelector("video");
    const { readyState, networkState, currentTime, paused, error } = video;
    const { visibilityState } = document;
    return { frames: window.clock.frames.length, readyState, networkState, currentTime, paused, visibilityState, error: error?.message, fatal: window.fatal };
  }

  /** performance.now() of every page. */
  async function now() {
    return Object.fromEntries(await Promise.all(players.map(async ({ name, page }) => [name, await page.evaluate(() => performance.now())])));
  }

  /** The longest freeze in `seconds` after `since`, once there are moving pictures again; null if they never come. */
  async function saw(name, page, problems, since, number) {
    const freeze = await page.waitForFunction(([since, until, settled]) => {
      if (performance.now() < until) return null;
      const frames = window.clock.frames.filter((frame) => frame.now >= since);
      let longest = { ms: 0, end: 0 };
      for (let i = 1; i < frames.length; i += 1) {
        const ms = frames[i].now - frames[i - 1].now;
        if (ms > longest.ms) longest = { ms, end: frames[i].now };
      }
      const last = frames.at(-1);
      if (!last || performance.now() - last.now > 200 || last.now - longest.end < settled) return null;
      return { freeze_ms: Math.round(longest.ms), latency_ms: last.latency, until: last.now };
    }, [since, since + 1000 * Number(seconds), SETTLED], { timeout: 1000 * Number(seconds) + PATIENCE, polling: 100 }).then((handle) => handle.jsonValue(), () => null);
    await page.screenshot({ path: `${folder}/interruption-${number}-${name}.png` });
    const { fatal = null, error = null } = await page.evaluate(describe);
    return { name, ...(freeze ?? { freeze_ms: null, latency_ms: null }), fatal, error, problems };
  }
}, ["--allow-loopback-in-peer-connection"]);
