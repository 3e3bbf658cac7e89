import assert from "node:assert/strict";
import test from "node:test";
import { keptAgain, nextAgain } from "../../src/watch/again.ts";
import { Requests } from "../../src/watch/requests.ts";

const [FIRST, SECOND] = ["https://edge1.example", "https://edge2.example"];
const PART = "/hls/live/cam/v/7.2.m4s?token=x";

/** What is sent, in order; `answer` as the server that was asked, or another one that it sends on to. */
class Sent {
  static all = [];
  readyState = 0;
  aborted = false;
  open(_, url) {
    [this.readyState, this.url] = [1, url];
    Sent.all.push(this);
  }
  send() {}
  abort() {
    this.aborted = true;
  }
  answer(url = this.url) {
    Object.assign(this, { readyState: 4, status: 200, response: new ArrayBuffer(3), responseURL: url });
    this.onreadystatechange();
  }
}

function load(requests, url) {
  const answered = [];
  const loader = new requests.loader({ xhrSetup: requests.setup });
  const never = () => assert.fail();
  const loadPolicy = { maxTimeToFirstByteMs: 1e6, maxLoadTimeMs: 1e6 };
  const onSuccess = ({ url }) => answered.push(url);
  loader.load({ url, responseType: "arraybuffer" }, { loadPolicy }, { onSuccess, onError: never, onTimeout: never });
  return { answered, loader };
}

const opened = () => new Promise(setImmediate);

test.beforeEach(() => {
  Sent.all = [];
  globalThis.self = Object.assign(globalThis, { XMLHttpRequest: Sent });
});

test("until the first move all is asked for, and known, as the playlists and redirects say", async () => {
  const { answered } = load(new Requests(), FIRST + PART);
  await opened();
  assert.equal(Sent.all[0].url, FIRST + PART);
  Sent.all[0].answer(SECOND + PART);
  assert.deepEqual(answered, [SECOND + PART]);
});

test("what is under way is finished where it is, the next is asked for at the other node, and known by the old address", async () => {
  const requests = new Requests();
  const before = load(requests, FIRST + PART);
  await opened();
  requests.moveTo(SECOND);
  const next = load(requests, FIRST + PART);
  await opened();
  assert.deepEqual(Sent.all.map(({ url }) => url), [FIRST + PART, SECOND + PART]);
  for (const sent of Sent.all) sent.answer();
  assert.deepEqual([before.answered, next.answered], [[FIRST + PART], [FIRST + PART]]);
  assert.equal(requests.at(FIRST + PART), SECOND + PART);
});

test("what is under way at a node that is gone is asked anew, and nothing that is over", async () => {
  const requests = new Requests();
  const [over, given, hanging] = [0, 1, 2].map(() => load(requests, FIRST + PART));
  await opened();
  Sent.all[0].answer();
  given.loader.abort();
  requests.moveTo(SECOND);
  requests.askAnew();
  await opened();
  assert.deepEqual([Sent.all.length, Sent.all[2].aborted, Sent.all[3].url], [4, true, SECOND + PART]);
  Sent.all[3].answer();
  assert.deepEqual([over.answered.length, given.answered.length, hanging.answered.length], [1, 0, 1]);
});

test("what is asked for again has a mark on its address, here and at another node, that hls.js does not see", async () => {
  const requests = new Requests(7);
  const [segment] = PART.split("?");
  const answered = [];
  for (const move of [() => {}, () => requests.moveTo(SECOND)]) {
    move();
    for (const path of [PART, segment]) answered.push(load(requests, FIRST + path).answered);
    await opened();
  }
  const asked = [FIRST, SECOND].flatMap((origin) => [`${origin}${PART}&again=7`, `${origin}${segment}?again=7`]);
  assert.deepEqual(Sent.all.map(({ url }) => url), asked);
  for (const sent of Sent.all) sent.answer();
  assert.deepEqual(answered.flat(), [FIRST + PART, FIRST + segment, FIRST + PART, FIRST + segment]);
});

test("a mark is above all before it, and known to a page that is opened as long as browsers keep media", () => {
  const values = new Map();
  const kept = { get: (key) => values.get(key) ?? null, set: (key, value) => values.set(key, value) };
  const [minute, now] = [60_000, Date.UTC(2026, 0, 1)];
  assert.equal(keptAgain(kept, now), null);
  const first = nextAgain(kept, null, now);
  assert.equal(first, now / minute);
  const second = nextAgain(kept, first, now + 1000);
  assert.equal(second, first + 1);
  assert.equal(nextAgain(kept, second, now + 5 * minute), first + 5);
  assert.deepEqual([65, 66].map((minutes) => keptAgain(kept, now + minutes * minute)), [first + 5, null]);
});
