// Notices a picture that stands still although it should move, and says where it could go on. hls.js looks after holes in
// the buffer, too, but not while a seek into one is pending: with Chromium that seek never ends.
//
// hls.js 1.7.4 may also lose its place: when the broadcaster comes back on another node the playlist goes on with nothing that it
// knows, and if it changes the rendition meanwhile, it takes what it loads for earlier or later than it is, by up to a window. Every
// seek then leads to where nothing will be. Only a player opened anew knows better.

export interface Stand {
  position: number;
  /** What is buffered of all tracks, [start, end] in seconds, in order. */
  buffered: readonly (readonly [number, number])[];
  /** Where the playlist asks players to be; null when it is not known, or when there is nothing to see there. */
  target: number | null;
  /** Where the playlist ends; null as `target`. */
  edge: number | null;
}

/** To a position; or with a player opened anew. */
export type WayOn = number | "anew";

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
  /** Where it was sent last, until something moved there. */
  private sentTo: number | null = null;

  /** `now` in milliseconds; null while there is nothing to be done. */
  wayOn(now: number, stand: Stand): WayOn | null {
    if (stand.position !== this.position) {
      // The browser has it in whole microseconds.
      if (this.sentTo !== null && Math.abs(stand.position - this.sentTo) > 0.001) this.sentTo = null;
      this.position = stand.position;
      this.since = now;
      return null;
    }
    const onward = this.onward(now - this.since, stand);
    if (onward === null) return null;
    this.since = now;
    this.sentTo = onward === "anew" ? null : onward;
    return onward;
  }

  /** It need not move: paused, or not there yet. */
  reset(): void {
    this.position = Number.NaN;
    this.sentTo = null;
  }

  private onward(stood: number, stand: Stand): WayOn | null {
    if (stood < HOLE_AFTER) return null;
    const { position, edge } = stand;
    const hole = behindTheHole(stand);
    if (hole !== null) return hole;
    if (edge === null) return null;
    // Nobody has more than there is.
    if (position > edge + WORTH_IT) return "anew";
    if (stood < LOST_AFTER) return null;
    // The playlist has gone on meanwhile, and nothing of it came.
    const wasInVain = this.sentTo !== null && edge > position + WORTH_IT;
    return wasInVain ? "anew" : ahead(stand);
  }
}

function behindTheHole({ position, buffered }: Stand): number | null {
  const next = buffered.find(([start, end]) => start > position && end - start >= ENOUGH);
  return next?.[0] ?? null;
}

function ahead({ position, target }: Stand): number | null {
  return target !== null && target > position + WORTH_IT ? target : null;
}
