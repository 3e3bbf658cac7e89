// The watch page over HTTPS with a certificate that nobody vouches for: what its visitor sees who has accepted it.
//
//   node https.mjs URL SCREENSHOT_FOLDER
//
// Event: live, after SECONDS of watching.

import axe from "axe-core";
import { run, tell, visit } from "./page.mjs";

const SECONDS = 8;
const STATE_TIMEOUT = 40_000;

const [url, folder] = process.argv.slice(2);

await run(async (browser) => {
  const { page, problems, goto } = await visit(browser, url, { ignoreHTTPSErrors: true });
  await goto();
  await page.waitForSelector('html[data-state="live"]', { state: "attached", timeout: STATE_TIMEOUT });
  await page.waitForFunction(() => window.clock.frames.length > 0, null, { timeout: STATE_TIMEOUT });
  const before = await measure();
  await page.waitForFunction((until) => performance.now() > until, before.now + SECONDS * 1000, { timeout: STATE_TIMEOUT });
  const after = await measure();
  await page.screenshot({ path: `${folder}/https-watch.png` });

  await page.click("#trust");
  await page.waitForFunction(() => document.getElementById("fingerprint")?.textContent?.includes(":"), null, { timeout: STATE_TIMEOUT });
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => window.axe.run());
  await page.screenshot({ path: `${folder}/https-trust.png`, fullPage: true });
  tell("live", {
    protocols: after.protocols,
    secure: after.secure,
    frames: after.frames - before.frames,
    media_s: after.currentTime - before.currentTime,
    low_latency: after.low_latency,
    blocking_reloads: after.blocking_reloads,
    fingerprint: await page.textContent("#fingerprint"),
    axe: violations.filter(({ impact }) => impact === "serious" || impact === "critical").map(({ id }) => id),
    problems,
  });

  function measure() {
    return page.evaluate(() => {
      const { video, hls } = window.tidecast;
      const resources = performance.getEntriesByType("resource");
      return {
        now: performance.now(),
        frames: window.clock.frames.length,
        currentTime: video.currentTime,
        secure: window.isSecureContext,
        low_latency: hls?.lowLatencyMode ?? null,
        protocols: [...new Set(resources.map(({ nextHopProtocol }) => nextHopProtocol).filter(Boolean))],
        blocking_reloads: resources.filter(({ name }) => name.includes("_HLS_msn=")).length,
      };
    });
  }
});
