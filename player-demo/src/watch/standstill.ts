// Notices a picture that stands still although it should move, and says where it could go on. hls.js looks after holes in
// the buffer, too, but not while a seek into one is pending: with Chromium that seek never ends.

export interface Stand {
  position: number;
  /** What is buffered of all tracks, [start, end] in seconds, in order. */
  buffered: readonly (readonly [number, number])[];
  /** Where the playlist asks players to be; null when it is not known, or when there is nothing to see there. */
  target: number | null;
}

/** Whoever fetches one after the other, and has something behind a hole, will not fill it. In milliseconds. */
export const HOLE_AFTER = 1000;
/** Behind a hole there has to be enough to go on with, in seconds. */
const ENOUGH = 0.4;
/** A part that is only late is there by then, in milliseconds. */
export const LOST_AFTER = 5000;
/** No gain in a jump shorter than this, in seconds. */
const WORTH_IT = 1;

export class Standstill {
  private position = Number.NaN;
  private since = 0;

  /** `now` in milliseconds. The position to go on at, or null while there is nothing to be done. */
  wayOn(now: number, stand: Stand): number | null {
    if (stand.position !== this.position) {
      this.position = stand.position;
      this.since = now;
      return null;
    }
    const stood = now - this.since;
    const onward = stood >= HOLE_AFTER ? (behindTheHole(stand) ?? (stood >= LOST_AFTER ? ahead(stand) : null)) : null;
    if (onward !== null) this.since = now;
    return onward;
  }

  /** It need not move: paused, or not there yet. */
  reset(): void {
    this.position = Number.NaN;
  }
}

function behindTheHole({ position, buffered }: Stand): number | null {
  const next = buffered.find(([start, end]) => start > position && end - start >= ENOUGH);
  return next?.[0] ?? null;
}

function ahead({ position, target }: Stand): number | null {
  return target !== null && target > position + WORTH_IT ? target : null;
}
