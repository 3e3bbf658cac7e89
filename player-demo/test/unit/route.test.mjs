import assert from "node:assert/strict";
import test from "node:test";
import { CLIMB_AFTER, CLIMB_AFTER_MAX, Route, keepWish, wish } from "../../src/watch/route.ts";

const HERE = "/whep/live/cam";
const THERE = "https://edge2.example/whep/live/cam";

function memory() {
  const store = new Map();
  return { get: (key) => store.get(key) ?? null, set: (key, value) => (value === null ? store.delete(key) : store.set(key, value)) };
}

test("the address of the page wins over the viewer, and the viewer over the server", () => {
  const kept = memory();
  assert.equal(wish(null, kept, null), "hls");
  assert.equal(wish(null, kept, "webrtc"), "webrtc");
  keepWish(kept, "hls");
  assert.equal(wish(null, kept, "webrtc"), "hls");
  assert.equal(wish("webrtc", kept, "hls"), "webrtc");
  keepWish(kept, "webrtc");
  assert.equal(wish(null, kept, "hls"), "webrtc");
  assert.equal(wish("hls", kept, "webrtc"), "hls");
  assert.equal(wish("smoke signals", kept, "hls"), "webrtc");
});

test("nobody who wants HLS is brought to WebRTC", () => {
  const route = new Route("hls", memory());
  assert.equal(route.first(HERE, 0), "hls");
  assert.equal(route.isTimeToClimb(HERE, 1e9), false);
});

test("after a failure HLS plays, and WebRTC is tried again after a minute, then ever more rarely", () => {
  const route = new Route("webrtc", memory());
  assert.equal(route.first(HERE, 0), "webrtc");
  let [now, pause] = [0, CLIMB_AFTER];
  for (let attempt = 0; attempt < 8; attempt += 1) {
    assert.equal(route.failed("silent", HERE, now), "hls");
    assert.equal(route.isTimeToClimb(HERE, now + pause - 1), false, `attempt ${attempt}`);
    assert.equal(route.first(HERE, now + pause - 1), "hls", "nor when the player is opened anew");
    assert.equal(route.isTimeToClimb(HERE, now + pause), true, `attempt ${attempt}`);
    now += pause;
    pause = Math.min(2 * pause, CLIMB_AFTER_MAX);
  }
  route.worked(now);
  assert.equal(route.isTimeToClimb(HERE, now + CLIMB_AFTER_MAX), false);
  assert.equal(route.first(HERE, now), "webrtc");
});

test("a network that lets nothing through is remembered by the next page, until something comes through", () => {
  const kept = memory();
  const first = new Route("webrtc", kept);
  first.failed("unreachable", HERE, 0);
  const next = new Route("webrtc", kept);
  assert.equal(next.first(HERE, 1000), "hls");
  assert.equal(next.isTimeToClimb(HERE, 1000 + CLIMB_AFTER), true);
  next.worked(1000 + CLIMB_AFTER);
  assert.equal(new Route("webrtc", kept).first(HERE, 0), "webrtc");
});

test("what the server refuses is nobody's network, and not remembered", () => {
  for (const trouble of ["refused", "over", "silent", "absent"]) {
    const kept = memory();
    new Route("webrtc", kept).failed(trouble, HERE, 0);
    assert.equal(new Route("webrtc", kept).first(HERE, 0), "webrtc", trouble);
  }
});

test("a session that is lost is asked for once more; one that had lasted counts as the first", () => {
  const route = new Route("webrtc", memory());
  route.worked(0);
  assert.equal(route.failed("lost", HERE, 1000), "webrtc");
  route.worked(2000);
  assert.equal(route.failed("lost", HERE, 3000), "hls");
  route.worked(70_000);
  assert.equal(route.failed("lost", HERE, 90_000), "webrtc");
  assert.equal(route.failed("refused", HERE, 90_100), "hls", "the second attempt gets no third");
});

test("a server without WebRTC is not asked again, another one is", () => {
  const route = new Route("webrtc", memory());
  assert.equal(route.failed("absent", HERE, 0), "hls");
  assert.equal(route.isTimeToClimb(HERE, 1e9), false);
  assert.equal(route.first(HERE, 1e9), "hls");
  assert.equal(route.first(THERE, 1e9), "webrtc");
});

test("the viewer's own wish begins anew", () => {
  const kept = memory();
  const route = new Route("webrtc", kept);
  route.failed("unreachable", HERE, 0);
  route.forget();
  route.want("webrtc");
  assert.equal(route.first(HERE, 10), "webrtc");
});
