import assert from "node:assert/strict";
import test from "node:test";
import { hasMedia, nextPart, warm } from "../../src/watch/cold.ts";

const GAP = '#EXT-X-PART:DURATION=0.500,URI="7.0.m4s",GAP=YES\n';
const MEDIA = '#EXT-X-PART:DURATION=0.500,URI="7.1.m4s",INDEPENDENT=YES\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI="7.2.m4s"\n';

test("a playlist has media if its newest part is one", () => {
  assert.ok(hasMedia(GAP + MEDIA));
  for (const without of ["", "#EXTM3U\n", GAP, MEDIA + GAP]) assert.ok(!hasMedia(without), without);
});

test("a server that is asked for the next part answers when it is there", () => {
  assert.equal(nextPart(`#EXT-X-MEDIA-SEQUENCE:7\n${GAP}#EXTINF:0.5,\n7.m4s\n`), "?_HLS_msn=8&_HLS_part=0");
  assert.equal(nextPart(`#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:2.0,\n7.m4s\n${GAP}${MEDIA}`), "?_HLS_msn=8&_HLS_part=2");
  assert.equal(nextPart("not found"), null);
});

/** Whether it came, which questions that took, and how many pauses. */
async function asked(answers, { questions, abortAfter = Infinity } = {}) {
  const abort = new AbortController();
  const queries = [];
  let pauses = 0;
  const ask = async (query) => {
    const answer = answers[Math.min(queries.length, answers.length - 1)];
    queries.push(query);
    if (queries.length >= abortAfter) abort.abort();
    if (answer === null) throw new TypeError("no answer");
    return answer;
  };
  const came = await warm(ask, abort.signal, questions, async () => void (pauses += 1));
  return [came, queries, pauses];
}

test("a rendition is asked for until it has media, whatever the answers before", async () => {
  const cold = `#EXT-X-MEDIA-SEQUENCE:7\n${GAP}`;
  assert.deepEqual(await asked([MEDIA]), [true, [""], 0]);
  assert.deepEqual(await asked([cold, null, "", cold, cold + MEDIA]), [true, ["", "?_HLS_msn=7&_HLS_part=1", "", "", "?_HLS_msn=7&_HLS_part=1"], 2]);
});

test("nobody asks for ever for what does not come, or for what is not wanted any more", async () => {
  assert.deepEqual(await asked([""], { questions: 3 }), [false, ["", "", ""], 3]);
  assert.deepEqual(await asked(["", MEDIA], { abortAfter: 2 }), [false, ["", ""], 1]);
});
