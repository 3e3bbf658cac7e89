import assert from "node:assert/strict";
import test from "node:test";
import { HOLE_AFTER, LOST_AFTER, Standstill } from "../../src/watch/standstill.ts";

const TICK = 250;

/** Where it is told to go while the picture stands still for `ms`, tick by tick; null for nowhere. */
function stand(stand, ms) {
  const still = new Standstill();
  for (let now = 0; now <= ms; now += TICK) {
    const onward = still.wayOn(now, stand);
    if (onward !== null) return [now, onward];
  }
  return null;
}

test("a picture in front of a hole goes on behind it", () => {
  const buffered = [[96.08, 108.38], [111.42, 112.92]];
  assert.deepEqual(stand({ position: 108.16, buffered, target: 112 }, 10_000), [HOLE_AFTER, 111.42]);
});

test("two frames behind a hole are not enough to go on with", () => {
  const buffered = [[96, 108.3], [111.4, 111.5]];
  assert.equal(stand({ position: 108.3, buffered, target: null }, 20_000), null);
});

test("a picture that was lost goes on where the stream is now", () => {
  const buffered = [[96, 108.3]];
  assert.deepEqual(stand({ position: 108.3, buffered, target: 116 }, 10_000), [LOST_AFTER, 116]);
});

test("while nothing is broadcast, or nothing new, the picture stays", () => {
  const buffered = [[96, 108.3]];
  assert.equal(stand({ position: 108.3, buffered, target: null }, 30_000), null);
  assert.equal(stand({ position: 108.3, buffered, target: 108.9 }, 30_000), null);
});

test("a moving picture is left alone, and one jump is not followed by the next at once", () => {
  const still = new Standstill();
  for (let now = 0; now < 20_000; now += TICK) {
    assert.equal(still.wayOn(now, { position: now / 1000, buffered: [[0, 30], [60, 90]], target: 60 }), null);
  }
  const stuck = { position: 20, buffered: [[0, 20], [23, 25]], target: null };
  const jumps = [];
  for (let now = 20_000; now < 24_000; now += TICK) if (still.wayOn(now, stuck) !== null) jumps.push(now);
  assert.deepEqual(jumps, [21_000, 22_000, 23_000]);
});
