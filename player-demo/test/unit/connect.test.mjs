import assert from "node:assert/strict";
import test from "node:test";
import decodeQR from "qr/decode.js";
import { nameFromPath } from "../../src/api.ts";
import { shape } from "../../src/connect/graph.ts";
import { cleanKey, readFragment } from "../../src/connect/key.ts";
import { qrPath } from "../../src/connect/qr.ts";
import * as setup from "../../src/connect/setup.ts";
import * as words from "../../src/connect/words.ts";
import { keptFor } from "../../src/kept.ts";

const name = { app: "live", stream: "cam1" };
const refusal = { at: 1000, times: 1, from: "203.0.113.7", stream: "live/cam1", encoder: null, reason: "wrong key" };
const report = (changes) => ({ stream: { ...name, state: "offline", since: null, reason: null }, refusals: [refusal], ...changes });

test("addresses are what OBS and ffmpeg want, with the port only where it is another one", () => {
  assert.equal(setup.serverAddress("live.example.org", { rtmp_port: 1935 }, "live"), "rtmp://live.example.org/live");
  assert.equal(setup.serverAddress("[2001:db8::1]", { rtmp_port: 2935 }, "live"), "rtmp://[2001:db8::1]:2935/live");
  const encrypted = { rtmp_port: 1935, rtmps_port: 1936 };
  assert.equal(setup.serverAddress("live.example.org", encrypted, "live"), "rtmps://live.example.org:1936/live");
  assert.equal(setup.streamKey("cam1", "k~._-"), "cam1?key=k~._-");
  assert.match(setup.ffmpegCommand("rtmp://h/live/cam1?key=k"), / -f flv 'rtmp:\/\/h\/live\/cam1\?key=k'$/);
  assert.match(setup.embedSnippet("https://h", name), /^<iframe src="https:\/\/h\/embed\/live\/cam1" title=.* allowfullscreen/);
  assert.deepEqual(nameFromPath("/embed/live/cam1"), name);
});

test("names follow the server's rule, so that no address holds anything else", () => {
  for (const good of ["a", "cam-1_B", "x".repeat(64)]) assert.ok(setup.isName(good), good);
  for (const bad of ["", "a b", "a/b", "ä", "a.b", "<b>", "x".repeat(65), "a\n"]) assert.ok(!setup.isName(bad), bad);
});

test("a key comes out of the fragment, and is sent only if a header can hold it", () => {
  assert.deepEqual(readFragment("#key=a-b&stream=live/cam1"), { key: "a-b", stream: "live/cam1" });
  assert.deepEqual(readFragment(""), { key: null, stream: null });
  assert.equal(cleanKey(" abc\n"), "abc");
  for (const bad of ["", "  ", "schlüssel", "a b", "a\u0000b"]) assert.equal(cleanKey(bad), null, bad);
});

test("a browser that keeps nothing is no error", () => {
  const forbidden = { get sessionStorage() { throw new Error("denied"); } };
  globalThis.window = forbidden;
  const kept = keptFor("sessionStorage");
  kept.set("a", "b");
  assert.equal(kept.get("a"), null);
  delete globalThis.window;
});

test("the state of a stream is said in words, with the server's reason where there is one", () => {
  const at = (state, changes) => words.stateWords({ ...name, state, since: null, reason: null, ...changes }, 65_000);
  assert.equal(at("live", { since: 5000 }), "On the air for 1:00.");
  assert.equal(at("starting", { reason: "Waiting for a keyframe." }), "Waiting for a keyframe.");
  assert.match(at("interrupted"), /go on by themselves as soon as your encoder is back/);
  assert.match(at("ended"), /has ended/);
  assert.match(at("offline"), /Nothing arrives yet/);
  assert.deepEqual(words.badge("interrupted"), ["alert", "Interrupted"]);
  assert.deepEqual(words.badge("a state of a newer server"), ["quiet", "Offline"]);
});

test("no more is said of the sound than is known", () => {
  assert.equal(words.sound({ state: "arriving", bitrate: 128_000 }), "128 kb/s");
  assert.equal(words.sound({ state: "silent" }), "Probably silent");
  assert.equal(words.sound({ state: "stopped", seconds: 12 }), "None for 12 s");
  assert.equal(words.sound({ state: "none" }), "None");
});

test("a refusal says when, how often, what and who", () => {
  assert.equal(words.circumstances({ ...refusal, times: 3, encoder: "OBS" }, 13_000), "12 s ago, 3 times, live/cam1, from 203.0.113.7, OBS");
  assert.equal(words.circumstances({ ...refusal, stream: null }, 13_000), "12 s ago, from 203.0.113.7");
  assert.equal(words.ago(-5000), "0 s ago", "a clock that is behind the server's");
  assert.deepEqual([words.ago(240_000), words.ago(7_200_000)], ["4 min ago", "2 h ago"]);
});

test("only a fresh refusal of this stream raises an alarm, and only while it is off the air", () => {
  assert.equal(words.urgent(report({}), 13_000), refusal);
  assert.equal(words.urgent(report({}), 62_000), null, "old");
  assert.equal(words.urgent(report({ refusals: [{ ...refusal, stream: "live/other" }] }), 13_000), null);
  assert.ok(words.urgent(report({ refusals: [{ ...refusal, stream: null }] }), 13_000), "a name that could not be told may be this one");
  assert.equal(words.urgent(report({ stream: { ...name, state: "live" } }), 13_000), null);
});

test("a graph ends at its right edge, young streams have room to grow, and a silence is a low line", () => {
  assert.equal(shape([]), null);
  const young = shape([[1000, 10], [1000, 10]]);
  assert.match(young.line, /^M290 .*L300 /);
  const full = shape(Array.from({ length: 300 }, (_, i) => [1000, i]));
  assert.match(full.line, /^M0 64L2 /);
  assert.deepEqual([full.lowest, full.highest], [0, 299]);
  assert.ok(full.area.endsWith("L300 64L0 64Z"));
  assert.match(shape([[1000, 0], [1000, 0]]).line, /^M290 64L300 64$/);
});

test("a QR code leads a phone to the link, on white with a quiet zone", () => {
  const link = "https://live.example.org/watch/live/cam1";
  const { size, path } = qrPath(link);
  const scale = 4;
  const side = size * scale;
  const data = new Uint8Array(side * side * 4).fill(255);
  for (const [, x, y] of path.matchAll(/M(\d+) (\d+)h1v1h-1z/g)) {
    for (let i = 0; i < scale * scale; i += 1) {
      const at = (Number(y) * scale + Math.floor(i / scale)) * side + Number(x) * scale + (i % scale);
      data.fill(0, at * 4, at * 4 + 3);
    }
  }
  assert.equal(decodeQR({ width: side, height: side, data }), link);
  const columns = [...path.matchAll(/M(\d+) /g)].map(([, x]) => Number(x));
  assert.deepEqual([Math.min(...columns), Math.max(...columns)], [4, size - 5]);
});

test("a link that leads to this machine only is recognised", () => {
  for (const host of ["localhost", "127.0.0.1", "[::1]"]) assert.ok(words.isLoopback(host), host);
  for (const host of ["192.168.1.2", "live.example.org", "[2001:db8::1]"]) assert.ok(!words.isLoopback(host), host);
});
