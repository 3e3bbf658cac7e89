import assert from "node:assert/strict";
import test from "node:test";
import { nameFromPath, streamAddress, watchAddress } from "../../src/api.ts";
import * as format from "../../src/format.ts";
import { POLL_PLAYING, POLL_WAITING, backoff, pollDelay } from "../../src/poll.ts";
import { CATCH_UP_RATE, nextMove } from "../../src/watch/live-edge.ts";
import { initial } from "../../src/watch/machine.ts";
import { noticeFor } from "../../src/watch/notice.ts";

test("polls are quick while waiting, slow while playing", () => {
  assert.equal(pollDelay(false, null, 0.5), POLL_WAITING);
  assert.equal(pollDelay(true, null, 0.5), POLL_PLAYING);
});

test("a silent server is asked after about as long as it has been silent, up to a limit, and not by all at once", () => {
  const pauses = [0, 300, 2000, 4000, 60_000].map((failingFor) => pollDelay(true, failingFor, 0.5));
  assert.deepEqual(pauses, [1000, 1000, 2000, 4000, 5000]);
  assert.equal(pollDelay(true, 0, 0), 750);
  assert.equal(pollDelay(true, 0, 1), 1250);
});

test("pauses between retries double up to a limit", () => {
  const pauses = [1, 2, 3, 4, 5, 20].map((failures) => backoff(1000, 15_000, failures, 0.5));
  assert.deepEqual(pauses, [1000, 2000, 4000, 8000, 15_000, 15_000]);
});

const at = (changes) => ({ latency: 2, target: 1.5, bufferAhead: 1.5, partTarget: 0.5, ...changes });

test("a viewer a little behind catches up by playing slightly faster, and stops at the target", () => {
  assert.deepEqual(nextMove(at({}), 1), { type: "rate", rate: CATCH_UP_RATE });
  assert.deepEqual(nextMove(at({ latency: 1.6 }), 1), { type: "rate", rate: 1 }, "not worth starting");
  assert.deepEqual(nextMove(at({ latency: 1.6 }), CATCH_UP_RATE), { type: "rate", rate: CATCH_UP_RATE }, "but worth finishing");
  assert.deepEqual(nextMove(at({ latency: 1.51 }), CATCH_UP_RATE), { type: "rate", rate: 1 });
});

test("with 200 ms parts half a second of buffer is enough to catch up", () => {
  assert.equal(nextMove(at({ latency: 1, target: 0.6, bufferAhead: 0.5, partTarget: 0.2 }), 1).rate, CATCH_UP_RATE);
});

test("nobody is sped up into a stall", () => {
  assert.equal(nextMove(at({ bufferAhead: 0.4 }), CATCH_UP_RATE).rate, 1);
});

test("a viewer far behind jumps", () => {
  assert.deepEqual(nextMove(at({ latency: 9 }), 1), { type: "jump" });
});

test("numbers read like the dials of a broadcaster", () => {
  assert.equal(format.bitrate(2_640_000), "2.6 Mb/s");
  assert.equal(format.bitrate(96_400), "96 kb/s");
  assert.equal(format.bitrate(999_900), "1.0 Mb/s");
  assert.equal(format.bitrate(null), "–");
  assert.equal(format.elapsed(7_000), "0:07");
  assert.equal(format.elapsed(3_609_000), "1:00:09");
  assert.equal(format.elapsed(-5_000), "0:00", "a clock that is behind the server's");
  assert.equal(format.frameRate({ frame_rate: 30000 / 1001 }), "29.97 fps");
  assert.equal(format.frameRate({ frame_rate: 25 }), "25 fps");
  assert.equal(format.audio({ codec: "mp4a.40.2", sample_rate: 44100, channels: 6 }), "AAC 44.1 kHz 5.1");
  assert.equal(format.resolution(null), "Audio only");
  assert.equal(format.viewers(1), "1 viewer");
});

test("OBS's default keyframe interval is warned about, 2 s and not knowing are not", () => {
  assert.match(format.keyframeWarning({ keyframe_interval: 8.33 }), /every 8\.3 s.*Keyframe Interval to 2 s/);
  assert.equal(format.keyframeWarning({ keyframe_interval: 2 }), null);
  assert.equal(format.keyframeWarning({ keyframe_interval: null }), null);
});

test("names survive the way through addresses", () => {
  const name = { app: "live", stream: "my cam+ä" };
  assert.deepEqual(nameFromPath(watchAddress(name)), name);
  assert.equal(streamAddress({ app: "live", stream: "cam" }), "/state/live/cam");
  assert.deepEqual(nameFromPath("/watch/live/cam/"), { app: "live", stream: "cam" });
  for (const path of ["/", "/watch/live", "/watch/live/a/b", "/watch/live/%E0%A4%A"]) assert.equal(nameFromPath(path), null);
});

test("what a browser lacks is named, with a browser that has it", () => {
  const told = (codecs) => noticeFor({ ...initial, phase: "error", fault: { kind: "unsupported", codecs } }, { app: "live", stream: "cam" });
  assert.equal(told(["HEVC"]).title, "This browser cannot play HEVC");
  assert.match(told(["HEVC"]).text, /Safari plays it/);
  assert.match(told(["AV1", "Opus"]).text, /in AV1 and Opus: a current Chrome/);
  assert.match(told([]).text, /neither Media Source Extensions/);
  assert.equal(told(["HEVC"]).retry, false);
});

test("the server's reason is what a starting page says", () => {
  const reason = "Waiting for the second keyframe; this broadcaster sends one every 8.3 s.";
  const name = { app: "live", stream: "cam" };
  assert.equal(noticeFor({ ...initial, phase: "starting", stream: { reason } }, name).text, reason);
  assert.equal(noticeFor({ ...initial, phase: "live" }, name), null);
});
