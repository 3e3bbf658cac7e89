// A page and two nodes that have its stream, in a real Chromium.

import assert from "node:assert/strict";
import { test } from "node:test";
import { startMock } from "./mock.mjs";
import { framesAfter, inPlayback, mock, publish, stats, visit } from "./visitor.mjs";

/** So many nodes beside the first for the length of a test; each tells of all others. */
async function otherNodes(t, count) {
  const others = await Promise.all(Array.from({ length: count }, () => startMock({ twin: mock })));
  const all = [mock, ...others];
  for (const node of all) node.alternates = all.filter((other) => other !== node).map(({ origin }) => origin);
  t.after(async () => {
    Object.assign(mock, { alternates: [], drained: false, hangs: false });
    await Promise.all(others.map((node) => node.close()));
  });
  return others;
}

async function secondNode(t) {
  const [second] = await otherNodes(t, 1);
  return second;
}

/** A page that plays, and keeps how long its picture has stood still from then on, in milliseconds. */
async function watching(options) {
  await publish("live/cam", {}, options);
  return watchingIt();
}

async function watchingIt() {
  const page = await visit("/watch/live/cam");
  await inPlayback(page, "playing");
  await framesAfter(page, 60);
  page.asked = [];
  page.failed = [];
  page.on("request", (request) => page.asked.push(request.url()));
  page.on("requestfailed", (request) => page.failed.push(request.url()));
  await page.evaluate(() => {
    window.first = window.tidecast.hls;
    window.stallsBefore = window.tidecast.stats().stalls;
    window.phases = [];
    new MutationObserver(() => window.phases.push(document.documentElement.dataset.state)).observe(document.documentElement, { attributes: true });
    window.longest = 0;
    let shownAt = performance.now();
    const look = (now) => {
      window.longest = Math.max(window.longest, now - shownAt);
      shownAt = now;
      window.tidecast.video.requestVideoFrameCallback(look);
    };
    window.tidecast.video.requestVideoFrameCallback(look);
  });
  return page;
}

const isMedia = (origin) => (url) => url.startsWith(`${origin}/hls/`) && url.endsWith(".m4s");
const isTheSamePlayer = (page) => page.evaluate(() => window.first === window.tidecast.hls);
/** Of those since it was watched; a page may have stalled as it began. */
const stalls = (page) => page.evaluate(() => window.tidecast.stats().stalls - window.stallsBefore);
const stoodStill = (page) => page.evaluate(() => Math.round(window.longest));

async function playsFrom(page, node, frames = 90) {
  await page.waitForRequest((request) => isMedia(node.origin)(request.url()), { timeout: 20_000 });
  await framesAfter(page, (await stats(page)).frames + frames);
}

const LADDER = ["640x360", "320x180"];

for (const [where, cold, options] of [["that has it", 0, {}], ["that has to get it first", 1500, { ladder: LADDER }]]) {
  test(`a page leaves a drained node for one ${where} with the same player and no stall`, async (t) => {
    const second = await secondNode(t);
    second.cold = cold;
    const page = await watching(options);
    mock.drained = true;
    await playsFrom(page, second);
    page.asked.length = 0;
    await framesAfter(page, (await stats(page)).frames + 60);
    t.diagnostic(`longest: ${await stoodStill(page)} ms`);
    assert.deepEqual(page.asked.filter((url) => url.startsWith(mock.origin)), []);
    assert.deepEqual(page.failed, []);
    assert.deepEqual([await stalls(page), await isTheSamePlayer(page)], [0, true]);
  });
}

/** Runs in a page: nodes that show a clock by WebRTC, but while `window.full`; `window.asked` has what they were asked for. */
function playWhep() {
  const { fetch } = window;
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  setInterval(() => {
    context.fillStyle = `hsl(${performance.now() % 360} 50% 50%)`;
    context.fillRect(0, 0, canvas.width, canvas.height);
  }, 30);
  const sessions = new Map();
  window.asked = [];
  window.fetch = async (address, options) => {
    const { href, origin, pathname } = new URL(address, location.href);
    if (!pathname.startsWith("/whep/")) return fetch(address, options);
    window.asked.push(`${options.method} ${origin}`);
    if (options.method === "DELETE") {
      sessions.get(href)?.close();
      return new Response();
    }
    if (window.full) return new Response("", { status: 503 });
    const peer = new RTCPeerConnection();
    await peer.setRemoteDescription({ type: "offer", sdp: options.body });
    for (const track of canvas.captureStream(30).getTracks()) peer.addTrack(track);
    await peer.setLocalDescription();
    while (peer.iceGatheringState !== "complete") await new Promise((resolve) => (peer.onicegatheringstatechange = resolve));
    const session = `${href}/${sessions.size}`;
    sessions.set(session, peer);
    const answer = new Response(peer.localDescription.sdp, { status: 201, headers: { Location: session } });
    return Object.defineProperty(answer, "url", { value: href });
  };
}

test("by WebRTC a page has a picture of the other node before it leaves the drained one", async (t) => {
  const second = await secondNode(t);
  await publish("live/cam", { audio: null });
  const page = await visit("/watch/live/cam?via=webrtc", { init: playWhep });
  await page.waitForFunction(() => window.tidecast.stats().player === "webrtc" && window.tidecast.stats().frames > 30);
  mock.drained = true;
  await page.waitForFunction((left) => window.asked.includes(`DELETE ${left}`), mock.origin, { timeout: 20_000 });
  await framesAfter(page, 30);
  const asked = await page.evaluate(() => window.asked);
  assert.deepEqual(asked, [`POST ${mock.origin}`, `POST ${second.origin}`, `DELETE ${mock.origin}`]);
  assert.equal((await stats(page)).player, "webrtc");
});

test("by WebRTC a session whose node was drained is left when the next one is drained, too, before it had room", async (t) => {
  const others = await otherNodes(t, 2);
  // The first one does not take viewers by then.
  others.forEach((node, i) => (node.alternates = [others[1 - i].origin]));
  await publish("live/cam", { audio: null });
  const page = await visit("/watch/live/cam?via=webrtc", { init: playWhep });
  await page.waitForFunction(() => window.tidecast.stats().player === "webrtc" && window.tidecast.stats().frames > 30);
  await page.evaluate(() => (window.full = true));
  mock.drained = true;
  await page.waitForFunction(() => window.asked.length === 2, null, { timeout: 20_000 });
  const asked = await page.evaluate(() => window.asked);
  const [full, free] = others.toSorted((a) => (asked[1] === `POST ${a.origin}` ? -1 : 1));
  await page.evaluate(() => (window.full = false));
  full.drained = true;
  await page.waitForFunction((left) => window.asked.includes(`DELETE ${left}`), mock.origin, { timeout: 20_000 });
  assert.deepEqual(await page.evaluate(() => window.asked), [...asked, `POST ${free.origin}`, `DELETE ${mock.origin}`]);
});

test("a page whose node hangs goes on at another with the same player", async (t) => {
  const second = await secondNode(t);
  const page = await watching();
  mock.hangs = true;
  await playsFrom(page, second);
  t.diagnostic(`longest: ${await stoodStill(page)} ms`);
  assert.equal(await isTheSamePlayer(page), true);
});

test("a page whose node is gone goes on at another with the same player", async (t) => {
  const second = await secondNode(t);
  const page = await watching();
  mock.broken = true;
  t.after(() => (mock.broken = false));
  await playsFrom(page, second);
  t.diagnostic(`longest: ${await stoodStill(page)} ms`);
  assert.equal(await isTheSamePlayer(page), true);
});

/** Runs in a page: what it had no server send. */
function fromCache() {
  const entries = performance.getEntriesByType("resource");
  return entries.filter(({ transferSize, encodedBodySize }) => transferSize === 0 && encodedBodySize > 0).map(({ name }) => name);
}

// As after two halves of a cluster had a publisher each, and are one again.
const HALVES = [
  ["before, of all tracks", 2, { ladder: LADDER }],
  ["behind another discontinuity", 2, { msn: 1 }],
  ["later", 0, { msn: 3 }],
];
for (const [what, segmentsLater, options] of HALVES) {
  test(`where the same numbers are those of other segments, ${what}, the page plays on by their dates`, async (t) => {
    const channel = await publish("live/cam", {}, { ...options, msn: 0 });
    await channel.tracks.get(options.ladder ? "v360" : "v").reached(segmentsLater, 0);
    await mock.publish("live/half", options);
    const page = await watchingIt();
    await page.evaluate(() => performance.clearResourceTimings());
    mock.replace("live/cam", "live/half");
    await page.waitForFunction(() => window.tidecast.hls !== window.first && window.tidecast.stats().frames > 60, null, { timeout: 20_000 });
    t.diagnostic(`longest: ${await stoodStill(page)} ms`);
    const { latency } = await stats(page);
    assert.ok(latency > 0 && latency < 4, `${latency} s behind the broadcaster's clock`);
    assert.equal(await page.evaluate(() => window.phases.includes("error")), false, "nobody is told");
    assert.deepEqual(await page.evaluate(fromCache), [], "what the browser keeps is that of the half that is lost");
  });
}
