// A visitor with a real Chromium, for the tests of the pages. Screenshots of every state go to test/out/ for people to look
// at. Needs chromium (or CHROMIUM=path) and ffmpeg.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { after, afterEach, before } from "node:test";
import axe from "axe-core";
import { chromium } from "playwright-core";
import { liveStream, startMock } from "./mock.mjs";

const WIDTHS = [1280, 360];
const HEIGHTS = { 1280: 800, 360: 740 };
export const SHOTS = new URL("./out/", import.meta.url).pathname;

export let mock;
let browser;
let visits = [];

before(async () => {
  await mkdir(SHOTS, { recursive: true });
  mock = await startMock();
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox"],
  });
});

after(async () => {
  await browser?.close();
  await mock?.close();
});

afterEach(async () => {
  const problems = visits.flatMap((page) => page.problems);
  await Promise.all(visits.map((page) => page.context().close()));
  visits = [];
  for (const name of mock.names()) mock.remove(name);
  assert.deepEqual(problems, []);
});

/**
 * Opens a page that records what a visitor must never meet: script errors, blocked resources, things that jump. `untouched`: a
 * page that plays is left alone until it has begun to. A look into it from here counts as an act of the visitor, after which
 * Chromium refuses no sound.
 */
export async function visit(path, { init, clock, nodes, untouched } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  page.problems = [];
  visits.push(page);
  if (clock) await page.clock.install();
  page.on("pageerror", (error) => page.problems.push(error.message));
  page.on("console", (message) => {
    if (/Content Security Policy/.test(message.text())) page.problems.push(message.text());
  });
  await page.addInitScript(() => {
    window.layoutShift = 0;
    new PerformanceObserver((list) => {
      for (const shift of list.getEntries()) if (!shift.hadRecentInput) window.layoutShift += shift.value;
    }).observe({ type: "layout-shift", buffered: true });
  });
  if (init) await page.addInitScript(init);
  if (nodes) await page.route("**/nodes", (route) => route.fulfill({ json: nodes }));
  const begun = untouched ? page.waitForRequest(/\.m3u8/) : null;
  await page.goto(path.startsWith("/") ? mock.origin + path : path);
  await begun;
  return page;
}

/** `changes` to what the server says of the stream, `options` for the stream itself. */
export async function publish(name, changes, options) {
  const channel = await mock.publish(name, options);
  mock.set(name, liveStream(changes));
  return channel;
}

export const inState = (page, state) => page.waitForSelector(`html[data-state="${state}"]`, { state: "attached", timeout: 20_000 });
export const inPlayback = (page, playback) => page.waitForSelector(`html[data-playback="${playback}"]`, { state: "attached", timeout: 20_000 });
export const stats = (page) => page.evaluate(() => window.tidecast.stats());
export const framesAfter = (page, frames) => page.waitForFunction((n) => window.tidecast.stats().frames > n, frames, { timeout: 20_000 });

/**
 * For Chromium's own player, which takes the start of a live stream for the end of a pause: if it has loaded the last three
 * segments before it plays, it asks for newer ones, and gives up if there are none yet (hls_rendition_impl.cc,
 * ManifestUpdateForLiveResume).
 */
export async function visitRecording(path, options) {
  const recording = await publish("live/cam", {}, { ...options, seconds: 16 });
  await recording.exited;
  const page = await visit(path);
  await inPlayback(page, "playing");
  return page;
}

/** Looks at the page as it is, wide and narrow: a picture for people, axe for the rest. */
export async function inspect(page, name) {
  for (const width of WIDTHS) {
    await page.setViewportSize({ width, height: HEIGHTS[width] });
    await page.screenshot({ path: `${SHOTS}${name}-${width}.png` });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(overflow <= 0, `${name} is ${overflow} px wider than a window of ${width} px`);
    await page.evaluate(axe.source);
    const { violations } = await page.evaluate(() => window.axe.run());
    const told = violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(({ html }) => html).join(" ")}`);
    assert.deepEqual(told, [], `${name} at ${width} px`);
  }
  await page.setViewportSize({ width: 1280, height: 800 });
}

export async function assertStill(page) {
  const shift = await page.evaluate(() => window.layoutShift);
  assert.ok(shift < 0.01, `things jumped about: layout shift ${shift}`);
}

