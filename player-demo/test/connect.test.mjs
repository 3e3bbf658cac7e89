// The broadcaster's page in a real Chromium, against a stand-in server.

import assert from "node:assert/strict";
import { test } from "node:test";
import { KEY, liveStream } from "./mock.mjs";
import { inState, inspect, mock, visit } from "./visitor.mjs";

const REFUSED = { at: 0, times: 1, from: "203.0.113.7", stream: "live/cam1", encoder: "OBS or another encoder with librtmp", reason: "wrong key" };

const inView = (page, view) => page.waitForSelector(`html[data-view="${view}"]`, { state: "attached" });
const dial = (page, label) => page.locator("#dials > div", { hasText: label }).locator("dd").first();

/** It is said for a moment only, so whoever looks has to look before. */
const clickAndSeeDone = (page, button) =>
  Promise.all([page.waitForFunction(() => document.querySelector('[data-done="yes"]') !== null), button.click()]);

async function opened() {
  const page = await visit(`/connect#key=${KEY}`);
  await inView(page, "open");
  return page;
}

test("the key is asked for once, said to be wrong in words, and stands in no address", async () => {
  mock.reportRequests.length = 0;
  const page = await visit("/connect");
  await inView(page, "gate");
  await inspect(page, "connect-gate");
  await page.getByRole("button", { name: "Continue" }).click();
  assert.equal(await page.textContent("#gate-error"), "Type or paste the publish key.");
  assert.equal(mock.reportRequests.length, 0);

  await page.getByLabel("Publish key").fill("not-the-key-not-the-key");
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByText("This is not the publish key of this server.").waitFor();
  await inspect(page, "connect-wrong-key");
  // A wrong key is asked about once: polling on would be guessing.
  await page.clock.install();
  await page.clock.runFor(60_000);
  assert.equal(mock.reportRequests.length, 1);

  await page.getByLabel("Publish key").fill(` ${KEY} `);
  await page.keyboard.press("Enter");
  await inView(page, "open");
  assert.ok(mock.reportRequests.every(({ url }) => !url.includes(KEY)));
  assert.equal(mock.reportRequests.at(-1).authorization, `Bearer ${KEY}`);
  assert.equal(await page.evaluate(() => localStorage.length), 0, "the key stays in this tab");

  await page.reload();
  await inView(page, "open");
  await page.getByRole("button", { name: "Forget key" }).click();
  await inView(page, "gate");
  assert.equal(await page.evaluate(() => JSON.stringify({ ...sessionStorage })), "{}");
  await page.reload();
  await inView(page, "gate");
});

test("a key in the fragment opens the page and leaves the address bar", async () => {
  const page = await visit(`/connect#key=${KEY}&stream=stage/second`);
  await inView(page, "open");
  assert.equal(page.url(), `${mock.origin}/connect`);
  assert.equal(await page.textContent("#server"), "rtmp://127.0.0.1:2935/stage");
  assert.match(await page.textContent("#stream-key"), /^second\?key=•+$/);
});

test("too many wrong keys are told in the server's words", async () => {
  mock.gate = { status: 429, words: "too many wrong keys; wait 30 s\n" };
  try {
    const page = await visit(`/connect#key=${KEY}`);
    await page.getByText("too many wrong keys; wait 30 s").waitFor();
  } finally {
    mock.gate = null;
  }
});

test("everything to type is there to copy, and follows the chosen name", async () => {
  const page = await opened();
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  const copied = async (name) => {
    await clickAndSeeDone(page, page.getByRole("button", { name, exact: true }));
    const text = await page.evaluate(() => navigator.clipboard.readText());
    await page.waitForFunction(() => !document.querySelector("[data-done]"));
    return text;
  };
  await page.getByLabel("Stream name").fill("cam 2");
  await page.getByText("A name has 1 to 64 letters").waitFor();
  await page.getByLabel("Stream name").fill("cam-2");
  assert.equal(await page.textContent("#name-error"), "");
  assert.equal(await copied("Copy the server address"), "rtmp://127.0.0.1:2935/live");
  assert.equal(await copied("Copy the stream key"), `cam-2?key=${KEY}`);
  assert.equal(await copied("Copy the link"), `${mock.origin}/watch/live/cam-2`);
  assert.match(await copied("Copy the embed code"), new RegExp(`^<iframe src="${mock.origin}/embed/live/cam-2" `));
  assert.ok(!(await page.textContent("#stream-key")).includes(KEY), "hidden until asked for");
  await page.getByRole("button", { name: "Show the stream key" }).click();
  assert.equal(await page.textContent("#stream-key"), `cam-2?key=${KEY}`);
  await page.getByRole("button", { name: "ffmpeg" }).click();
  assert.match(await copied("Copy the command"), new RegExp(`-f flv 'rtmp://127.0.0.1:2935/live/cam-2\\?key=${KEY}'$`));
  await inspect(page, "connect-ffmpeg");
});

test("a page without a clipboard, as on plain http, copies all the same", async () => {
  const page = await visit(`/connect#key=${KEY}`, { init: () => Object.defineProperty(navigator, "clipboard", { value: undefined }) });
  await inView(page, "open");
  await clickAndSeeDone(page, page.getByRole("button", { name: "Copy the server address" }));
  await page.getByLabel("Stream name").fill("");
  await page.keyboard.press("Control+V");
  assert.equal(await page.inputValue("#stream"), "rtmp://127.0.0.1:2935/live");
});

test("who was turned away and why is told at once, and names from outside are only text", async () => {
  const page = await opened();
  await inspect(page, "connect-offline");
  const hostile = { ...REFUSED, at: Date.now() - 400_000, times: 4, stream: null, encoder: "<img src=x onerror=alert(1)>", reason: "<b>bold</b> & wrong" };
  mock.reports.set("live/cam1", { refusals: [{ ...REFUSED, at: Date.now() - 12_000 }, hostile] });
  await page.locator("#banner", { hasText: /^Turned away: wrong key \(live\/cam1, from 203\.0\.113\.7, OBS or another.*\)\. \d+ s ago$/ }).waitFor();
  const lines = await page.locator(".refusal").allTextContents();
  assert.match(lines[0], /^Wrong key\d+ s ago, live\/cam1, from 203\.0\.113\.7, OBS or another/);
  assert.match(lines[1], /^<b>bold<\/b> & wrong7 min ago, 4 times, from 203\.0\.113\.7, <img src=x onerror=alert\(1\)>$/);
  assert.equal(await page.locator(".refusal img, .refusal b").count(), 0);
  await inspect(page, "connect-refused");
  mock.reports.delete("live/cam1");
});

test("the health of the stream is shown as it changes, with what to mend", async () => {
  const page = await opened();
  await inState(page, "offline");
  mock.set("live/cam1", liveStream({ keyframe_interval: 8.33, viewers: 12, bitrate: 4_380_000 }));
  const samples = Array.from({ length: 240 }, (_, i) => [1000, 4_000_000 + 900_000 * Math.sin(i / 9), i > 200 ? 21 : 30]);
  mock.reports.set("live/cam1", {
    listed: false,
    frame_rate: 21.4,
    sound: { state: "silent" },
    warnings: [
      "A keyframe comes only every 8.3 s, so new viewers wait for the picture. Set the keyframe interval to 2 s (in OBS: Settings → Output → Streaming).",
      "Only 21 of 30 frames a second arrive: the encoder leaves frames out. In OBS, View → Stats tells whether the encoder or the network is overloaded.",
    ],
    hints: ["The encoder uses B-frames, which add about 67 ms of delay."],
    samples,
    refusals: [{ ...REFUSED, at: Date.now() }],
  });
  await inState(page, "live");
  assert.equal(await dial(page, "Frame rate").textContent(), "21.4 fps");
  assert.equal(await dial(page, "Sound").textContent(), "Probably silent");
  assert.equal(await dial(page, "Watching").textContent(), "12 viewers");
  assert.equal(await page.locator("#warnings .warning").count(), 2);
  assert.equal(await page.getByText("This stream is unlisted").count(), 1);
  assert.match(await page.getAttribute("#bitrate-graph", "aria-label"), /^Bitrate over the last 4:00 minutes: 3\.1 Mb\/s to 4\.9 Mb\/s$/);
  assert.ok(await page.isHidden("#banner"), "what is on the air needs no alarm");
  await inspect(page, "connect-live");

  mock.set("live/cam1", { state: "interrupted", reason: "Nothing comes from the broadcaster at the moment." });
  await inState(page, "interrupted");
  assert.match(await page.textContent("#state-words"), /^Nothing arrives any more\./);
  assert.equal(await page.textContent("#badge"), "Interrupted");
  await inspect(page, "connect-interrupted");
  mock.reports.delete("live/cam1");
});

test("a server that goes away is told, and the page goes on when it is back", async () => {
  const page = await opened();
  mock.broken = true;
  await page.getByText("The server cannot be reached. This page goes on trying").waitFor();
  mock.broken = false;
  await page.waitForSelector("#trouble", { state: "hidden", timeout: 20_000 });
});
