// The life of a watch page: offline, live, ended. tests/tests/watch.rs starts and ends the stream in between.
//
//   node watch.mjs URL SCREENSHOT_FOLDER
//
// Events: offline; live (after SECONDS of watching, with everything that can be measured); ended.

import axe from "axe-core";
import { quantile, run, tell, visit } from "./page.mjs";

/** How long the live stream is watched: long enough for hls.js to settle at its target latency. */
const SECONDS = 12;
const STATE_TIMEOUT = 40_000;

const [url, folder] = process.argv.slice(2);

await run(async (browser) => {
  const { page, problems, goto } = await visit(browser, url);
  const requests = { parts: 0, segments: 0, blockingReloads: 0 };
  page.on("request", (request) => {
    const { pathname, searchParams } = new URL(request.url());
    if (/\/\d+\.\d+\.m4s$/.test(pathname)) requests.parts += 1;
    else if (/\/\d+\.m4s$/.test(pathname)) requests.segments += 1;
    else if (searchParams.has("_HLS_part")) requests.blockingReloads += 1;
  });
  const failedRequests = [];
  page.on("response", (response) => {
    if (response.status() >= 500) failedRequests.push(`${response.status()} ${response.url()}`);
  });
  await goto();

  await inState("offline");
  const offline = await inspect("watch-offline");
  tell("offline", offline);

  await inState("live");
  await page.waitForFunction(() => window.clock.frames.length > 0, null, { timeout: STATE_TIMEOUT });
  const before = await measure();
  await page.waitForFunction(
    (until) => performance.now() > until,
    before.now + SECONDS * 1000,
    { timeout: STATE_TIMEOUT },
  );
  const after = await measure();
  const picture = await page.evaluate(() => window.clock.grid(window.tidecast.video));
  // What the first second shows belongs to joining; latency is judged once it has settled.
  const settled = after.frames.filter((frame) => frame.now > before.now + (SECONDS * 1000) / 2);
  const latencies = settled.map((frame) => frame.latency).filter((latency) => latency !== null);
  const live = await inspect("watch-live");
  tell("live", {
    ...live,
    watched_s: (after.now - before.now) / 1000,
    media_s: after.currentTime - before.currentTime,
    frames: after.frames.length - before.frames.length,
    dropped: after.dropped - before.dropped,
    size: after.size,
    audio_bytes: after.audioBytes - before.audioBytes,
    readable_share: latencies.length / Math.max(1, settled.length),
    latency_p50_ms: quantile(latencies, 0.5),
    latency_p95_ms: quantile(latencies, 0.95),
    hls: after.hls,
    requests,
    failed_requests: failedRequests,
    picture,
  });

  await inState("ended");
  tell("ended", { ...(await inspect("watch-ended")), problems });

  function inState(state) {
    return page.waitForSelector(`html[data-state="${state}"]`, { state: "attached", timeout: STATE_TIMEOUT });
  }

  function measure() {
    return page.evaluate(() => {
      const { video, hls } = window.tidecast;
      return {
        now: performance.now(),
        currentTime: video.currentTime,
        frames: window.clock.frames,
        dropped: video.getVideoPlaybackQuality().droppedVideoFrames,
        size: [video.videoWidth, video.videoHeight],
        audioBytes: video.webkitAudioDecodedByteCount,
        hls: hls && { low_latency_mode: hls.lowLatencyMode, latency_s: hls.latency, target_latency_s: hls.targetLatency },
      };
    });
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
