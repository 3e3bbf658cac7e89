// A viewer with hls.js, until playlists have come as delta updates for a while. tests/tests/delta.rs publishes.
//
//   node delta.mjs URL
//
// Event: watched, with what hls.js asked for, was sent and made of it, and how it played meanwhile.

import { run, tell, visit } from "./page.mjs";

/** How long delta updates are watched, once the first came: two of them a second, for picture and sound each. */
const SECONDS = 12;
/** Six target durations pass before anything can be skipped. */
const SKIP_TIMEOUT = 60_000;

const [url] = process.argv.slice(2);

await run(async (browser) => {
  const { page, problems, goto } = await visit(browser, url);
  let asked = 0;
  let skipped = 0;
  page.on("response", async (response) => {
    if (!new URL(response.url()).searchParams.has("_HLS_skip")) return;
    asked += 1;
    // A request that the page gave up has no text.
    const text = await response.text().catch(() => "");
    if (text.includes("\n#EXT-X-SKIP:")) skipped += 1;
  });
  await goto();
  await page.waitForFunction(() => window.clock.frames.length > 0, null, { timeout: SKIP_TIMEOUT });
  await page.evaluate(() => {
    const { video, hls } = window.tidecast;
    const seen = { stalls: 0, failed: 0, merged: 0, errors: [] };
    window.seen = seen;
    video.addEventListener("waiting", () => (seen.stalls += 1));
    hls.on("hlsError", (_, { details, fatal }) => seen.errors.push(fatal ? `${details}, fatal` : details));
    for (const updated of ["hlsLevelUpdated", "hlsAudioTrackUpdated"]) {
      hls.on(updated, (_, { details }) => {
        if (details.deltaUpdateFailed) seen.failed += 1;
        else if (details.skippedSegments > 0) seen.merged += 1;
      });
    }
  });
  await page.waitForFunction(() => window.seen.merged + window.seen.failed > 0, null, { timeout: SKIP_TIMEOUT });

  const before = await measure();
  await page.waitForFunction((until) => performance.now() > until, before.now + SECONDS * 1000, { timeout: SKIP_TIMEOUT });
  const after = await measure();
  tell("watched", {
    asked,
    skipped,
    ...after.seen,
    // What came before belongs to joining.
    stalls: after.seen.stalls - before.seen.stalls,
    media_s: after.currentTime - before.currentTime,
    watched_s: (after.now - before.now) / 1000,
    problems,
  });

  function measure() {
    return page.evaluate(() => {
      const { currentTime } = window.tidecast.video;
      return { now: performance.now(), currentTime, seen: window.seen };
    });
  }
});
