import assert from "node:assert/strict";
import test from "node:test";
import { NodeList, isNodeTrouble } from "../../src/watch/nodes.ts";

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

test("a drained server says so each time it is asked, and others do not, nor one that the page has left meanwhile", async (t) => {
  const told = [];
  const nodes = new NodeList(OWN, () => {}, (origin) => told.push(origin));
  let answer = { alternates: ["https://edge2.example"], drained: true };
  t.mock.method(globalThis, "fetch", () => Promise.resolve({ ok: true, json: () => Promise.resolve(answer) }));
  await nodes.load();
  await nodes.load();
  assert.deepEqual(told, [OWN, OWN]);
  const asked = nodes.load();
  nodes.next();
  await asked;
  assert.equal(told.length, 2);
  for (answer of [{ alternates: [] }, { alternates: [], drained: false }]) await nodes.load();
  assert.equal(told.length, 2);
});
