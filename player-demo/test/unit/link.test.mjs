import assert from "node:assert/strict";
import test from "node:test";
import { Meter } from "../../src/watch/link.ts";

const NOW = 1_780_000_000_000;
const NTP_TO_UNIX = 2_208_988_800_000;

/** As Chromium reports them: a picture and a sound over one pair of candidates. */
function report({ packets, lost, bytes, frames, playout }) {
  return [
    { id: "T", type: "transport", selectedCandidatePairId: "P" },
    { id: "Q", type: "candidate-pair", localCandidateId: "other", currentRoundTripTime: 9 },
    { id: "P", type: "candidate-pair", localCandidateId: "L", currentRoundTripTime: 0.04 },
    { id: "L", type: "local-candidate", protocol: "udp" },
    { id: "V", type: "inbound-rtp", kind: "video", packetsReceived: packets, packetsLost: lost, bytesReceived: bytes, framesDecoded: frames,
      jitter: 0.003, freezeCount: 2, totalFreezesDuration: 0.7, frameWidth: 640, frameHeight: 360, estimatedPlayoutTimestamp: playout },
    { id: "A", type: "inbound-rtp", kind: "audio", packetsReceived: 50, packetsLost: 0, bytesReceived: 1000 },
  ];
}

test("loss and bitrate are those of the last seconds, not of the whole session", () => {
  const meter = new Meter();
  meter.read(report({ packets: 1000, lost: 100, bytes: 1e6, frames: 10 }), true, NOW);
  const { link, counts } = meter.read(report({ packets: 1090, lost: 110, bytes: 1.25e6, frames: 40 }), true, NOW + 1000);
  assert.equal(link.loss, 0.1);
  assert.equal(link.bitrate, 2e6);
  assert.deepEqual([counts.shown, link.frames], [40, 40]);
  assert.deepEqual([link.protocol, link.roundTrip, link.jitter, link.freezes, link.frozenFor], ["UDP", 0.04, 0.003, 2, 0.7]);
  assert.deepEqual([link.width, link.height], [640, 360]);
});

test("nothing is not zero per cent, and a packet that was lost and came is no negative loss", () => {
  const meter = new Meter();
  const first = meter.read([], true, NOW).link;
  assert.deepEqual([first.loss, first.bitrate, first.latency, first.protocol], [null, null, null, null]);
  const late = new Meter();
  late.read(report({ packets: 100, lost: 5, bytes: 1, frames: 1 }), true, NOW);
  assert.equal(late.read(report({ packets: 110, lost: 3, bytes: 1, frames: 1 }), true, NOW + 500).link.loss, 0);
});

test("latency is read from either of the two epochs that browsers use", () => {
  for (const playout of [NOW - 300, NOW - 300 + NTP_TO_UNIX]) {
    const { link } = new Meter().read(report({ packets: 1, lost: 0, bytes: 1, frames: 1, playout }), true, NOW);
    assert.equal(link.latency, 0.3);
  }
});

test("a stream of sound alone is shown by its packets", () => {
  assert.equal(new Meter().read(report({ packets: 1, lost: 0, bytes: 1, frames: 7 }), false, NOW).counts.shown, 50);
});
