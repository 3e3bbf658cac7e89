// The player alone, in frames of other sites.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { SHOTS, inPlayback, inspect, mock, publish, visit } from "./visitor.mjs";

/** A page of another site: `localhost` and `127.0.0.1` are two sites to a browser. */
let host;
before(async () => {
  host = createServer((request, response) => {
    response.setHeader("Content-Type", "text/html");
    const source = new URL(request.url, "http://host").searchParams.get("frame");
    response.end(`<!doctype html><html lang="en"><title>Somebody's page</title><body><h1>Somebody's page</h1>
      <iframe src="${source}" title="Live stream" width="640" height="360" allow="autoplay; fullscreen; picture-in-picture"></iframe>`);
  });
  await new Promise((resolve) => host.listen(0, "127.0.0.1", resolve));
});
after(() => new Promise((resolve) => host.close(resolve)));

const framing = (path) => `http://localhost:${host.address().port}/?frame=${encodeURIComponent(mock.origin + path)}`;

/** As a browser that gives frames of other sites no storage. */
const noStorage = () => {
  for (const area of ["localStorage", "sessionStorage"]) {
    Object.defineProperty(window, area, { get: () => { throw new DOMException("denied", "SecurityError"); } });
  }
};

const frameOf = async (page) => (await page.waitForSelector("iframe")).contentFrame();

test("the player runs in a frame of another site without storage, muted until it is tapped", async () => {
  await publish("live/cam");
  const page = await visit(framing("/embed/live/cam"), { init: noStorage, untouched: true });
  const frame = await frameOf(page);
  await inPlayback(frame, "playing");
  const box = await frame.evaluate(() => {
    const { width, height } = document.querySelector("video").getBoundingClientRect();
    return [width, height, document.documentElement.scrollHeight];
  });
  assert.deepEqual(box, [640, 360, 360], "the picture fills its frame");
  assert.equal(await frame.evaluate(() => window.tidecast.video.muted), true);
  await page.screenshot({ path: `${SHOTS}embed-framed-1280.png` });
  await frame.getByRole("button", { name: "Tap for sound" }).click();
  await frame.waitForFunction(() => !window.tidecast.video.muted);
  await frame.evaluate(() => {
    window.tidecast.video.addTextTrack("captions", "Captions", "und").mode = "disabled";
  });
  await frame.locator("media-captions-button").click();
  await frame.waitForFunction(() => [...window.tidecast.video.textTracks].some(({ mode }) => mode === "showing"));
});

test("an embedded stream that is not on the air says so in its frame, and comes by itself", async () => {
  const page = await visit("/embed/live/cam");
  await page.getByRole("heading", { name: "cam is offline" }).waitFor();
  assert.equal(await page.locator(".topbar, .footer, .about").count(), 0);
  await inspect(page, "embed-offline");
  mock.set("live/cam", { state: "starting", reason: "Waiting for a keyframe." });
  await page.locator("#notice-text", { hasText: "Waiting for a keyframe." }).waitFor();
  const channel = await publish("live/cam");
  await inPlayback(page, "playing");
  await inspect(page, "embed-live");
  channel.stop();
  await channel.exited;
  mock.set("live/cam", { state: "ended", reason: null });
  await page.getByRole("heading", { name: "The stream has ended" }).waitFor();
});

test("no other page lets itself be framed by another site", async () => {
  const page = await visit("about:blank");
  const told = page.waitForEvent("console", (message) => /frame-ancestors/.test(message.text()));
  await page.goto(framing("/connect"));
  await told;
  const frame = await frameOf(page);
  assert.equal(await frame.locator("#gate").count(), 0);
  // What a visitor must never meet elsewhere.
  assert.match(page.problems.splice(0).join("\n"), /frame-ancestors/);
});
