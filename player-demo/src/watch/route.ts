// Which way media comes: by WebRTC or by HLS, when to turn to the other, and when to try the better one again. Pure.

import type { Kept } from "../kept.ts";

export type Transport = "webrtc" | "hls";

/** Why there is nothing by WebRTC. */
export type Trouble =
  /** This server does not do it at all. */
  | "absent"
  /** It does, but knows of no such stream now. */
  | "over"
  /** Not for this stream, not all of it, or not now. */
  | "refused"
  /** It was agreed, but nothing gets through: a network without UDP. */
  | "unreachable"
  /** It gets through, but there is no picture yet. */
  | "silent"
  /** It was there, and is gone. */
  | "lost";

/** Until the first picture, in milliseconds: then HLS has one. */
export const FIRST_PICTURE_WITHIN = 3000;

/** The same while HLS plays and nobody waits: even for a keyframe that comes seldom. */
export const CLIMB_WITHIN = 12_000;

/** From falling back to the next attempt, in milliseconds; after each in vain twice as long. */
export const CLIMB_AFTER = 60_000;
export const CLIMB_AFTER_MAX = 16 * CLIMB_AFTER;

/** What lasted this long was no attempt in vain, in milliseconds. */
const LASTED = 10_000;

/** The viewer's own word, "on" or "off". */
const KEPT_WISH = "tidecast-low-latency";
/** Set where WebRTC did not get through: then it is not waited for, but tried while HLS plays. */
const KEPT_BLOCKED = "tidecast-webrtc-blocked";

/** The address of the page before the viewer's own word, and that before the server's. */
export function wish(via: string | null, kept: Kept, told: string | null): Transport {
  if (via === "webrtc" || via === "hls") return via;
  const own = kept.get(KEPT_WISH);
  if (own !== null) return own === "on" ? "webrtc" : "hls";
  return told === "webrtc" ? "webrtc" : "hls";
}

export function keepWish(kept: Kept, wanted: Transport): void {
  kept.set(KEPT_WISH, wanted === "webrtc" ? "on" : "off");
}

export class Route {
  private pause = CLIMB_AFTER;
  /** When WebRTC is to be tried again; null while nothing speaks against it. */
  private climbAt: number | null = null;
  private workedAt = Number.NEGATIVE_INFINITY;
  private retried = false;
  /** Where there is no WebRTC; another server may have it. */
  private readonly absentAt = new Set<string>();

  constructor(
    private wanted: Transport,
    private readonly kept: Kept,
  ) {}

  get prefers(): Transport {
    return this.wanted;
  }

  /** The server's or the viewer's word: what went wrong before is no reason not to try. `climbAt`: while HLS plays on until then. */
  want(transport: Transport, climbAt: number | null = null): void {
    this.wanted = transport;
    this.pause = CLIMB_AFTER;
    this.climbAt = climbAt;
    this.retried = false;
  }

  /** The viewer wants it now, whatever was seen here before. */
  forget(): void {
    this.kept.set(KEPT_BLOCKED, null);
    this.absentAt.clear();
  }

  /** What to begin with. `address` is where WebRTC would be asked for; times in milliseconds. */
  first(address: string, now: number): Transport {
    if (this.wanted === "hls" || this.absentAt.has(address)) return "hls";
    if (this.climbAt === null && this.kept.get(KEPT_BLOCKED) !== null) this.climbAt = now + this.pause;
    return this.climbAt === null || now >= this.climbAt ? "webrtc" : "hls";
  }

  worked(now: number): void {
    this.workedAt = now;
    this.climbAt = null;
    this.kept.set(KEPT_BLOCKED, null);
  }

  /** What to go on with. */
  failed(trouble: Trouble, address: string, now: number): Transport {
    if (now - this.workedAt >= LASTED && trouble === "lost") {
      this.pause = CLIMB_AFTER;
      this.retried = false;
    }
    if (trouble === "lost" && !this.retried) {
      this.retried = true;
      return "webrtc";
    }
    if (trouble === "absent") this.absentAt.add(address);
    if (trouble === "unreachable") this.kept.set(KEPT_BLOCKED, "1");
    this.climbAt = now + this.pause;
    this.pause = Math.min(2 * this.pause, CLIMB_AFTER_MAX);
    return "hls";
  }

  /** Whether HLS plays only until WebRTC does, and it is time to see whether it would. */
  isTimeToClimb(address: string, now: number): boolean {
    return this.wanted === "webrtc" && !this.absentAt.has(address) && this.climbAt !== null && now >= this.climbAt;
  }
}
