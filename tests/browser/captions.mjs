// Switches captions on with the button of a watch page, and reads them from the screen: first of what Auto plays, then of the
// rendition of 180 lines.
//
//   node captions.mjs BASE STREAM SCREENSHOT_FOLDER
//
// STREAM is "live/name", of 360 lines. One line of JSON for each rendition, `captions`: its height and name, what the track is called, and the
// captions that were seen, with their beginning and end and where the picture was when each was seen first, in seconds of media.

import { run, tell, visit } from "./page.mjs";

const [base, stream, folder] = process.argv.slice(2);

/** To find the stream, and for whatever is to happen on the page. */
const PATIENCE = 60_000;
const SETTLED_FRAMES = 90;
/** So many, one after the other. */
const CAPTIONS = 4;
/** Of the smallest phones. */
const NARROW = { width: 320, height: 640 };

await run(async (browser) => {
  const { page, problems, goto } = await visit(browser, `${base}/watch/${stream}`);
  page.setDefaultTimeout(PATIENCE);
  page.on("console", (message) => {
    if (message.text().includes("Content Security Policy")) problems.push(message.text());
  });
  await goto();
  await page.waitForFunction((frames) => window.clock.frames.length > frames, SETTLED_FRAMES);
  await page.evaluate(() => { window.clock.every = Number.POSITIVE_INFINITY; });
  const button = page.locator("media-captions-button");
  await button.waitFor({ state: "visible" });
  await button.click();
  for (const height of [360, 180]) {
    await page.click("#quality-button");
    await page.click(`#quality-menu [data-choice="${height}"]`);
    await page.waitForFunction((height) => window.tidecast.video.videoHeight === height, height);
    const seen = await page.evaluate(watch, CAPTIONS);
    await page.screenshot({ path: `${folder}/captions-${height}.png` });
    const rendition = await page.evaluate(() => {
      const { hls } = window.tidecast;
      return new URL(hls.levels[hls.currentLevel].uri).pathname.split("/").at(-2);
    });
    tell("captions", { height, rendition, ...seen, problems });
  }
  // What was switched on is on at the next visit, on the smallest phone, too.
  await page.setViewportSize(NARROW);
  await page.reload();
  await page.waitForFunction(() => [...window.tidecast.video.textTracks].some(({ mode, activeCues }) => mode === "showing" && activeCues.length > 0));
  // They stay.
  await page.evaluate(() => document.querySelector("#player").setAttribute("autohide", "-1"));
  await page.hover("#stage");
  await button.waitFor({ state: "visible" });
  await page.screenshot({ path: `${folder}/captions-narrow.png` });
  const cut = await page.evaluate(cutOff);
  if (cut.length > 0) throw new Error(`cut off or covered: ${cut}`);
  tell("done", { problems });
});

/** Runs inside the page: controls for which there is no room. */
function cutOff() {
  const { left, right } = document.querySelector("#stage").getBoundingClientRect();
  const shown = [...document.querySelector("media-control-bar").children].filter((control) => control.getBoundingClientRect().width > 0);
  const boxes = shown.map((control) => [control.id || control.localName, control.getBoundingClientRect()]);
  const isCut = (box, next) => box.left < left || box.right > right + 0.5 || (next && next.left < box.right - 0.5);
  return boxes.flatMap(([name, box], i) => (isCut(box, boxes[i + 1]?.[1]) ? [name] : []));
}

/** Runs inside the page. */
async function watch(count) {
  const { video } = window.tidecast;
  const track = [...video.textTracks].find(({ mode }) => mode === "showing");
  if (!track) throw new Error("no track is shown");
  const seen = [];
  while (seen.length < count || track.activeCues.length === 0) {
    await new Promise(requestAnimationFrame);
    for (const { text } of track.activeCues) {
      if (seen.at(-1)?.text !== text) seen.push({ text, seen: video.currentTime });
    }
  }
  // One of them is told of as several that follow each other.
  const captions = seen.slice(0, count - 1).map(({ text, seen: at }) => {
    const cues = [...track.cues].filter((cue) => cue.text === text && Math.abs(cue.startTime - at) < 5);
    return { text, seen: at, start: Math.min(...cues.map(({ startTime }) => startTime)), end: Math.max(...cues.map(({ endTime }) => endTime)) };
  });
  return { label: track.label, captions };
}
