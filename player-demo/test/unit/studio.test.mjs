import assert from "node:assert/strict";
import test from "node:test";
import { between, totals } from "../../src/studio/figures.ts";
import * as machine from "../../src/studio/machine.ts";
import { level } from "../../src/studio/meter.ts";
import { restartFragment, restarted, udpPort } from "../../src/studio/sdp.ts";
import * as words from "../../src/studio/words.ts";

const { step, START, KEEP_TIMER } = machine;
const TAKEN = { kind: "refused", status: 409, words: "taken" };

/** Runs events through the machine; every step's effects, in order. */
function run(events, phase = START) {
  const effects = [];
  let timer = null;
  for (const event of events) {
    const next = step(phase, typeof event === "string" ? { name: event } : event, 8189, 0.5);
    phase = next.phase;
    if (next.timer !== KEEP_TIMER) timer = next.timer;
    effects.push(...next.effects);
  }
  return { phase, effects, timer };
}
const fault = (fault) => ({ name: "fault", fault });

test("a broadcast begins with an offer and is live once connected", () => {
  assert.deepEqual(run(["go"]), { phase: { name: "connecting", attempt: 0 }, effects: ["publish"], timer: null });
  // A server may take its time for the answer; ICE may not.
  assert.equal(run(["go", "answered"]).timer, machine.CONNECT_TIME_MAX);
  assert.deepEqual(run(["go", "answered", "connected"]), { phase: { name: "live" }, effects: ["publish"], timer: null });
  assert.deepEqual(run(["go", "connected", "stop"]), { phase: { name: "idle", fault: null }, effects: ["publish", "end", "drop"], timer: null });
});

test("before the first success every fault is for the person, and nothing is left behind", () => {
  assert.deepEqual(run(["go", fault(TAKEN)]), { phase: { name: "idle", fault: TAKEN }, effects: ["publish", "end", "drop"], timer: null });
  for (const event of ["failed", "timeout"]) {
    assert.deepEqual(run(["go", event]).phase, { name: "idle", fault: { kind: "no-udp", port: 8189 } }, event);
  }
  // Stopped while the server is still asked.
  assert.deepEqual(run(["go", "stop"]).phase, START);
});

test("a silent path is given two seconds, then another is looked for in the same session", () => {
  const shaky = run(["go", "connected", "disconnected"]);
  assert.deepEqual([shaky.phase.name, shaky.timer], ["shaky", machine.SHAKY_TIME_MAX]);
  assert.deepEqual(run(["connected"], shaky.phase), { phase: { name: "live" }, effects: [], timer: null });
  for (const event of ["timeout", "failed", "network-changed"]) {
    const restarting = run([event], shaky.phase);
    assert.deepEqual(restarting, { phase: { name: "restarting" }, effects: ["restart"], timer: machine.RESTART_TIME_MAX }, event);
    // The end of the old path is no news.
    assert.equal(step(restarting.phase, { name: "disconnected" }, null, 0.5).timer, KEEP_TIMER);
    assert.equal(run(["connected"], restarting.phase).phase.name, "live");
  }
  assert.deepEqual(run(["network-changed"], { name: "live" }).effects, ["restart"]);
});

test("a session that is gone is begun anew, after pauses that grow, until it works or is stopped", () => {
  let { phase, timer, effects } = run([fault({ kind: "refused", status: 404, words: "" })], { name: "restarting" });
  assert.deepEqual(phase.fault, { kind: "lost" });
  assert.deepEqual(effects, ["drop"], "viewers keep their place: nothing is ended");
  const pauses = [];
  for (let i = 0; i < 8; i++) {
    pauses.push(timer);
    // The name is still that of the connection that died.
    ({ phase, timer } = run(["timeout", fault(TAKEN)], phase));
  }
  assert.deepEqual(pauses, [1000, 2000, 4000, 8000, 10_000, 10_000, 10_000, 10_000]);
  assert.equal(run(["timeout", "connected"], phase).phase.name, "live");
  assert.deepEqual(run(["stop"], phase).effects, ["end", "drop"]);
  // The network is back: no pause is of use any more.
  assert.deepEqual(run(["network-changed"], phase).effects, ["publish"]);
  assert.deepEqual(run(["timeout"], { name: "restarting" }).phase, { name: "waiting", attempt: 2, fault: { kind: "lost" } });
});

test("a key that is not right any more is asked for, and not tried again", () => {
  const wrong = { kind: "refused", status: 401, words: "" };
  assert.deepEqual(run(["timeout", fault(wrong)], { name: "waiting", attempt: 3, fault: TAKEN }).phase, { name: "idle", fault: wrong });
});

test("what comes late from a broadcast that is over changes nothing", () => {
  for (const name of ["connected", "disconnected", "failed", "timeout", "network-changed", "stop"]) {
    assert.deepEqual(run([name]), { phase: START, effects: [], timer: null }, name);
  }
});

const OFFER = "v=0\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:new1\r\na=ice-pwd:secret\r\na=mid:0\r\nm=video 9 UDP/TLS/RTP/SAVPF 102\r\na=ice-ufrag:new1\r\na=ice-pwd:secret\r\na=mid:1\r\n";
const ANSWER = "v=0\r\nm=audio 9 X 111\r\na=ice-ufrag:old1\r\na=ice-pwd:oldpwd\r\na=candidate:1 1 udp 2130706431 192.0.2.7 8190 typ host\r\nm=video 9 X 102\r\na=ice-ufrag:old1\r\na=ice-pwd:oldpwd\r\n";

test("an ICE restart tells the new credentials, and takes the server's", () => {
  assert.equal(restartFragment(OFFER), "a=ice-ufrag:new1\r\na=ice-pwd:secret\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n");
  const after = restarted(ANSWER, "a=ice-lite\r\na=ice-ufrag:srv2\r\na=ice-pwd:p$&2\r\n");
  assert.equal(after, ANSWER.replaceAll("old1", "srv2").replaceAll("oldpwd", () => "p$&2"));
  assert.throws(() => restarted(ANSWER, "hello"), /ice-ufrag/);
  assert.equal(udpPort(ANSWER), 8190);
  assert.equal(udpPort("v=0\r\n"), null);
});

const stats = (bytes, packets, lost, frames) => [
  { id: "v", type: "outbound-rtp", kind: "video", bytesSent: bytes, packetsSent: packets, framesSent: frames, frameWidth: 640, frameHeight: 360, codecId: "c", qualityLimitationReason: "cpu" },
  { id: "a", type: "outbound-rtp", kind: "audio", bytesSent: 100, packetsSent: 10 },
  { id: "r", type: "remote-inbound-rtp", kind: "video", packetsLost: lost, roundTripTime: 0.5 },
  { id: "p", type: "candidate-pair", nominated: true, state: "succeeded", currentRoundTripTime: 0.02 },
  { id: "c", type: "codec", mimeType: "video/H264" },
];

test("figures are of the time between two looks", () => {
  const before = totals(stats(1000, 100, 5, 30), 1000);
  const now = totals(stats(126_000, 300, 15, 60), 2000);
  assert.deepEqual([now.limitation, now.codec, now.height], ["cpu", "H264", 360]);
  assert.deepEqual(between(before, now), { span: 1000, bitrate: 1_000_000, frameRate: 30, loss: 0.05, roundTrip: 0.02 });
  // What came late after all.
  assert.equal(between(before, totals(stats(2000, 200, 1, 31), 2000)).loss, 0);
  assert.equal(between(now, before), null, "another connection");
  assert.equal(totals([], 0).roundTrip, null);
});

test("of several sizes the largest is told, and no figure goes back when it is left out", () => {
  const size = (id, frameWidth, framesSent) => ({ id, type: "outbound-rtp", kind: "video", timestamp: 0, bytesSent: 1000, packetsSent: 5, frameWidth, frameHeight: frameWidth / 2, framesSent });
  const before = totals([size("q", 320, 90), size("f", 1280, 60)], 1000);
  assert.deepEqual([before.width, before.frames, before.bytes], [1280, 90, 2000]);
  assert.equal(between(before, totals([size("q", 320, 120)], 2000)), null, "a size that is gone takes its bytes with it");
  assert.equal(between(before, totals([size("q", 320, 120), size("f", undefined, 60)], 2000)).frameRate, 30);
});

test("the bar is full at full scale, empty for silence, and half at -30 dB", () => {
  assert.equal(level(new Float32Array(64)), 0);
  assert.equal(level(new Float32Array(64).fill(1)), 1);
  assert.ok(Math.abs(level(new Float32Array(64).fill(10 ** (-30 / 20))) - 0.5) < 0.01);
});

test("a page that gets no camera says where it would", () => {
  const address = new URL("http://192.0.2.7:8080/studio");
  assert.equal(words.unfit(true, true, true, address), null);
  assert.match(words.unfit(false, false, true, address), /https:\/\/, or on the server itself by http:\/\/localhost:8080\/studio\.$/);
  assert.match(words.unfit(true, false, true, address), /no camera/);
});

test("every fault has words for who must act", () => {
  assert.match(words.fault({ kind: "no-udp", port: null }), /^UDP 8189 does not reach this server/);
  assert.match(words.fault({ kind: "refused", status: 401, words: "" }), /not the publish key/);
  assert.match(words.fault(TAKEN), /^Somebody else is live under this name/);
  assert.equal(words.fault({ kind: "refused", status: 429, words: "wait 30 s" }), "wait 30 s");
  assert.equal(words.fault({ kind: "refused", status: 503, words: "no room" }), "The server says: no room");
  for (const kind of ["unreachable", "lost", "no-codec"]) assert.ok(words.fault({ kind }).length > 10, kind);
  assert.match(words.captureFault("NotAllowedError", "camera"), /no permission/);
  assert.match(words.captureFault("NotFoundError", "camera"), /No camera/);
  assert.match(words.captureFault("NotReadableError", "camera"), /in use by another program/);
  assert.match(words.captureFault("WeirdError", "camera"), /WeirdError/);
  assert.equal(words.line(0.01, "none"), null);
  assert.match(words.line(0.2, "cpu"), /packets are lost/);
});

test("what is sent of voice and screen is said only where something is missing", () => {
  assert.equal(words.sound("heard", null), "");
  assert.equal(words.sound("heard", "heard"), "");
  assert.equal(words.sound("none", null), "");
  assert.match(words.sound("silent", null), /^The microphone is silent/);
  assert.match(words.sound("heard", "none"), /shared without its sound\. Chrome/);
  assert.equal(words.sound("muted", "muted"), "Muted: viewers do not hear you. The screen's sound is muted.");
});
