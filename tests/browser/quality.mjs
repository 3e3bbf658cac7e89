// Chooses each rendition of a stream in the quality menu of its watch page, and looks whether the picture follows.
//
//   node quality.mjs BASE STREAM SCREENSHOT_FOLDER
//
// STREAM is "live/name". One line of JSON per choice, `switch`: the height that was chosen (null: Auto), the height on the
// screen when it was reached and after how many milliseconds (null: never), how often the picture stood still until
// then and the longest time it did, which parts of the picture were loaded though the player had them in some rendition (`again`), and
// what the page says of itself. First down the ladder, then up, then Auto.
// Exit code 0: every choice was shown, nothing was loaded again, and nothing stood still.

import { run, tell, visit } from "./page.mjs";

const [base, stream, folder] = process.argv.slice(2);

/** How long each choice is watched, in milliseconds. */
const WATCHED = 10_000;
/** What comes so long after the choice was shown is none of its doing, in milliseconds. */
const SETTLED = 1000;
/** Longer between two pictures, in milliseconds, is standing still. */
const STANDS_STILL = 300;
/** To find the stream, and to play it long enough to have settled. */
const PATIENCE = 60_000;
const SETTLED_FRAMES = 150;
/** The path of a part or segment of the picture: rendition, MSN, number. */
const PICTURE = /\/(v\d*)\/(\d+)(?:\.(\d+))?\.m4s$/;

await run(async (browser) => {
  const { page, problems, goto } = await visit(browser, `${base}/watch/${stream}`);
  page.setDefaultTimeout(PATIENCE);
  const loaded = new Set();
  let again = [];
  page.on("request", (request) => {
    const [, name, msn, part] = PICTURE.exec(new URL(request.url()).pathname) ?? [];
    if (!msn) return;
    // A whole segment has all of its parts.
    const had = part ? loaded.has(`${msn}.${part}`) || loaded.has(msn) : loaded.has(msn) || loaded.has(`${msn}.0`);
    if (had) again.push(`${name}/${msn}${part ? `.${part}` : ""}`);
    loaded.add(part ? `${msn}.${part}` : msn);
  });
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
    again = [];
    const result = { ...(await page.evaluate(watch, { height, watched: WATCHED, settled: SETTLED, standsStill: STANDS_STILL })), again };
    seen.push(result);
    tell("switch", result);
    await page.screenshot({ path: `${folder}/quality-${seen.length}-${height ?? "auto"}.png` });
  }
  const bad = seen.filter(({ shown_ms, stalls, again }) => shown_ms === null || stalls > 0 || again.length > 0);
  tell("done", { problems, switches: seen });
  if (bad.length > 0 || problems.length > 0) throw new Error(`${bad.length} of ${seen.length} switches went wrong; ${problems.join(", ")}`);
});

/** Runs inside the page, with the menu open. */
async function watch({ height, watched, settled, standsStill }) {
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
  const next = frames.findIndex(({ now }) => now >= from);
  const times = [...frames.slice(next < 0 ? -1 : Math.max(0, next - 1)).map(({ now }) => now), performance.now()];
  const until = from + (shown ?? watched) + settled;
  const intervals = times.slice(1).flatMap((time, i) => (times[i] < until ? [time - times[i]] : []));
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
