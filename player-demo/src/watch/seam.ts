// Where hls.js goes from one rendition to another: between two segments, and when the other has the second of them.
//
// Anywhere else hls.js 1.7.4 loads a segment again from its beginning, over what the decoder is about to show, and the picture
// may stand still until the next keyframe, or for seconds.

import {
  AbrController, type BufferAppendedData, type HlsConfig, type LevelDetails, type LoaderCallbacks, type LoaderContext, LoaderContextType,
  type XhrLoader,
} from "hls.js";

type PlaylistLoader = InstanceType<NonNullable<HlsConfig["pLoader"]>>;
type Request = Parameters<PlaylistLoader["load"]>;

/** In milliseconds: a part of half a second has come before that, and the picture in the buffer is not used up yet. */
const HELD_MAX = 1000;

export class Seam {
  /** MSN of the segment to go on with; null while one is in the buffer in part only. */
  private next: number | null = null;
  /** Of the level whose playlist was asked for last. */
  private asked: number | null = null;

  /** Of everything that is in the buffer now. Whether a segment of the picture is complete with it. */
  appended({ frag, part }: BufferAppendedData, details: LevelDetails | null): boolean {
    if (frag.type !== "main" || typeof frag.sn !== "number") return false;
    // Times are no way to tell: hls.js moves those of parts and segments apart, by what it measures.
    const last = details?.partList?.filter(({ fragment }) => fragment.sn === frag.sn).at(-1);
    const isComplete = details !== null && frag.sn <= details.endSN;
    const ends = part === null || (isComplete && part.index === last?.index);
    this.next = ends ? frag.sn + 1 : null;
    return ends;
  }

  /** For hls.js: the playlist of another level is answered when it has that segment, as if it were reloaded. */
  loader(base: typeof XhrLoader): NonNullable<HlsConfig["pLoader"]> {
    const seam = this;
    return class extends base {
      override load(...[context, config, callbacks]: Request): void {
        const url = context.type === LoaderContextType.LEVEL ? seam.address(context.url, context.level) : context.url;
        // One that is made on demand, and by nobody yet, is asked for as ever after this, and found to have nothing.
        const policy = url === context.url ? config.loadPolicy : { ...config.loadPolicy, maxTimeToFirstByteMs: HELD_MAX };
        context.url = url;
        super.load(context, { ...config, loadPolicy: policy }, callbacks as LoaderCallbacks<LoaderContext>);
      }
    } as NonNullable<HlsConfig["pLoader"]>;
  }

  /** Where the playlist of `level` is asked for. `url`: with what hls.js knows of it from the report of the level before. */
  address(url: string, level: number | null): string {
    const isOther = this.asked !== null && level !== this.asked;
    this.asked = level;
    if (!isOther || this.next === null) return url;
    const address = new URL(url);
    // rfc8216bis §6.2.5.2: further ahead of its last segment it is refused.
    const known = address.searchParams.get("_HLS_msn");
    if (known === null || Number(known) < this.next - 1) return url;
    address.searchParams.set("_HLS_msn", String(this.next));
    address.searchParams.set("_HLS_part", "0");
    return address.href;
  }

  /** For hls.js: nothing is lost if Auto climbs a second later. */
  get abr(): typeof AbrController {
    const seam = this;
    return class extends AbrController {
      override get nextAutoLevel(): number {
        const next = super.nextAutoLevel;
        // Forced, or not to be known any more.
        if (this.forcedAutoLevel !== -1 || next < 0) return next;
        const now = this.hls.loadLevel;
        return seam.next === null && now >= 0 && next > now ? now : next;
      }
      override set nextAutoLevel(level: number) {
        super.nextAutoLevel = level;
      }
    };
  }
}
