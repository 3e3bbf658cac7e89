import assert from "node:assert/strict";
import test from "node:test";
import { hasMedia, warm } from "../../src/watch/cold.ts";

const GAP = '#EXT-X-PART:DURATION=0.500,URI="7.0.m4s",GAP=YES\n';
const MEDIA = '#EXT-X-PART:DURATION=0.500,URI="7.1.m4s",INDEPENDENT=YES\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI="7.2.m4s"\n';

test("a playlist has media if its newest part is one", () => {
  assert.ok(hasMedia(GAP + MEDIA));
  for (const without of ["", "#EXTM3U\n", GAP, MEDIA + GAP]) assert.ok(!hasMedia(without), without);
});

/** Whether it came, and how many questions and pauses that took. */
async function asked(answers, { questions, abortAfter = Infinity } = {}) {
  const abort = new AbortController();
  let count = 0;
  let pauses = 0;
  const ask = async () => {
    const answer = answers[Math.min(count, answers.length - 1)];
    count += 1;
    if (count >= abortAfter) abort.abort();
    if (answer === null) throw new TypeError("no answer");
    return answer;
  };
  const came = await warm(ask, abort.signal, questions, async () => void (pauses += 1));
  return [came, count, pauses];
}

test("a rendition is asked for until it has media, whatever the answers before", async () => {
  assert.deepEqual(await asked([MEDIA]), [true, 1, 0]);
  assert.deepEqual(await asked([GAP, null, "", GAP + MEDIA]), [true, 4, 3]);
});

test("nobody asks for ever for what does not come, or for what is not wanted any more", async () => {
  assert.deepEqual(await asked([GAP], { questions: 16 }), [false, 16, 16]);
  assert.deepEqual(await asked([GAP, MEDIA], { abortAfter: 2 }), [false, 2, 1]);
});
