import assert from "node:assert/strict";
import test from "node:test";
import { shape } from "../../src/connect/graph.ts";
import { LOST_SHOWN, lost, viewersOrigin, watchLinks } from "../../src/operator/cluster.ts";
import * as log from "../../src/operator/events.ts";
import { History, HISTORY_SPAN } from "../../src/operator/history.ts";
import { isWorthDrawing, tree, withLost } from "../../src/operator/path.ts";
import * as words from "../../src/operator/words.ts";

const event = (sequence, changes) => ({ sequence, at_ms: sequence * 1000, node: "a", kind: "node-started", subject: "b", words: "b is there", ...changes });
const load = (changes) => ({ cpu: 0.25, egress: 2e6, egress_max: 0, viewers: 0, streams: 0, ...changes });
const node = (id, changes) => ({ id, roles: ["edge"], zone: "", version: "1", viewers: `http://${id}.example:8080`, load: load(), silent_ms: 0, state: "serving", ...changes });

test("events are kept once, the newest first, and so many", () => {
  let kept = [];
  for (const sequence of [1, 2, 3, 2, 3]) kept = log.add(kept, event(sequence));
  assert.deepEqual(kept.map(({ sequence }) => sequence), [3, 2, 1]);
  for (let sequence = 4; sequence < 2 * log.EVENTS_KEPT; sequence += 1) kept = log.add(kept, event(sequence));
  assert.equal(kept.length, log.EVENTS_KEPT);
  assert.equal(log.add(kept, event(2)), kept, "one that is not kept any more is no news");
});

test("a log that begins anew, as that of a process alone does at a restart, takes the place of the old one", () => {
  const kept = log.add(log.add([], event(1)), event(2));
  const [first, ...rest] = log.add(kept, event(1, { at_ms: 90_000 }));
  assert.deepEqual([first.at_ms, rest.length], [90_000, 0]);
});

test("what is no event is passed over", () => {
  for (const text of ["", "null", "[]", "{}", '{"sequence":"1"}', "{"]) assert.equal(log.read(text), null, text);
  assert.deepEqual(log.read(JSON.stringify(event(7))), event(7));
});

test("events are found by kind and by words in any column", () => {
  const events = [event(2, { kind: "node-lost", words: "b was not heard for 20 s" }), event(1, { kind: "stream-started", subject: "live/cam", words: "live/cam is published" })];
  const found = (kind, text) => log.filter(events, kind, text).map(({ sequence }) => sequence);
  assert.deepEqual(found("", ""), [2, 1]);
  assert.deepEqual(found("node-lost", ""), [2]);
  assert.deepEqual(found("", "  CAM  published "), [1]);
  assert.deepEqual(found("node-lost", "cam"), []);
  assert.deepEqual([log.look("node-lost"), log.look("stream-interrupted"), log.look("node-stopped")], ["lost", "alert", "plain"]);
});

test("a node that was lost stays in sight until it is back, says goodbye, or is history", () => {
  const gone = event(5, { kind: "node-lost", words: "b was not heard for 20 s" });
  const ids = (...told) => lost(...told).map(({ id }) => id);
  assert.deepEqual(ids([node("a")], [gone, event(1)], 6000), ["b"]);
  assert.deepEqual(ids([node("a"), node("b")], [gone], 6000), []);
  assert.deepEqual(ids([node("a")], [event(6, { kind: "node-stopped" }), gone], 6000), []);
  assert.deepEqual(ids([node("a")], [gone], 5000 + LOST_SHOWN + 1), []);
  assert.deepEqual(ids([node("a")], [event(6, { kind: "stream-moved" }), gone], 6000), ["b"], "what is told of streams is not of nodes");
});

test("a certificate's end is told, and that it is near", () => {
  const day = 24 * 3_600_000;
  const now = Date.UTC(2026, 0, 1);
  assert.deepEqual([null, undefined].map((ends) => words.certificate(ends, now)), ["", ""]);
  const told = [now - 1, now + 1.5 * day, now + 13 * day, now + 90 * day].map((ends) => words.certificate(ends, now));
  assert.deepEqual(told, ["certificate has ended", "certificate ends in 1 day", "certificate ends in 13 days", "certificate until 2026-04-01"]);
  assert.deepEqual([null, now - 1, now + 13 * day, now + 14 * day].map((ends) => words.isCertificateDue(ends, now)), [false, true, true, false]);
});

test("only addresses that a browser may be led to are links", () => {
  for (const bad of [null, "", "javascript:alert(1)", "data:text/html,x", "edge1"]) assert.equal(viewersOrigin(bad), null, String(bad));
  assert.equal(viewersOrigin("https://edge1.example/x"), "https://edge1.example");
});

test("a stream is watched where it is, or at an edge, and at no node that would send its viewers away", () => {
  const both = ["ingest", "origin", "edge"];
  const nodes = [node("e2"), node("b", { roles: both }), node("a", { roles: both }), node("e1"), node("e0", { state: "suspect" })];
  const entry = { stream: "live/cam", holder: { node: "a" }, epoch: 1, phase: "live", since_ms: 0, unlisted: false };
  assert.deepEqual(watchLinks(entry, nodes).map(({ node }) => node), ["a", "e1", "e2"]);
  assert.equal(watchLinks(entry, nodes)[0].href, "http://a.example:8080/watch/live/cam");
  assert.deepEqual(watchLinks({ ...entry, phase: "ended" }, nodes), []);
});

test("the history is of five minutes, has a place for each heartbeat, and ends now", () => {
  const history = new History();
  for (let at = 0; at <= 2 * HISTORY_SPAN; at += 500) history.see([node("a", { silent_ms: at % 3000, load: load({ cpu: at / (2 * HISTORY_SPAN) }) })], at);
  const points = history.points("a", ({ cpu }) => cpu, 2 * HISTORY_SPAN + 2000);
  assert.ok(points.length >= 100 && points.length <= 103, String(points.length));
  assert.deepEqual(points.at(-1), [2000, 1]);
  assert.ok(Math.abs(points.reduce((sum, [span]) => sum + span, 0) - HISTORY_SPAN - 2000) <= 3000);
  history.see([], 0);
  assert.deepEqual(history.points("a", ({ cpu }) => cpu, 0), []);
});

test("a line may have a scale of its own, which what is above it widens", () => {
  const points = [[0, 0.5], [300_000, 0.5]];
  assert.equal(shape(points, { spanMin: 300_000, top: 1 }).line, "M0 32L300 32");
  assert.equal(shape([[0, 2], [300_000, 2]], { spanMin: 300_000, top: 1 }).line, "M0 0L300 0");
  assert.equal(shape([[0, 1], [150_000, 1]], { spanMin: 300_000, top: 1 }).line, "M150 0L300 0");
});

test("shares, rates and times are said as people read them", () => {
  assert.equal(words.cpu(load()), "25 %");
  assert.equal(words.egress(load()), "2.0 Mb/s");
  assert.equal(words.egress(load({ egress_max: 8e6 })), "2.0 Mb/s of 8.0 Mb/s");
  assert.equal(words.egressShare(load()), null);
  assert.equal(words.egressShare(load({ egress_max: 1e6 })), 1);
  const at = new Date(2026, 10, 27, 9, 5, 7).getTime();
  assert.equal(words.time(at, at + 1000), "09:05:07");
  assert.equal(words.time(at, at + 86_400_000), "2026-11-27 09:05:07");
});

test("of a stream it is told what comes, what is made of it and how many watch, as far as that is known", () => {
  const video = { codec: "avc1.64001f", width: 1280, height: 720, frame_rate: 30 };
  const rung = (height, changes) => ({ name: `v${height}`, width: 0, height, bitrate: 700_000, encoded: true, on_demand: false, ...changes });
  const ladder = [rung(720, { encoded: false }), rung(480), rung(360, { on_demand: true }), rung(240, { bitrate: null })];
  const facts = { video, ladder, bitrate: 2_640_000, keyframe_interval: 2.002, frame_rate: 29.94 };
  assert.equal(words.facts({ facts, viewers: 1 }), "1280×720 · H.264 · 29.9 fps · keyframe each 2.0 s · 2.6 Mb/s · 1 viewer");
  assert.equal(words.facts({ facts: { ...facts, frame_rate: null, keyframe_interval: null, bitrate: null } }), "1280×720 · H.264 · 30 fps");
  assert.equal(words.facts({ facts: { ...facts, video: null, keyframe_interval: null, frame_rate: null }, viewers: 2 }), "2.6 Mb/s · 2 viewers", "sound alone");
  assert.deepEqual([words.facts({ viewers: 0 }), words.facts({})], ["0 viewers", ""]);
  assert.equal(words.renditions({ facts }), "Renditions: 480p 700 kb/s, 360p 700 kb/s while it is watched, 240p");
  assert.deepEqual([words.renditions({}), words.renditions({ facts: { ...facts, ladder: [] } })], ["", ""]);
});

const hop = (node, changes) => ({ node, state: "serving", asked: true, has: true, from: [], viewers: 0, ...changes });
const way = (changes) => ({ ingest: hop("in1"), workers: [], origins: [], edges: [], edges_count: changes?.edges?.length ?? 0, ...changes });
/** `in1(o1(e1) o2)`; what is not well has its trouble behind it. */
const drawn = ({ node, does, trouble, branches }) =>
  `${node || does}${trouble ? `!${trouble}` : ""}${branches.length > 0 ? `(${branches.map(drawn).join(" ")})` : ""}`;

test("the way of a stream is a tree: edges are at the origin that they read", () => {
  const origins = [hop("o1", { place: "primary", from: ["in1"] }), hop("o2", { place: "standby", has: false })];
  const edges = [hop("e1", { from: ["o1"], viewers: 3 }), hop("e2", { from: ["o1", "o2"] })];
  const box = tree(way({ origins, edges, workers: [hop("w1"), hop("in1")] }), 7, new Set());
  assert.equal(drawn(box), "in1(o1(e1 e2) o2(e2) w1 in1)");
  assert.equal(box.does, "takes it in · epoch 7");
  assert.deepEqual(box.branches.map(({ does }) => does), ["primary", "standby, read all the same, has nothing of it yet", "encodes its renditions", "encodes its renditions itself"]);
  assert.equal(box.branches[0].branches[0].does, "3 viewers");
  const idle = tree(way({ origins: [hop("o2", { place: "standby", has: false })] }), 7, new Set());
  assert.equal(idle.branches[0].does, "stands by, has nothing of it yet");
  assert.equal(drawn(tree(way({ edges: [hop("e1", { from: ["in1"] })] }), null, new Set())), "in1(e1)", "of a node that is an origin itself");
});

test("what is not well is marked, and a stream without its node is lost", () => {
  const origins = [hop("o1", { state: "draining" }), hop("o2", { state: "suspect" })];
  const edges = [hop("e1", { state: null, from: ["o1"] }), hop("e2", { state: null, from: ["o1"] })];
  const box = tree(way({ ingest: hop("in1", { state: null }), origins, edges }), 1, new Set(["e1"]));
  assert.equal(drawn(box), "in1!lost(o1!draining(e1!lost e2!not announced) o2!suspect)");
  assert.deepEqual([box.look, ...box.branches.map(({ look }) => look)], ["lost", "alert", "alert"]);
  const mute = tree(way({ ingest: hop("in1"), origins: [hop("o1", { has: null })], edges: [hop("e1", { has: null, from: ["o1"] })] }), 1, new Set());
  assert.equal(drawn(mute), "in1(o1!does not answer(e1))");
  const unasked = hop("o1", { place: "primary", asked: false, has: null });
  const large = tree(way({ ingest: hop("in1", { asked: false, has: null }), origins: [unasked] }), 1, new Set());
  assert.equal(drawn(large), "in1(o1)", "of a large fleet not all are asked");
  assert.equal(large.branches[0].does, "primary, not asked what it has");
});

test("a crowd of edges is counted", () => {
  const edges = Array.from({ length: 64 }, (_, i) => hop(`e${i}`, { from: ["o1"] }));
  const box = tree(way({ origins: [hop("o1")], edges, edges_count: 1000 }), 1, new Set());
  const shown = box.branches[0].branches;
  assert.deepEqual([shown.length, shown.at(-1).does], [9, "and 992 more"]);
});

test("who is lost stays in the way where it was, until it is back or history", () => {
  const both = way({ origins: [hop("o1"), hop("o2")], edges: [hop("e1", { from: ["o1"] })] });
  const before = tree(both, 1, new Set());
  const other = tree(way({ origins: [hop("o2")], edges: [hop("e1", { from: ["o2"] })] }), 1, new Set(["o1"]));
  const kept = withLost(other, before, new Set(["o1"]));
  assert.equal(drawn(kept), "in1(o2(e1) o1!lost)");
  assert.equal(drawn(withLost(other, kept, new Set(["o1"]))), "in1(o2(e1) o1!lost)", "once");
  assert.equal(drawn(withLost(other, kept, new Set())), "in1(o2(e1))");
  assert.equal(drawn(withLost(before, kept, new Set(["o1"]))), "in1(o1(e1) o2)");
  assert.equal(drawn(withLost(other, undefined, new Set(["o1"]))), "in1(o2(e1))", "of what was before the page was opened nothing is known");
});

test("a way within one node is not drawn, unless something is wrong", () => {
  assert.ok(!isWorthDrawing(tree(way({ workers: [hop("in1")] }), 1, new Set())));
  assert.ok(isWorthDrawing(tree(way({ workers: [hop("w1")] }), 1, new Set())));
  assert.ok(isWorthDrawing(tree(way({ ingest: hop("in1", { state: null }) }), 1, new Set())));
});

test("an expected audience is told with its time and where it will be", () => {
  const at = new Date(2026, 11, 24, 18, 0, 0).getTime();
  const expected = { stream: "live/cam", viewers: 5000, at_ms: at, edges: ["edge1", "edge2"] };
  assert.equal(words.expected(expected, at), "live/cam: 5000 viewers expected from 18:00:00 on, at edge1, edge2");
  assert.match(words.expected({ ...expected, viewers: 1, edges: [] }, at), /: 1 viewer expected .* at no edge$/);
});

test("what all nodes have alike is told, and where something else is in force", () => {
  const setting = (key, cluster, here, origin) => ({ key, cluster, here, origin });
  const settings = [setting("publish.linger", null, "20s", "default"), setting("hls.profile", { value: "low", by: "a" }, "low", "cluster, set on a"), setting("transcode.ladder", { value: "off", by: "b" }, "auto", "/etc/t.toml:3:1")];
  assert.deepEqual(words.settings({ settings }), [
    "hls.profile is low for all nodes from their next start, set on a",
    "transcode.ladder is off for all nodes from their next start, set on b; here it is auto (/etc/t.toml:3:1)",
  ]);
});

test("of whom a cluster trusts it is told what an operator has begun and what is not over", () => {
  const now = new Date(2026, 10, 28, 10, 0, 0).getTime();
  assert.deepEqual(words.trust(null, now), []);
  assert.deepEqual(words.trust({ roots: 1, revoked: [], tokens: [] }, now), []);
  const tokens = [{ node: null, ends_ms: now + 60_000 }, { node: "edge7", ends_ms: now + 120_000 }];
  assert.deepEqual(words.trust({ roots: 2, revoked: ["edge2", "edge3"], tokens }, now), [
    "A token waits for any machine to join until 10:01:00",
    "A token waits for edge7 to join until 10:02:00",
    "2 roots are trusted: tidecast cluster rotate --finish drops the old one",
    "Put out of the cluster: edge2, edge3",
  ]);
});
