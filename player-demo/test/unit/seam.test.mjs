import assert from "node:assert/strict";
import test from "node:test";
import { Seam } from "../../src/watch/seam.ts";

const url = (level, msn = 7) => `http://edge.example/hls/live/cam/00000000000000ab/v${level}/index.m3u8?_HLS_msn=${msn}&_HLS_part=3`;

/** A part of a segment of the picture that is in the buffer; `part` of four. */
function appended(sn, part, type = "main") {
  return { frag: { type, sn }, part: { index: part } };
}

/** A playlist whose last complete segment is `endSN`. */
function details(endSN) {
  const partList = [endSN - 1, endSN, endSN + 1].flatMap((sn) => [0, 1, 2, 3].map((index) => ({ index, fragment: { sn } })));
  return { endSN, partList };
}

test("another rendition is asked for where the one in the buffer ends, and no other request is changed", () => {
  const seam = new Seam();
  assert.equal(seam.address(url(0), 0), url(0), "the first");
  assert.equal(seam.appended(appended(7, 2), details(7)), false);
  assert.equal(seam.address(url(1), 1), url(1), "within a segment there is no such place");
  assert.equal(seam.appended(appended(7, 3), details(7)), true);
  assert.equal(seam.address(url(1), 1), url(1), "the same as before");
  const { searchParams, pathname } = new URL(seam.address(url(0), 0));
  assert.deepEqual([searchParams.get("_HLS_msn"), searchParams.get("_HLS_part")], ["8", "0"]);
  assert.equal(pathname, new URL(url(0)).pathname);
});

test("one that is more than a segment behind, or of which nothing is known, is asked for as ever", () => {
  for (const other of [url(1, 6), url(1).split("?")[0]]) {
    const seam = new Seam();
    seam.address(url(0), 0);
    seam.appended(appended(7, 3), details(7));
    assert.equal(seam.address(other, 1), other);
  }
});

test("a segment is complete when its playlist says so, or when it came whole", () => {
  const seam = new Seam();
  assert.equal(seam.appended(appended(7, 3), details(6)), false, "more may come");
  assert.equal(seam.appended(appended(7, 3, "audio"), details(7)), false, "of the picture");
  assert.equal(seam.appended({ ...appended(7, 0), part: null }, details(7)), true);
});
