import assert from "node:assert/strict";
import test from "node:test";
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
