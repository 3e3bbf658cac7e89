// Measures what a viewer of a stream with a burned-in clock (scripts/publish.sh) waits for:
//
//   node latency.mjs URL [--joins N] [--seconds S]
//
// first_picture_ms   from opening the page to its first picture, over N visitors, each with an empty cache
// latency_ms         from the moment a frame was made to the moment it is on the screen, over S seconds of the last
//                    visitor, counted from when half of them have passed
//
// Prints one line of JSON with "event": "measured". The stream must be live before the first visitor comes.

import { quantile, run, tell, visit } from "./page.mjs";

const FIRST_PICTURE_TIMEOUT = 30_000;

const [url, ...options] = process.argv.slice(2);
const option = (name, fallback) => Number(options[options.indexOf(`--${name}`) + 1] ?? NaN) || fallback;
const joins = option("joins", 10);
const seconds = option("seconds", 20);

await run(async (browser) => {
  const firstPictures = [];
  let last;
  for (let join = 0; join < joins; join++) {
    await last?.page.context().close();
    last = await visit(browser, url);
    await last.goto();
    await last.page.waitForFunction(() => window.clock.frames.length > 0, null, { timeout: FIRST_PICTURE_TIMEOUT });
    firstPictures.push(await last.page.evaluate(() => window.clock.frames[0].now));
  }
  const { page, problems } = last;
  await page.waitForFunction(
    (duration) => performance.now() > window.clock.frames[0].now + duration,
    seconds * 1000,
    { timeout: seconds * 1000 + FIRST_PICTURE_TIMEOUT },
  );
  const { frames, dropped, hls, player } = await page.evaluate(() => ({
    player: window.tidecast?.stats?.().player ?? null,
    frames: window.clock.frames,
    dropped: window.tidecast?.video.getVideoPlaybackQuality().droppedVideoFrames ?? null,
    hls: window.tidecast?.hls ? { latency_s: window.tidecast.hls.latency, target_latency_s: window.tidecast.hls.targetLatency } : null,
  }));
  const settled = frames.filter((frame) => frame.now > frames[0].now + (seconds * 1000) / 2);
  const latencies = settled.map((frame) => frame.latency).filter((latency) => latency !== null);
  const gaps = settled.slice(1).map((frame, index) => frame.now - settled[index].now);
  tell("measured", {
    joins,
    first_picture_ms: { p50: quantile(firstPictures, 0.5), p95: quantile(firstPictures, 0.95), all: firstPictures.map(Math.round) },
    latency_ms: { p50: quantile(latencies, 0.5), p95: quantile(latencies, 0.95), frames: latencies.length },
    longest_freeze_ms: Math.round(Math.max(0, ...gaps)),
    dropped,
    hls,
    player,
    problems,
  });
}, ["--allow-loopback-in-peer-connection"]);
