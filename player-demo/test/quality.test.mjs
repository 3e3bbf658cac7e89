// The quality menu in a real Chromium, with a stream of two sizes and the sound beside them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { SHOTS, framesAfter, inPlayback, inspect, mock, publish, stats, visit, visitRecording } from "./visitor.mjs";

const LADDER = { ladder: ["640x360", "320x180"] };

const button = (page) => page.getByRole("button", { name: /^Quality/ });
const menu = (page) => page.getByRole("menu", { name: "Quality" });
const showing = (page, height) =>
  page.waitForFunction((wanted) => window.tidecast.video.videoHeight === wanted, height, { timeout: 20_000 });
const nameOf = async (page) => (await button(page).textContent()).replace(/\s+/g, " ").trim();
const focused = (page) => page.evaluate(() => document.activeElement.textContent.trim());

async function watching(path = "/watch/live/cam", options = LADDER) {
  const channel = await publish("live/cam", {}, options);
  const page = await visit(path);
  await inPlayback(page, "playing");
  return { channel, page };
}

async function choose(page, name) {
  await button(page).click();
  await menu(page).getByRole("menuitemradio", { name }).click();
  await menu(page).waitFor({ state: "hidden" });
}

test("a height is chosen from the menu, shown, and kept for the next visit", async () => {
  const { page } = await watching();
  await page.waitForFunction(() => /^\d+p$/.test(document.querySelector("#quality-second").textContent));
  await button(page).click();
  const items = await menu(page).getByRole("menuitemradio").allInnerTexts();
  assert.deepEqual(items.map((text) => text.split("\n")[0]), ["Auto", "360p", "180p", "Audio only"]);
  await inspect(page, "quality-menu");
  await page.getByRole("menuitemradio", { name: /^180p/ }).click();
  await showing(page, 180);
  assert.equal(await nameOf(page), "Quality: 180p");
  const chosen = await stats(page);
  assert.deepEqual([chosen.rendition, chosen.auto, chosen.renditions], [180, false, [360, 180]]);
  await choose(page, /^360p/);
  await showing(page, 360);

  await page.evaluate(() => localStorage.setItem("tidecast-quality", "240"));
  await page.reload();
  await showing(page, 180);
  assert.equal(await nameOf(page), "Quality: 180p", "the nearest one not above what was kept");
  await page.keyboard.press("s");
  await page.locator("#stats-list", { hasText: /Rendition320×180, \d+ kb\/s(?! \(auto\))/ }).waitFor();
  await choose(page, /^Auto/);
  assert.equal(await page.evaluate(() => localStorage.getItem("tidecast-quality")), null);
  assert.equal((await stats(page)).auto, true);
});

test("the keyboard opens the menu, goes round in it, chooses, and is back at the button", async () => {
  const { page } = await watching();
  await button(page).waitFor();
  await page.keyboard.press("q");
  assert.match(await focused(page), /^Auto/);
  await page.keyboard.press("ArrowUp");
  assert.equal(await focused(page), "Audio only");
  await page.keyboard.press("ArrowDown");
  assert.match(await focused(page), /^Auto/);
  await page.keyboard.press("End");
  await page.keyboard.press("Escape");
  await menu(page).waitFor({ state: "hidden" });
  assert.equal(await page.evaluate(() => document.activeElement.id), "quality-button");
  assert.equal(await button(page).getAttribute("aria-expanded"), "false");

  for (const key of ["Enter", " ", "ArrowDown"]) {
    await page.keyboard.press(key);
    assert.equal(await button(page).getAttribute("aria-expanded"), "true", key);
    await page.keyboard.press("Escape");
  }
  await page.keyboard.press("Enter");
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press(" ");
  await showing(page, 180);
  assert.equal(await page.evaluate(() => window.tidecast.video.paused), false, "Space chose, and did not pause");
});

test("a click beside the menu closes it and does nothing else", async () => {
  const { page } = await watching();
  await button(page).click();
  await page.mouse.click(400, 300);
  await menu(page).waitFor({ state: "hidden" });
  assert.equal(await page.evaluate(() => window.tidecast.video.paused), false);
  await button(page).click();
  await page.getByRole("heading", { name: "live/cam" }).click();
  await menu(page).waitFor({ state: "hidden" });
});

test("audio only loads no picture and says so, until the picture is wanted again", async () => {
  const { page } = await watching();
  const asked = [];
  page.on("request", (request) => asked.push(request.url().slice(mock.origin.length)));
  await choose(page, "Audio only");
  await page.locator("#audio-only").waitFor();
  await inPlayback(page, "playing");
  const at = await page.evaluate(() => window.tidecast.video.currentTime);
  await page.waitForFunction((from) => window.tidecast.video.currentTime > from + 2, at);
  assert.ok(asked.includes("/hls/live/cam/index.m3u8?only=audio"), asked.join(" "));
  await inspect(page, "quality-audio-only");
  await button(page).click();
  assert.match((await menu(page).innerText()).replace(/\s+/g, " "), /Auto 360p .* 180p .* Audio only/, "the pictures can still be chosen");
  assert.equal((await stats(page)).rendition, null);
  assert.deepEqual(asked.filter((path) => /\/v\d+\/.*m4s/.test(path) && asked.indexOf(path) > asked.indexOf("/hls/live/cam/index.m3u8?only=audio")), []);
  await page.getByRole("menuitemradio", { name: /^180p/ }).click();
  await page.locator("#audio-only").waitFor({ state: "hidden" });
  await showing(page, 180);

  await choose(page, "Audio only");
  await page.locator("#audio-only").waitFor();
  await page.reload();
  await showing(page, 180);
});

test("where the server has WebRTC, too, the menu has a switch for it, which is kept and says when HLS plays in its place", async () => {
  await publish("live/cam", {}, LADDER);
  const page = await visit("/watch/live/cam", { nodes: { alternates: [], prefer: "hls" } });
  await inPlayback(page, "playing");
  await page.waitForFunction(() => window.tidecast.stats().renditions.length === 2);
  const lowLatency = menu(page).getByRole("menuitemcheckbox", { name: "Low latency" });
  await button(page).click();
  assert.equal(await lowLatency.getAttribute("aria-checked"), "false");
  await page.keyboard.press("End");
  assert.match(await focused(page), /^Low latency/);
  await page.keyboard.press("Enter");
  await menu(page).waitFor({ state: "hidden" });
  assert.equal(await page.evaluate(() => localStorage.getItem("tidecast-low-latency")), "on");
  // The stand-in for the server has no such thing: HLS goes on, and nobody is bothered.
  await page.waitForFunction(() => window.tidecast.stats().player === "hls.js" && window.tidecast.stats().frames > 0);
  await inPlayback(page, "playing");
  await page.waitForFunction(() => window.tidecast.stats().renditions.length === 2);
  await button(page).click();
  assert.equal(await lowLatency.getAttribute("aria-checked"), "true");
  assert.match(await lowLatency.textContent(), /HLS for now/);
  await inspect(page, "quality-low-latency");
  await lowLatency.click();
  assert.equal(await page.evaluate(() => localStorage.getItem("tidecast-low-latency")), "off");
});

test("one rendition is no choice: there is no button, and Q does nothing", async () => {
  const { page } = await watching("/watch/live/cam", {});
  await framesAfter(page, 30);
  assert.equal(await page.locator("#quality-button").isVisible(), false);
  await page.keyboard.press("q");
  assert.equal(await page.locator("#quality-menu").isVisible(), false);
});

test("a chosen rendition that is gone is given up for Auto, which is said once and not kept", async () => {
  const { page, channel } = await watching();
  await choose(page, /^360p/);
  await showing(page, 360);
  channel.gone.add("v360");
  await page.locator("#quality-note", { hasText: "360p does not come at the moment. Quality is on Auto again." }).waitFor({ timeout: 20_000 });
  await page.screenshot({ path: `${SHOTS}quality-given-up-1280.png` });
  assert.match(await page.textContent("#announcer"), /^360p does not come/);
  await showing(page, 180);
  await framesAfter(page, (await stats(page)).frames + 60);
  assert.equal((await stats(page)).auto, true);
  await page.locator("#quality-note").waitFor({ state: "hidden" });
  assert.equal(await page.evaluate(() => localStorage.getItem("tidecast-quality")), "360", "the viewer's wish, for another day");
});

test("a chosen rendition that is nothing but gaps is given up, too", async () => {
  const { page, channel } = await watching();
  await choose(page, /^180p/);
  await showing(page, 180);
  channel.tracks.get("v180").losing = true;
  await page.locator("#quality-note", { hasText: "180p does not come at the moment." }).waitFor({ timeout: 20_000 });
  await showing(page, 360);
  await framesAfter(page, (await stats(page)).frames + 60);
});

test("a chosen rendition that is made on demand is asked for, and the picture before it goes on until it comes", async () => {
  const { page, channel } = await watching();
  await showing(page, 360);
  const cold = channel.tracks.get("v180");
  cold.losing = true;
  await framesAfter(page, (await stats(page)).frames + 30);
  let asked = 0;
  page.on("request", (request) => (asked += Number(request.url().includes("/v180/index.m3u8"))));
  await choose(page, /^180p/);
  // More than what is buffered: so it is loaded, and has not been turned from, or back to.
  await framesAfter(page, (await stats(page)).frames + 75);
  const loads = await page.evaluate(() => window.tidecast.hls.levels[window.tidecast.hls.loadLevel].height);
  assert.deepEqual([loads, (await stats(page)).auto], [360, false]);
  assert.ok(asked > 2, `asked ${asked} times`);
  cold.losing = false;
  await showing(page, 180);
  assert.equal(await page.locator("#quality-note").isVisible(), false);
});

test("Auto leaves a rendition with gaps before the viewer waits long", async () => {
  const { page, channel } = await watching();
  await showing(page, 360);
  const left = page.waitForRequest(/\/v180\/\d+.*\.m4s/, { timeout: 20_000 });
  // However slow the page is, it learns of a gap by a playlist.
  const playlists = [];
  page.on("response", (response) => {
    if (response.url().includes("/v360/index.m3u8")) playlists.push(response.text().catch(() => ""));
  });
  channel.tracks.get("v360").losing = true;
  await left;
  const told = (await Promise.all(playlists)).filter((text) => text.includes("GAP=YES")).length;
  assert.ok(told < 4, `left after ${told} playlists with a gap`);
  await showing(page, 180);
  await framesAfter(page, (await stats(page)).frames + 60);
  assert.equal((await stats(page)).auto, true);
  assert.equal(await page.locator("#quality-note").isVisible(), false);
});

test("with Auto nobody is told of a rendition that is gone", async () => {
  const { page, channel } = await watching();
  await showing(page, 360);
  channel.gone.add("v360");
  await showing(page, 180);
  await framesAfter(page, (await stats(page)).frames + 60);
  assert.equal(await page.locator("#quality-note").isVisible(), false);
});

test("a rendition that was last seen before the broadcaster's interruption is put beside the one that plays", async () => {
  const { page, channel } = await watching();
  await choose(page, /^180p/);
  await showing(page, 180);
  await choose(page, /^360p/);
  await showing(page, 360);
  const known = (from) =>
    page.waitForFunction((msn) => window.tidecast.hls.latestLevelDetails.startSN >= msn, from, { timeout: 30_000 });
  // The window has moved on since the other one was seen.
  await known(5);
  const msn = Math.ceil(channel.tracks.get("v360").parts.length / 4) + 2;
  await publish("live/cam", {}, { ...LADDER, gop: 1, msn });
  await known(msn);
  await choose(page, /^180p/);
  await showing(page, 180);
  const apart = await page.evaluate(() => {
    const [low, high] = window.tidecast.hls.levels.map(({ details }) => details);
    const of = new Map(low.fragments.map(({ sn, start }) => [sn, start]));
    return high.fragments.filter(({ sn }) => of.has(sn)).map(({ sn, start }) => start - of.get(sn));
  });
  assert.ok(apart.length > 0 && apart.every((seconds) => Math.abs(seconds) < 0.5), `seconds apart: ${apart}`);
});

test("the browser's own player is opened anew with a filter", async () => {
  const page = await visitRecording("/watch/live/cam?player=native", LADDER);
  const asked = [];
  page.on("request", (request) => asked.push(request.url().slice(mock.origin.length)));
  await choose(page, /^180p/);
  await showing(page, 180);
  assert.ok(asked.includes("/hls/live/cam/index.m3u8?max=180"), asked.join(" "));
  await page.waitForFunction(() => window.tidecast.stats().renditions.length > 0);
  const chosen = await stats(page);
  assert.deepEqual([chosen.player, chosen.rendition, chosen.auto, chosen.renditions], ["native", 180, false, [360, 180]]);
});

test("on the smallest phone nothing in the control bar or the menu is cut off or covered", async () => {
  const { page } = await watching("/embed/live/cam");
  for (const path of ["/embed/live/cam", "/watch/live/cam"]) {
    await page.setViewportSize({ width: 320, height: 640 });
    await page.goto(mock.origin + path);
    await inPlayback(page, "playing");
    await button(page).waitFor();
    const boxes = await page.evaluate(() => {
      const bar = document.querySelector("media-control-bar");
      const shown = [...bar.children].map((control) => [control.id || control.localName, control.getBoundingClientRect()]).filter(([, box]) => box.width > 0);
      const { left, right } = document.querySelector("#stage").getBoundingClientRect();
      return { left, right, shown: shown.map(([name, box]) => [name, box.left, box.right]) };
    });
    boxes.shown.forEach(([name, left, right], i) => {
      assert.ok(left >= boxes.left && right <= boxes.right, `${name} is cut off`);
      const next = boxes.shown[i + 1];
      assert.ok(!next || next[1] >= right - 0.5, `${name} covers ${next?.[0]}`);
    });
    await button(page).click();
    const [inner, outer] = await Promise.all([menu(page).boundingBox(), page.locator("#stage").boundingBox()]);
    assert.ok(inner.x >= outer.x && inner.y >= outer.y && inner.x + inner.width <= outer.x + outer.width, "the menu is inside the stage");
    await page.screenshot({ path: `${SHOTS}quality-${path.split("/")[1]}-320.png` });
    await page.keyboard.press("Escape");
  }
});
