// Where a playlist belongs on the player's clock, if hls.js can only guess.
//
// hls.js 1.7.4 places a playlist by the one before it of the same rendition. If the two share no segment, it takes each of those
// between them to last as long as those of the new one do on average: out by up to a window where the broadcaster has come back
// with other intervals between keyframes, or the first segment is a short one. Then the picture is beyond the end of the playlist
// and every seek leads to where nothing will be. The dates in the playlists tell it exactly, of whichever rendition.
//
// They also tell that numbers mean something else than before: two halves of a cluster that had a publisher each count on by themselves,
// and behind the heal the segments are those of the other one. hls.js 1.7.4 takes them for those that it has had: it gives them the times
// of those, and does not load them. No placing helps then, only a player that has had nothing.

/** Of hls.js: times are in seconds, dates in Unix milliseconds. */
interface Segment {
  readonly sn: number;
  start: number;
  readonly programDateTime: number | null;
  setStart(start: number): void;
}

export interface Playlist {
  readonly fragments: readonly Segment[];
  /** The segment that is still open. */
  readonly fragmentHint?: Segment;
  /** hls.js knows, by a segment that it has loaded. */
  readonly alignedSliding: boolean;
}

/** No gain in less than this, in seconds: dates are in whole milliseconds. */
const WORTH_IT = 0.05;

/** Those of the same segment are not that far apart, in milliseconds. */
const OTHER_FROM = 500;

export class Place {
  private before: Playlist | null = null;

  /** There is one that others are placed by. */
  get isKnown(): boolean {
    return this.before !== null;
  }

  /** Of the picture, each as it comes. False if it does not go on with the one before it: its numbers are those of other segments. */
  updated(playlist: Playlist): boolean {
    const { before } = this;
    this.before = playlist;
    if (before !== null && isOther(before, playlist)) return false;
    place(before, playlist);
    return true;
  }
}

function isOther(before: Playlist, playlist: Playlist): boolean {
  const dates = new Map(before.fragments.map(({ sn, programDateTime }) => [sn, programDateTime]));
  return playlist.fragments.some(({ sn, programDateTime }) => {
    const date = dates.get(sn);
    return date && programDateTime && Math.abs(programDateTime - date) > OTHER_FROM;
  });
}

function place(before: Playlist | null, playlist: Playlist): void {
  const known = before?.fragments.at(-1);
  const first = playlist.fragments[0];
  if (playlist.alignedSliding || !known?.programDateTime || !first?.programDateTime) return;
  const start = known.start + (first.programDateTime - known.programDateTime) / 1000;
  const moved = start - first.start;
  if (Math.abs(moved) < WORTH_IT) return;
  const { fragments, fragmentHint } = playlist;
  for (const segment of fragmentHint ? [...fragments, fragmentHint] : fragments) segment.setStart(segment.start + moved);
}
