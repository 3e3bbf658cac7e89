// The mark under which everything is asked for again, after numbers have come to mean other segments.
//
// An address of media never names other bytes, says the server, and has browsers keep it for an hour. It does name others where two halves
// of a cluster had a publisher each: what is kept then is that of the half that is lost, in this page and in any that is opened while it is.

import type { Kept } from "../kept.ts";

const KEPT = "tidecast-again";
const MINUTE = 60_000;

/** For as long as media is kept, and the minute that it began in. */
const MATTERS_FOR = 61;

/** Null if nothing is to be asked for again. `now` in Unix milliseconds. */
export function keptAgain(kept: Kept, now: number): number | null {
  const again = Number(kept.get(KEPT));
  return now / MINUTE - again < MATTERS_FOR ? again : null;
}

/** Another mark, above all before. The same for all that are there in this minute, so that caches on the way serve them together. */
export function nextAgain(kept: Kept, before: number | null, now: number): number {
  const again = Math.max(Math.floor(now / MINUTE), (before ?? 0) + 1);
  kept.set(KEPT, String(again));
  return again;
}
