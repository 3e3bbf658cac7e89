// Plays one stream in several players at once, as people embed them: no handler of any error, no script that helps.
//
//   node players.mjs ORIGIN STREAM PLAYER[,PLAYER...] SCREENSHOT_FOLDER [SECONDS]
//
// PLAYER: watch (our page), hls.js, shaka, native. STREAM is "live/name", with a burned-in clock (scripts/publish.sh).
// Events: playing (all of them show moving pictures); then, each time the scenario interrupts the stream, back (all of
// them show pictures that were made after the interruption began) with what each one's viewer saw of it. With SECONDS:
// back once, after that time, whether the picture ever stood still or not.
//
// The viewer measures: a picture is a frame the browser presented, and its age is what the clock in it says.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { run, tell, visit } from "./page.mjs";

const [origin, stream, wanted, folder, seconds] = process.argv.slice(2);

/** Longer than anything a viewer would wait for. */
const PATIENCE = 60_000;
/** The viewer's picture stood still this long, in milliseconds: the stream was interrupted. */
const FREEZE_MIN = 400;
/** Pictures again for this long, in milliseconds: it is back, and not for a moment. */
const SETTLED = 3000;

/** A stream that has just begun has less than the three target durations that players want to stay behind. */
const SEGMENTS_MIN = 4;

const source = `${origin}/hls/${stream}/index.m3u8`;
const modules = new URL("./node_modules/", import.meta.url);
const SCRIPTS = {
  "/hls.js": new URL("hls.js/dist/hls.min.js", modules),
  "/shaka.js": new URL("shaka-player/dist/shaka-player.compiled.js", modules),
};
const EMBEDDED = {
  "hls.js": `<script src="/hls.js"></script><script>
    const hls = new Hls({ lowLatencyMode: true }); hls.loadSource(source); hls.attachMedia(video);
    hls.on(Hls.Events.ERROR, (_, error) => { if (error.fatal) window.fatal = error.details; });</script>`,
  shaka: `<script src="/shaka.js"></script><script>
    shaka.polyfill.installAll(); const player = new shaka.Player();
    player.addEventListener("error", (event) => { if (event.detail.severity === 2) window.fatal = String(event.detail.code); });
    player.attach(video).then(() => { player.configure({ streaming: { lowLatencyMode: true } }); return player.load(source); }).catch((error) => { window.fatal = "load: " + (error.code ?? error.stack); });</script>`,
  native: `<script>video.src = source;</script>`,
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
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const embedder = `http://127.0.0.1:${server.address().port}`;

await run(async (browser) => {
  // Players that are embedded bare do not ask twice whether there is a stream.
  const { page: waiting } = await visit(browser, "");
  await waiting.goto(`${embedder}/play/`);
  const there = async ([source, segments]) => {
    const multivariant = await fetch(source);
    if (!multivariant.ok) return false;
    const variant = (await multivariant.text()).split("\n").find((line) => line && !line.startsWith("#"));
    const media = await fetch(new URL(variant, source));
    return media.ok && (await media.text()).split("#EXTINF").length > segments;
  };
  await waiting.waitForFunction(there, [source, SEGMENTS_MIN], { timeout: PATIENCE, polling: 200 });
  const players = await Promise.all(wanted.split(",").map(async (name) => {
    const visitor = await visit(browser, name === "watch" ? `${origin}/watch/${stream}` : `${embedder}/play/${name}`);
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
  }));
  tell("playing");

  for (let since = await now(), number = 1; ; number += 1) {
    const seen = await Promise.all(players.map(({ name, page, problems }) => back(name, page, problems, since[name], number)));
    tell("back", { players: seen });
    since = await now();
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

  /** Waits for a freeze after `since` and its end. */
  async function back(name, page, problems, since, number) {
    const freeze = await page.waitForFunction(([since, freezeMin, settled, until]) => {
      if (performance.now() < until) return null;
      const frames = window.clock.frames.filter((frame) => frame.now > since);
      let longest = until === null ? null : { ms: 0, end: 0 };
      for (let i = 1; i < frames.length; i += 1) {
        const gap = frames[i].now - frames[i - 1].now;
        if (gap >= freezeMin && gap > (longest?.ms ?? 0)) longest = { ms: gap, end: frames[i].now };
      }
      const last = frames.at(-1);
      if (!longest || performance.now() - last.now > 200 || last.now - longest.end < settled) return null;
      return { freeze_ms: Math.round(longest.ms), latency_ms: last.latency };
    }, [since, FREEZE_MIN, SETTLED, seconds ? since + 1000 * Number(seconds) : null], { timeout: PATIENCE, polling: 100 }).then((handle) => handle.jsonValue(), () => null);
    await page.screenshot({ path: `${folder}/interruption-${number}-${name}.png` });
    const fatal = await page.evaluate(() => window.fatal ?? null);
    return { name, ...(freeze ?? { freeze_ms: null, latency_ms: null }), fatal, problems };
  }
});
