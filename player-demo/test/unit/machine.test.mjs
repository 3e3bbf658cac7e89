import assert from "node:assert/strict";
import test from "node:test";
import { initial, isSettled, isWaitingForBroadcaster, step } from "../../src/watch/machine.ts";

const says = (state, changes = {}) => ({
  type: "answer",
  stream: { state, session: state === "offline" ? null : "s1", playlist: "/hls/live/cam/index.m3u8", reason: null, ...changes },
});
const playback = (playback) => ({ type: "playback", playback });

/** Feeds events one after another; `effects` are those of the last. */
function after(...events) {
  let result = { model: initial, effects: [] };
  for (const event of events) result = step(result.model, event);
  return { ...result.model, effects: result.effects.map(({ type }) => type), model: result.model };
}

test("an offline page starts by itself when the stream does", () => {
  assert.equal(after(says("offline")).phase, "offline");
  assert.equal(after(says("offline"), says("starting")).phase, "starting");
  const live = after(says("offline"), says("starting"), says("live"));
  assert.equal(live.phase, "live");
  assert.deepEqual(live.effects, ["play"]);
});

test("hearing again that the stream is live does not start it again", () => {
  assert.deepEqual(after(says("live"), says("live")).effects, []);
  assert.deepEqual(after(says("live"), playback("stalled"), says("live")).effects, []);
});

test("an ended programme is played out before the page says so", () => {
  const finishing = after(says("live"), playback("playing"), says("ended"));
  assert.equal(finishing.phase, "live");
  assert.deepEqual(finishing.effects, ["finish-soon"]);
  const ended = after(says("live"), playback("playing"), says("ended"), { type: "media-ended" });
  assert.equal(ended.phase, "ended");
  assert.deepEqual(ended.effects, ["stop"]);
  const timedOut = after(says("live"), playback("playing"), says("ended"), { type: "finish-timeout" });
  assert.equal(timedOut.phase, "ended");
});

test("with nothing on the screen an ended programme ends at once", () => {
  assert.equal(after(says("live"), says("ended")).phase, "ended");
  assert.equal(after(says("live"), playback("stalled"), says("ended")).phase, "ended");
});

test("when the player reaches the end first, the server is asked at once", () => {
  const drained = after(says("live"), playback("playing"), { type: "media-ended" });
  assert.deepEqual(drained.effects, ["poll-now"]);
  assert.equal(isSettled(drained.model), false);
  assert.equal(after(says("live"), playback("playing"), { type: "media-ended" }, says("ended")).phase, "ended");
});

test("an ended page stays ended when the server forgets, and comes back with the next session", () => {
  const forgotten = after(says("live"), says("ended"), says("offline"));
  assert.equal(forgotten.phase, "ended");
  const back = after(says("live"), says("ended"), says("offline"), says("live", { session: "s2" }));
  assert.equal(back.phase, "live");
  assert.deepEqual(back.effects, ["play"]);
});

test("the server restarting with an empty memory ends what was being watched, it was not offline all along", () => {
  assert.equal(after(says("live"), playback("stalled"), says("offline")).phase, "ended");
});

test("an interruption keeps the player, which goes on by itself, and is told once there is nothing left to show", () => {
  const buffered = after(says("live"), playback("playing"), says("interrupted"));
  assert.deepEqual([buffered.phase, buffered.effects], ["live", []]);
  assert.equal(isWaitingForBroadcaster(buffered.model), false);
  assert.equal(isSettled(buffered.model), false, "the return must not be noticed late");
  const dry = after(says("live"), playback("playing"), says("interrupted"), playback("stalled"));
  assert.equal(isWaitingForBroadcaster(dry.model), true);
  const back = step(dry.model, says("live"));
  assert.deepEqual([back.model.phase, back.effects], ["live", []]);
  assert.equal(isWaitingForBroadcaster(step(back.model, playback("playing")).model), false);
});

test("a page opened during an interruption waits, and starts when the broadcaster is back", () => {
  const waiting = after(says("interrupted"));
  assert.deepEqual([waiting.phase, waiting.effects], ["interrupted", []]);
  assert.deepEqual(after(says("interrupted"), says("live")).effects, ["play"]);
  assert.equal(after(says("interrupted"), says("ended")).phase, "ended");
});

test("a player that gives up during an interruption is no fault of its own", () => {
  const failed = after(says("live"), playback("stalled"), says("interrupted"), { type: "player-failed", detail: "fragGap" });
  assert.deepEqual([failed.phase, failed.effects], ["interrupted", ["stop"]]);
  assert.deepEqual(step(failed.model, says("live")).effects.map(({ type }) => type), ["play"]);
});

test("when polling has moved to another server, the player goes on there, once", () => {
  const elsewhere = { playlist: "https://edge2.example/hls/live/cam/index.m3u8" };
  const moved = after(says("live"), playback("playing"), says("live", elsewhere));
  assert.deepEqual([moved.effects, moved.playing, moved.from, moved.playback], [["move"], "s1", elsewhere.playlist, "playing"]);
  assert.deepEqual(step(moved.model, says("live", elsewhere)).effects, []);
  const [effect] = step(after(says("live"), playback("stalled")).model, says("live", elsewhere)).effects;
  assert.deepEqual(effect, { type: "move", from: "/hls/live/cam/index.m3u8", playlist: elsewhere.playlist });
});

test("a player that has nothing to show yet is opened anew at another server, and one that cannot go on there, too", () => {
  const elsewhere = { playlist: "https://edge2.example/hls/live/cam/index.m3u8" };
  assert.deepEqual(after(says("live"), says("live", elsewhere)).effects, ["play"]);
  const reopened = after(says("live"), playback("playing"), says("live", elsewhere), { type: "reopen" });
  assert.deepEqual([reopened.effects, reopened.from], [["play"], elsewhere.playlist]);
});

test("another session at another server is begun there", () => {
  const another = { session: "s2", playlist: "https://edge2.example/hls/live/cam/index.m3u8" };
  assert.deepEqual(after(says("live"), playback("playing"), says("live", another)).effects, ["play"]);
});

test("a new session replaces the old one even if the page never saw it end", () => {
  const replaced = after(says("live"), playback("playing"), says("live", { session: "s2" }));
  assert.deepEqual(replaced.effects, ["play"]);
  assert.equal(replaced.playing, "s2");
});

test("a player that gives up is started again, later each time, until it plays for a while", () => {
  const failed = { type: "player-failed", detail: "fragLoadError" };
  const first = after(says("live"), failed);
  assert.equal(first.phase, "error");
  assert.deepEqual(first.effects, ["stop", "poll-now", "retry-later"]);
  assert.equal(after(says("live"), failed, says("live")).phase, "error", "the pause is kept although polls say live");
  assert.deepEqual(after(says("live"), failed, { type: "retry" }).effects, ["play"]);
  const second = step(after(says("live"), failed, { type: "retry" }).model, failed);
  assert.deepEqual(second.effects.at(-1), { type: "retry-later", failures: 2 });
  const calm = after(says("live"), failed, { type: "retry" }, playback("playing"), { type: "settled" }, failed);
  assert.equal(calm.playbackFailures, 1);
});

test("a playback error gives way when the stream ends or another session begins", () => {
  const failed = { type: "player-failed", detail: "x" };
  assert.equal(after(says("live"), failed, says("ended")).phase, "ended");
  assert.equal(after(says("live"), failed, says("live", { session: "s2" })).phase, "live");
});

test("a playlist that ends although the server says live is an error, not a loop", () => {
  const odd = after(says("live"), playback("playing"), { type: "media-ended" }, says("live"));
  assert.equal(odd.phase, "error");
  assert.ok(odd.effects.includes("retry-later"));
});

test("a server that does not answer is told only when it matters", () => {
  const lost = { type: "poll-failed", status: null };
  assert.equal(after(says("offline"), lost).phase, "offline", "one lost poll is a hiccup");
  assert.equal(after(says("offline"), lost, lost).phase, "error");
  assert.equal(after(says("live"), playback("playing"), lost, lost, lost).phase, "live", "the picture still moves");
  const stalled = after(says("live"), playback("playing"), lost, playback("stalled"), lost);
  assert.equal(stalled.fault.kind, "unreachable");
  assert.deepEqual(stalled.effects, ["stop"]);
  assert.deepEqual(step(stalled.model, says("live")).effects.map(({ type }) => type), ["play"]);
});

test("while the server is away the player is not restarted in vain", () => {
  const lost = { type: "poll-failed", status: null };
  const failed = { type: "player-failed", detail: "x" };
  const away = after(says("live"), playback("playing"), lost, failed, lost, { type: "retry" });
  assert.equal(away.fault.kind, "unreachable");
  assert.deepEqual(away.effects, ["poll-now"]);
});

test("an impossible name is an error of its own", () => {
  assert.equal(after({ type: "poll-failed", status: 404 }).fault.kind, "bad-name");
});

test("a browser that cannot play is told once, not with every poll", () => {
  const unsupported = { type: "unsupported", codecs: ["HEVC"] };
  const unable = after(says("live"), unsupported, says("live"));
  assert.deepEqual(unable.fault, { kind: "unsupported", codecs: ["HEVC"] });
  assert.deepEqual(unable.effects, []);
  assert.equal(after(says("live"), unsupported, says("ended")).phase, "ended");
});

test("a new session may have codecs that the browser can play", () => {
  const again = after(says("live"), { type: "unsupported", codecs: ["HEVC"] }, says("live", { session: "another" }));
  assert.equal(again.phase, "live");
  assert.deepEqual(again.effects, ["play"]);
});

test("polling is slow only while a picture is there", () => {
  assert.equal(isSettled(after(says("offline")).model), false);
  assert.equal(isSettled(after(says("live")).model), false);
  assert.equal(isSettled(after(says("live"), playback("playing")).model), true);
  assert.equal(isSettled(after(says("live"), playback("stalled")).model), false);
});

test("a choice that needs another playlist begins the programme again, unless it is over", () => {
  const reopened = after(says("live"), playback("playing"), { type: "reopen" });
  assert.deepEqual(reopened.effects, ["play"]);
  assert.equal(reopened.playback, "loading");
  assert.deepEqual(after(says("live"), playback("playing"), says("ended"), { type: "reopen" }).effects, []);
  assert.deepEqual(after(says("offline"), { type: "reopen" }).effects, []);
  const failed = { type: "player-failed", detail: "" };
  const chosen = after(says("live"), failed, { type: "retry" }, playback("playing"), { type: "reopen" });
  assert.equal(chosen.model.playbackFailures, 0, "a choice is not given up for what failed before it");
});
