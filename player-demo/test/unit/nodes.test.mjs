import assert from "node:assert/strict";
import test from "node:test";
import { LEAVE_WITHIN, NodeList, isNodeTrouble } from "../../src/watch/nodes.ts";

const OWN = "https://edge1.example";

test("a page stays with its own server while there is no other", () => {
  const nodes = new NodeList(OWN);
  assert.equal(nodes.next(), false);
  assert.equal(nodes.origin, "");
});

test("servers are asked in turn, and the first one again after the last", () => {
  const nodes = new NodeList(OWN);
  nodes.learn(["https://edge2.example", "https://edge3.example"]);
  const asked = [0, 1, 2, 3].map(() => {
    const { origin } = nodes;
    nodes.next();
    return origin;
  });
  assert.deepEqual(asked, ["", "https://edge2.example", "https://edge3.example", ""]);
});

test("when all have failed there is a pause, not a storm", () => {
  const nodes = new NodeList(OWN);
  nodes.learn(["https://edge2.example", "https://edge3.example"]);
  assert.deepEqual([nodes.next(), nodes.next(), nodes.next(), nodes.next()], [true, true, false, false]);
  nodes.answered();
  assert.equal(nodes.next(), true);
});

test("the next server tells of others, and of the one that the page came from", () => {
  const nodes = new NodeList(OWN);
  nodes.learn(["https://edge2.example"]);
  nodes.next();
  nodes.learn([OWN, "https://edge3.example"]);
  assert.equal(nodes.origin, "https://edge2.example");
  const asked = [1, 2, 3].map(() => {
    nodes.next();
    return nodes.origin;
  });
  assert.deepEqual(asked, ["", "https://edge3.example", "https://edge2.example"]);
});

test("the server that the page came from is asked again at last, even if no other speaks of it", () => {
  const nodes = new NodeList(OWN);
  nodes.learn(["https://edge2.example"]);
  nodes.next();
  nodes.learn(["https://edge3.example"]);
  nodes.next();
  nodes.next();
  assert.equal(nodes.origin, "");
  // And whoever was told of before, after all others.
  nodes.next();
  assert.equal(nodes.origin, "https://edge2.example");
});

test("a refusal that any server would give is no reason to leave this one", () => {
  assert.deepEqual([null, 500, 503, 404, 401, 400].map(isNodeTrouble), [true, true, true, false, false, false]);
});

test("a server that was too busy to tell of others is asked again at its next answer, and one that told is not", async (t) => {
  const nodes = new NodeList(OWN);
  const answers = [
    () => Promise.reject(new DOMException("", "TimeoutError")),
    () => Promise.resolve({ ok: false }),
    () => Promise.resolve({ ok: true, json: () => Promise.resolve({ alternates: ["https://edge2.example"] }) }),
  ];
  const fetch = t.mock.method(globalThis, "fetch", () => answers[fetch.mock.callCount()]());
  await nodes.load();
  for (let polls = 0; polls < 4; polls++) {
    nodes.answered();
    await new Promise(setImmediate);
  }
  assert.equal(fetch.mock.callCount(), 3);
  assert.equal(nodes.hasOthers, true);
});

/** What each origin says of itself and of others; `fetch` and time are the test's. */
function world(t, nodes) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let now = 0;
  t.mock.method(performance, "now", () => now);
  t.mock.method(globalThis, "fetch", (address) => {
    const { others, drained } = nodes[new URL(address, OWN).origin];
    return Promise.resolve({ ok: true, json: () => Promise.resolve({ alternates: others, drained }) });
  });
  return (milliseconds) => {
    now += milliseconds;
    t.mock.timers.tick(milliseconds);
  };
}

const [SECOND, THIRD] = ["https://edge2.example", "https://edge3.example"];

/** The state as it says, and, as with the first answer of each, who else there is. */
async function poll(nodes, drained) {
  nodes.answered(drained);
  await new Promise(setImmediate);
}

test("a drained server is left within seconds, by whichever way it is heard, for any of those that it tells of", async (t) => {
  const drained = { others: [SECOND, THIRD], drained: true };
  const passes = world(t, { [OWN]: drained, [SECOND]: { others: [OWN], drained: false }, [THIRD]: { others: [OWN], drained: false } });
  for (const [said, random, to] of [[true, 0.4, SECOND], [undefined, 0.6, THIRD]]) {
    let turned = 0;
    const nodes = new NodeList(OWN, () => {}, () => (turned += 1), () => random);
    drained.drained = !said;
    await poll(nodes, said);
    passes(random * LEAVE_WITHIN - 1);
    assert.deepEqual([nodes.origin, turned], ["", 0]);
    passes(1);
    assert.deepEqual([nodes.origin, turned], [to, 1]);
    assert.deepEqual([nodes.hasLeft(OWN), nodes.hasLeft(to)], [true, false]);
    await poll(nodes, false);
    passes(LEAVE_WITHIN);
    assert.equal(nodes.origin, to);
  }
});

test("one that is drained and alone is stayed with", async (t) => {
  const passes = world(t, { [OWN]: { others: [], drained: true } });
  const nodes = new NodeList(OWN);
  await poll(nodes, true);
  passes(LEAVE_WITHIN);
  assert.equal(nodes.origin, "");
});

test("when all are drained each is tried once, and again after a minute", async (t) => {
  const passes = world(t, {
    [OWN]: { others: [SECOND, THIRD], drained: true },
    [SECOND]: { others: [OWN, THIRD], drained: true },
    [THIRD]: { others: [OWN, SECOND], drained: true },
  });
  const nodes = new NodeList(OWN, () => {}, () => {}, () => 0);
  const seen = [];
  for (let seconds = 0; seconds < 120; seconds += 5) {
    await poll(nodes, true);
    passes(5000);
    if (seen.at(-1) !== nodes.origin) seen.push(nodes.origin);
  }
  assert.deepEqual(seen, [SECOND, THIRD, "", SECOND]);
});

test("servers that are drained one after the other, as each begins anew, are left each time", async (t) => {
  const said = { [OWN]: { others: [SECOND], drained: true }, [SECOND]: { others: [OWN], drained: false } };
  const passes = world(t, said);
  const nodes = new NodeList(OWN);
  for (const [from, to] of [[OWN, SECOND], [SECOND, OWN], [OWN, SECOND]]) {
    [said[from].drained, said[to].drained] = [true, false];
    await poll(nodes, true);
    passes(LEAVE_WITHIN);
    await poll(nodes, false);
    assert.equal(nodes.origin || OWN, to);
    assert.equal(nodes.hasLeft(from), true);
  }
});

test("one that fails while it is about to be left, or after it was, is not taken for one that answers", async (t) => {
  const passes = world(t, { [OWN]: { others: [SECOND], drained: true }, [SECOND]: { others: [OWN], drained: false } });
  let turned = 0;
  const failing = new NodeList(OWN, () => {}, () => (turned += 1));
  await poll(failing, true);
  failing.next();
  passes(LEAVE_WITHIN);
  assert.deepEqual([failing.origin, failing.hasLeft(OWN), turned], [SECOND, false, 0]);

  const left = new NodeList(OWN);
  await poll(left, true);
  passes(LEAVE_WITHIN);
  left.next();
  assert.deepEqual([left.origin, left.hasLeft(OWN)], ["", true], "the other one does not answer");
  left.next();
  assert.equal(left.hasLeft(OWN), false);
});
