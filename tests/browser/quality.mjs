// Chooses each rendition of a stream in the quality menu of its watch page, and looks whether the picture follows.
//
//   node quality.mjs BASE STREAM SCREENSHOT_FOLDER
//
// STREAM is "live/name". One line of JSON per choice, `switch`: the height that was chosen (null: Auto), the height on the
// screen when it was reached and after how many milliseconds (null: never), how often the picture stood still meanwhile and
// the longest time it did, and what the page says of itself. First down the ladder, then up, then Auto.
// Exit code 0: every choice was shown, and nothing stood still.

import { run, tell, visit } from "./page.mjs";

const [base, stream, folder] = process.argv.slice(2);

/** How long each choice is watched, in milliseconds. */
const WATCHED = 10_000;
/** Longer between two pictures, in milliseconds, is standing still. */
const STANDS_STILL = 300;
/** To find the stream, and to play it long enough to have settled. */
const PATIENCE = 60_000;
const SETTLED_FRAMES = 150;

await run(async (browser) => {
  const { page, problems, goto } = await visit(browser, `${base}/watch/${stream}`);
  page.setDefaultTimeout(PATIENCE);
  await goto();
  await page.waitForFunction((frames) => window.clock.frames.length > frames, SETTLED_FRAMES);
  // Reading the clock in the picture takes time that this is not about.
  await page.evaluate(() => { window.clock.every = Number.POSITIVE_INFINITY; });
  await page.waitForSelector("#quality-button:not([hidden])");

  const down = await page.evaluate(() => window.tidecast.stats().renditions);
  if (down.length < 2) throw new Error(`nothing to switch between: ${JSON.stringify(down)}`);
  tell("renditions", { heights: down });
  const seen = [];
  for (const height of [...down, ...down.slice(0, -1).reverse(), null]) {
    await page.click("#quality-button");
    const result = await page.evaluate(watch, { height, watched: WATCHED, standsStill: STANDS_STILL });
    seen.push(result);
    tell("switch", result);
    await page.screenshot({ path: `${folder}/quality-${seen.length}-${height ?? "auto"}.png` });
  }
  const bad = seen.filter(({ shown_ms, stalls }) => shown_ms === null || stalls > 0);
  tell("done", { problems, switches: seen });
  if (bad.length > 0 || problems.length > 0) throw new Error(`${bad.length} of ${seen.length} switches went wrong; ${problems.join(", ")}`);
});

/** Runs inside the page, with the menu open. */
async function watch({ height, watched, standsStill }) {
  const { video, stats } = window.tidecast;
  document.querySelector(`#quality-menu [data-choice="${height ?? "auto"}"]`).click();
  const from = performance.now();
  let shown = null;
  while (performance.now() - from < watched) {
    await new Promise(requestAnimationFrame);
    if (shown === null && (height === null || video.videoHeight === height)) shown = performance.now() - from;
  }
  // The last picture from before the choice begins the first interval, the end of watching ends the last one.
  const { frames } = window.clock;
  const first = frames.findIndex(({ now }) => now >= from);
  const times = [frames.at(first < 0 ? -1 : Math.max(0, first - 1)).now, ...frames.filter(({ now }) => now >= from).map(({ now }) => now), performance.now()];
  const intervals = times.slice(1).map((time, i) => time - times[i]);
  const { rendition, auto, edgeLatency, buffer } = stats();
  return {
    height,
    shown_height: video.videoHeight,
    shown_ms: shown === null ? null : Math.round(shown),
    stalls: intervals.filter((interval) => interval > standsStill).length,
    longest_ms: Math.round(Math.max(...intervals)),
    rendition,
    auto,
    edge_latency_s: edgeLatency,
    buffer_s: buffer,
  };
}
