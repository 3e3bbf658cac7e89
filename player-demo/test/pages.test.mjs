// The built pages in a real Chromium, against a stand-in server and a stream that ffmpeg encodes as the test runs.

import assert from "node:assert/strict";
import { test } from "node:test";
import { liveStream } from "./mock.mjs";
import { SHOTS, assertStill, framesAfter, inPlayback, inState, inspect, mock, publish, stats, visit, visitRecording } from "./visitor.mjs";

test("an empty server tells how to go live, and lists a stream as soon as there is one", async () => {
  const page = await visit("/");
  await inState(page, "empty");
  assert.equal(await page.textContent("#server"), "rtmp://127.0.0.1:2935/live");
  await inspect(page, "home-empty");

  mock.set("live/cam", liveStream());
  mock.set("live/obs-default", liveStream({ keyframe_interval: 8.33, viewers: 1, since: Date.now() - 3_700_000, bitrate: 6_120_000 }));
  mock.set("stage/second-camera", liveStream({ state: "starting", reason: "Waiting for the second keyframe: this broadcaster sends one every 8.3 s.", bitrate: null, keyframe_interval: null, viewers: 0, since: Date.now() - 4000 }));
  await inState(page, "live");
  assert.deepEqual(await page.locator(".card-title").allTextContents(), ["cam", "obs-default", "second-camera"]);
  assert.deepEqual(await page.locator(".card .warning:visible").count(), 1);
  await inspect(page, "home-streams");

  // The focus survives the polls that follow.
  await page.focus(".card-title a");
  mock.set("live/cam", { viewers: 4 });
  await page.waitForFunction(() => document.querySelector(".card")?.textContent.includes("4 viewers"));
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "cam");
});

test("a page that waits goes from offline to live to ended and to the next session by itself", async () => {
  const page = await visit("/watch/live/cam");
  await inState(page, "offline");
  await inspect(page, "watch-offline");

  mock.set("live/cam", { state: "starting", reason: "Waiting for the second keyframe: this broadcaster sends one every 8.3 s." });
  await inState(page, "starting");
  assert.match(await page.textContent("#notice-text"), /every 8\.3 s/);
  await inspect(page, "watch-starting");

  const first = await publish("live/cam", { keyframe_interval: 8.33 });
  await inState(page, "live");
  await inPlayback(page, "playing");
  await framesAfter(page, 60);
  const playing = await stats(page);
  assert.equal(playing.player, "hls.js");
  assert.ok(playing.lowLatency, "parts are loaded and the playlist is held");
  assert.equal(playing.width, 640);
  assert.ok(playing.bitrate !== 2_640_000, "the bitrate is measured, not copied");
  // Who begins late because the machine is busy catches up.
  await page.waitForFunction(() => window.tidecast.stats().latency < 3);
  await assertStill(page);
  await page.keyboard.press("s");
  await page.waitForSelector("#stats:not([hidden])");
  await inspect(page, "watch-live");
  await page.keyboard.press("s");

  first.stop();
  await first.exited;
  mock.set("live/cam", { state: "ended", reason: "The broadcaster stopped the stream." });
  await inState(page, "ended");
  await inspect(page, "watch-ended");
  await assertStill(page);

  await publish("live/cam", { session: "s2" });
  await inState(page, "live");
  await inPlayback(page, "playing");
  await framesAfter(page, (await stats(page)).frames + 30);
});

test("a browser that refuses sound plays muted and offers a tap for sound", async () => {
  await publish("live/cam");
  const page = await visit("/watch/live/cam", { untouched: true });
  await inPlayback(page, "playing");
  const button = page.getByRole("button", { name: "Tap for sound" });
  await button.waitFor();
  await inspect(page, "watch-tap-for-sound");
  await button.click();
  await button.waitFor({ state: "hidden" });
  assert.equal(await page.evaluate(() => window.tidecast.video.muted), false);
  await framesAfter(page, (await stats(page)).frames + 10);
});

test("a browser that refuses to play at all is offered a tap to play", async () => {
  await publish("live/cam");
  const page = await visit("/watch/live/cam", {
    clock: true,
    untouched: true,
    init: () => {
      const play = HTMLMediaElement.prototype.play;
      HTMLMediaElement.prototype.play = function () {
        return navigator.userActivation.hasBeenActive ? play.call(this) : Promise.reject(new DOMException("no", "NotAllowedError"));
      };
    },
  });
  await inPlayback(page, "blocked");
  await inspect(page, "watch-tap-to-play");
  // Whoever was away for a minute has missed nothing.
  await page.clock.fastForward(60_000);
  assert.equal(await page.getAttribute("html", "data-state"), "live");
  await page.getByRole("button", { name: "Tap to play" }).click();
  await inPlayback(page, "playing");
});

test("a stream without a picture says so, and plays", async () => {
  await publish("live/cam", { video: null });
  const page = await visit("/watch/live/cam");
  await inPlayback(page, "playing");
  await page.getByText("Audio only", { exact: true }).first().waitFor();
});

test("the keyboard does everything the buttons do", async () => {
  await publish("live/cam");
  const page = await visit("/watch/live/cam", { untouched: true });
  await inPlayback(page, "playing");
  await page.keyboard.press("m");
  await page.waitForFunction(() => !window.tidecast.video.muted);
  await page.keyboard.press("m");
  await page.waitForFunction(() => window.tidecast.video.muted);

  // Paused for a while the viewer is behind, and stays there until asking for the live edge.
  await page.keyboard.press("k");
  await inPlayback(page, "paused");
  await page.waitForFunction(() => window.tidecast.stats().edgeLatency > 6, null, { timeout: 20_000 });
  await page.keyboard.press("k");
  await inPlayback(page, "playing");
  await page.waitForFunction(() => /\d+ s behind/.test(document.querySelector("#behind").textContent));
  assert.equal((await stats(page)).playbackRate, 1);
  await page.screenshot({ path: `${SHOTS}watch-behind-1280.png` });
  await page.keyboard.press("l");
  await page.waitForFunction(() => window.tidecast.stats().edgeLatency < 3);
  await page.waitForFunction(() => document.querySelector("#behind").textContent === "");

  await page.keyboard.press("?");
  await page.waitForSelector("dialog[open]");
  await inspect(page, "watch-help");
  await page.keyboard.press("Escape");
  await page.waitForSelector("dialog:not([open])", { state: "attached" });
});

test("Tab goes from the links of the page through every control of the player", async () => {
  await publish("live/cam");
  const page = await visit("/watch/live/cam");
  await inPlayback(page, "playing");
  const visited = new Set();
  for (let presses = 0; presses < 20; presses += 1) {
    await page.keyboard.press("Tab");
    visited.add(await page.evaluate(() => document.activeElement.id || document.activeElement.localName));
  }
  for (const control of ["a", "media-play-button", "media-mute-button", "stats-button", "help-button"]) {
    assert.ok(visited.has(control), `${control} is not among ${[...visited]}`);
  }
  assert.ok(!visited.has("media-captions-button"), "there are no captions to switch on");
});

test("the browser's own HLS plays when it is asked for", async () => {
  const page = await visitRecording("/watch/live/cam?player=native");
  await framesAfter(page, 30);
  const { player } = await stats(page);
  assert.equal(player, "native");
  assert.equal(await page.evaluate(() => window.tidecast.hls), null);
});

test("a stream that cannot be played says so and recovers by itself", async () => {
  mock.set("live/broken", liveStream());
  const page = await visit("/watch/live/broken");
  await inState(page, "error");
  // In between it tries again.
  await page.locator("#notice-text", { hasText: "HTTP 404" }).waitFor();
  await page.waitForFunction(() => /Trying again/.test(document.querySelector("#notice-next").textContent));
  await inspect(page, "watch-error");
  await mock.publish("live/broken");
  await inState(page, "live");
  await inPlayback(page, "playing");
});

test("a server that goes away is told, and the page goes on when it is back", async () => {
  const [watch, home] = [await visit("/watch/live/cam"), await visit("/")];
  await inState(watch, "offline");
  await inState(home, "empty");
  mock.broken = true;
  await inState(watch, "error");
  await inState(home, "error");
  await inspect(watch, "watch-unreachable");
  await inspect(home, "home-unreachable");
  // While the server is still away: a page that is back by itself has no such button any more.
  await watch.getByRole("button", { name: "Try again now" }).click();
  mock.broken = false;
  await inState(watch, "offline");
  await inState(home, "empty");
});

test("who comes right after an interruption does not wait for the rest of the first segment behind it", async () => {
  const interrupted = { state: "interrupted", interrupted_since: Date.now() };
  const channel = await publish("live/cam", interrupted, { ladder: ["640x360"] });
  const page = await visit("/watch/live/cam");
  await inState(page, "interrupted");
  await channel.interrupt(2);
  mock.set("live/cam", liveStream());
  await page.evaluate(() => window.dispatchEvent(new Event("online")));
  await framesAfter(page, 30);
});

test("a hidden tab does not poll, and catches up when it is shown", async () => {
  const page = await visit("/watch/live/cam", { clock: true });
  await inState(page, "offline");
  let asked = 0;
  page.on("request", (request) => (asked += Number(request.url().includes("/state/"))));
  const hide = (hidden) =>
    page.evaluate((value) => {
      Object.defineProperty(document, "hidden", { value, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
  await hide(true);
  // As the page counts them: one that was asked before may still be on its way to the server.
  const before = asked;
  await page.clock.runFor(60_000);
  assert.equal(asked, before);
  mock.set("live/cam", { state: "starting" });
  await hide(false);
  await inState(page, "starting");
});
