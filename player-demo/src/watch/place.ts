// Where a playlist belongs on the player's clock, if hls.js can only guess.
//
// hls.js 1.7.4 places a playlist by the one before it of the same rendition. If the two share no segment, it takes each of those
// between them to last as long as those of the new one do on average: out by up to a window where the broadcaster has come back
// with other intervals between keyframes, or the first segment is a short one. Then the picture is beyond the end of the playlist
// and every seek leads to where nothing will be. The dates in the playlists tell it exactly, of whichever rendition.

/** Of hls.js: times are in seconds, dates in Unix milliseconds. */
interface Segment {
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

export class Place {
  private before: Playlist | null = null;

  /** Of the picture, each as it comes. */
  updated(playlist: Playlist): void {
    const known = this.before?.fragments.at(-1);
    const first = playlist.fragments[0];
    this.before = playlist;
    if (playlist.alignedSliding || !known?.programDateTime || !first?.programDateTime) return;
    const start = known.start + (first.programDateTime - known.programDateTime) / 1000;
    const moved = start - first.start;
    if (Math.abs(moved) < WORTH_IT) return;
    const { fragments, fragmentHint } = playlist;
    for (const segment of fragmentHint ? [...fragments, fragmentHint] : fragments) segment.setStart(segment.start + moved);
  }
}
