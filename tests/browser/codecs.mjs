// What the watch page makes of a stream's codecs: a picture and sound, or words.
//
//   node codecs.mjs URL SCREENSHOT
//
// Event: looked, SECONDS after either is there. A page that cannot play must not go on trying, so requests for playlists are
// counted.

import { run, tell, visit } from "./page.mjs";

const SECONDS = 5;
const TIMEOUT = 40_000;

const [url, screenshot] = process.argv.slice(2);

await run(async (browser) => {
  const { page, problems, goto } = await visit(browser, url);
  let playlists = 0;
  page.on("request", (request) => {
    if (new URL(request.url()).pathname.endsWith("/index.m3u8") && !request.url().includes("_HLS")) playlists += 1;
  });
  await goto();
  await page.waitForFunction(
    () => document.documentElement.dataset.state === "error" || window.clock.frames.length > 0,
    null,
    { timeout: TIMEOUT },
  );
  const before = { playlists, ...(await measure()) };
  await page.waitForFunction((until) => performance.now() > until, before.now + SECONDS * 1000, { timeout: TIMEOUT });
  const after = await measure();
  await page.screenshot({ path: screenshot });
  tell("looked", {
    problems,
    state: after.state,
    title: after.title,
    frames: after.frames - before.frames,
    watched_s: (after.now - before.now) / 1000,
    audio_bytes: after.audioBytes - before.audioBytes,
    size: after.size,
    playlists_after: playlists - before.playlists,
  });

  function measure() {
    return page.evaluate(() => {
      const { video } = window.tidecast;
      return {
        now: performance.now(),
        state: document.documentElement.dataset.state,
        title: document.querySelector("#notice-title").textContent,
        frames: window.clock.frames.length,
        audioBytes: video.webkitAudioDecodedByteCount,
        size: [video.videoWidth, video.videoHeight],
      };
    });
  }
});
