import assert from "node:assert/strict";
import test from "node:test";
import { POLL_PLAYING, Poller } from "../../src/poll.ts";

/** A page that asks; `hide` and time are the test's. */
function page(t, handlers) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let onVisibility;
  globalThis.document = { hidden: false, addEventListener: (_, listener) => (onVisibility = listener) };
  globalThis.window = { addEventListener: () => {}, setTimeout: (...timer) => setTimeout(...timer) };
  const fetch = t.mock.method(globalThis, "fetch", () => Promise.resolve(Response.json({})));
  const poller = new Poller("/state", { onAnswer: () => {}, onFailure: assert.fail, settled: () => false, ...handlers });
  const answered = () => new Promise(setImmediate);
  return {
    poller,
    answered,
    asked: () => fetch.mock.callCount(),
    hide(hidden) {
      document.hidden = hidden;
      onVisibility();
    },
    /** How often it asks meanwhile. */
    async passes(milliseconds) {
      const before = fetch.mock.callCount();
      for (let passed = 0; passed < milliseconds; passed += POLL_PLAYING / 10) {
        t.mock.timers.tick(POLL_PLAYING / 10);
        await answered();
      }
      return fetch.mock.callCount() - before;
    },
  };
}

test("a hidden page asks on while something plays, at the pace of playing, and again when it plays again", async (t) => {
  let plays = true;
  const { poller, answered, asked, hide, passes } = page(t, { wantedHidden: () => plays });
  poller.now();
  await answered();
  hide(true);
  assert.equal(await passes(3 * POLL_PLAYING), 3);
  plays = false;
  assert.equal(await passes(3 * POLL_PLAYING), 0);
  plays = true;
  assert.equal(await passes(2 * POLL_PLAYING), 2);
  const before = asked();
  hide(false);
  assert.equal(asked(), before + 1, "shown, it asks at once");
  poller.stop();
  assert.equal(await passes(3 * POLL_PLAYING), 0);
});

test("a page that is hidden while a question is under way asks no second one beside it", async (t) => {
  const { poller, answered, asked, hide } = page(t, { wantedHidden: () => true });
  poller.now();
  poller.now();
  hide(true);
  assert.equal(asked(), 1);
  await answered();
  assert.equal(asked(), 2);
  poller.stop();
});

test("a hidden page where nothing can play does not ask", async (t) => {
  const { poller, answered, hide, passes } = page(t, {});
  poller.now();
  await answered();
  hide(true);
  assert.equal(await passes(3 * POLL_PLAYING), 0);
  poller.stop();
});
