import assert from "node:assert/strict";
import test from "node:test";
import { Seam } from "../../src/watch/seam.ts";

const SEGMENT_S = 2;
const PART_S = 0.5;
const url = (level) => `http://edge.example/hls/live/cam/00000000000000ab/v${level}/index.m3u8?_HLS_msn=3&_HLS_part=1`;

/** A part of a segment of the picture that is in the buffer; `part` of four. */
function appended(sn, part, type = "main") {
  const start = sn * SEGMENT_S;
  return { frag: { type, sn, end: start + SEGMENT_S }, part: { end: start + (part + 1) * PART_S } };
}

test("another rendition is asked for where the one in the buffer ends, and no other request is changed", () => {
  const seam = new Seam();
  const details = { endSN: 7 };
  assert.equal(seam.address(url(0), 0), url(0), "the first");
  assert.equal(seam.appended(appended(7, 2), details), false);
  assert.equal(seam.address(url(1), 1), url(1), "within a segment there is no such place");
  assert.equal(seam.appended(appended(7, 3), details), true);
  assert.equal(seam.address(url(1), 1), url(1), "the same as before");
  const { searchParams, pathname } = new URL(seam.address(url(0), 0));
  assert.deepEqual([searchParams.get("_HLS_msn"), searchParams.get("_HLS_part")], ["8", "0"]);
  assert.equal(pathname, new URL(url(0)).pathname);
});

test("a segment is complete when its playlist says so, or when it came whole", () => {
  const seam = new Seam();
  assert.equal(seam.appended(appended(7, 3), { endSN: 6 }), false, "more may come");
  assert.equal(seam.appended(appended(7, 3, "audio"), { endSN: 7 }), false, "of the picture");
  assert.equal(seam.appended({ ...appended(7, 0), part: null }, { endSN: 7 }), true);
});
