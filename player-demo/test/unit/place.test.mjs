import assert from "node:assert/strict";
import test from "node:test";
import { Place } from "../../src/watch/place.ts";

/** What begins with `start` on the player's clock, and at `date` by the broadcaster's; segments of `duration`, numbered from `msn`. */
function playlist(start, date, { duration = 2, count = 4, alignedSliding = false, msn = date / 2 } = {}) {
  const segments = Array.from({ length: count + 1 }, (_, i) => ({
    sn: msn + i,
    start: start + i * duration,
    programDateTime: date === null ? null : 1000 * (date + i * duration),
    setStart(to) {
      this.start = to;
    },
  }));
  return { fragments: segments.slice(0, count), fragmentHint: segments[count], alignedSliding };
}

const starts = ({ fragments, fragmentHint }) => [...fragments, fragmentHint].map(({ start }) => start);

test("after an interruption the playlist goes on as much later as its dates say, the open segment with it", () => {
  const place = new Place();
  place.updated(playlist(100, 1000));
  const guessed = playlist(93, 1011, { duration: 1, count: 2 });
  place.updated(guessed);
  assert.deepEqual(starts(guessed), [111, 112, 113]);
});

test("another rendition is put beside the one before it", () => {
  const place = new Place();
  place.updated(playlist(100, 1000));
  const other = playlist(92.5, 1002);
  place.updated(other);
  assert.equal(starts(other)[0], 102);
});

test("what hls.js has loaded of the playlist outweighs the dates, also for those that follow", () => {
  const place = new Place();
  place.updated(playlist(100, 1000));
  const known = playlist(102.5, 1002, { alignedSliding: true });
  place.updated(known);
  assert.equal(starts(known)[0], 102.5);
  const next = playlist(90, 1004);
  place.updated(next);
  assert.equal(starts(next)[0], 104.5);
});

test("nothing is moved without dates, by a rounding error, or where there is no playlist before it", () => {
  const place = new Place();
  for (const given of [playlist(0, 1000), playlist(2.04, 1002), playlist(7, null), playlist(50, 1008), playlist(0, 0, { count: 0 }), playlist(9, 1010)]) {
    const before = starts(given);
    place.updated(given);
    assert.deepEqual(starts(given), before);
  }
});

test("numbers that were those of other segments are no continuation, and the next playlist is placed by the one that has them", () => {
  for (const [date, msn] of [[1004, 501], [1008, 499], [1001, 500], [999, 501]]) {
    const place = new Place();
    assert.equal(place.updated(playlist(100, 1000)), true);
    const other = playlist(102, date, { msn, alignedSliding: true });
    assert.equal(place.updated(other), false, `${date}`);
    assert.equal(starts(other)[0], 102);
    assert.equal(place.updated(playlist(104, date + 2, { msn: msn + 1 })), true);
  }
});

test("a date that is told a little differently is that of the same segment, and so is one that is not told", () => {
  const place = new Place();
  place.updated(playlist(100, 1000));
  for (const date of [1000.4, null, 1000]) assert.equal(place.updated(playlist(100, date, { msn: 500, alignedSliding: true })), true);
});
