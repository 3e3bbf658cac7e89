// The servers that have this stream, each with the same bytes under the same paths. While one answers, the page stays
// with it; when it does not, the next one is asked, and when it would have viewers go, one of those that it tells of.

import { NODES_ADDRESS, type Nodes } from "../api.ts";

/** A server that does not answer by then is not waited for, in milliseconds. */
const TOLD_WITHIN = 1500;

/** More than a server tells of. Those that were known for longest are forgotten first. */
const ORIGINS_MAX = 18;

/** Asked for again after that: servers come and go while a stream is watched. */
const TOLD_FOR = 15_000;

/** A drained server is left within so many milliseconds, lest its whole audience arrive elsewhere at once. */
export const LEAVE_WITHIN = 4000;

/** When all are drained, the others are tried again after that, in milliseconds. */
export const TRY_AGAIN_AFTER = 60_000;

export class NodeList {
  /** The one that is asked now is the first that was told of; "" is where this page came from. */
  private origins = [""];
  private current = 0;
  /** How many have failed since one answered. */
  private failed = 0;
  /** Who told of the others, and when. */
  private told = { by: "", at: Number.NEGATIVE_INFINITY };
  /** Those that the one that is asked now tells of: they take viewers. */
  private others: string[] = [];
  /** The one that is asked now has said that it is drained, with its last answer. */
  private isDrained = false;
  /** Those that have been left because they are drained, or turned to, since one was found that is not. */
  private readonly tried = new Set<string>();
  private triedAt = Number.NEGATIVE_INFINITY;
  private leaving: ReturnType<typeof setTimeout> | undefined;
  /** The last one that was left because it is drained; null when it has failed since. */
  private left: string | null = null;
  /** By the server this page came from. */
  prefer: "hls" | "webrtc" | null = null;

  /**
   * `own`: how others call the server this page came from. `onPrefer`: it has said what it prefers. `onTurned`: another one is to be
   * asked now, in place of one that is drained.
   */
  constructor(
    private readonly own: string,
    private readonly onPrefer: () => void = () => {},
    private readonly onTurned: () => void = () => {},
    private readonly random: () => number = Math.random,
  ) {}

  /** To be put before a path. */
  get origin(): string {
    return this.origins[this.current] ?? "";
  }

  get hasOthers(): boolean {
    return this.origins.length > 1;
  }

  /** Whether the one at this origin was left although it answers. */
  hasLeft(origin: string): boolean {
    return this.left === origin;
  }

  /** Learns of the others. Without an answer there are none but those that are known. */
  async load(): Promise<void> {
    const by = this.origin;
    this.told = { by, at: performance.now() };
    try {
      const response = await fetch(by + NODES_ADDRESS, { signal: AbortSignal.timeout(TOLD_WITHIN) });
      if (!response.ok) return this.forget();
      const { alternates, drained, prefer } = (await response.json()) as Nodes;
      if (by === this.origin) {
        this.learn(alternates);
        if (drained || this.isDrained) this.leave();
        else this.tried.clear();
      }
      if (by === "" && this.prefer !== (prefer ?? null)) {
        this.prefer = prefer ?? null;
        this.onPrefer();
      }
    } catch {
      // The server is not there; polling finds out, and tells it. Or it, or this browser, was busy.
      this.forget();
    }
  }

  /** Nothing was told: whoever answers next is asked. */
  private forget(): void {
    this.told.at = Number.NEGATIVE_INFINITY;
  }

  /** From the one that is asked now. */
  learn(alternates: string[]): void {
    this.others = alternates.map((origin) => (origin === this.own ? "" : origin));
    // A server that has only just begun, or is of another mind, does not know all that were told of before.
    this.origins = [...new Set([this.origin, ...this.others, "", ...this.origins])].slice(0, ORIGINS_MAX);
    this.current = 0;
  }

  /** `drained`: and said that viewers should go. */
  answered(drained = false): void {
    this.failed = 0;
    this.isDrained = drained;
    if (drained) this.leave();
    if (this.told.by !== this.origin || performance.now() - this.told.at > TOLD_FOR) void this.load();
  }

  /** Turns to the next one; true if it has not failed like this one, and so is worth asking at once. */
  next(): boolean {
    this.failed += 1;
    if (this.hasLeft(this.origin || this.own)) this.left = null;
    this.turn((this.current + 1) % this.origins.length);
    return this.failed < this.origins.length;
  }

  /** Soon, and for one that is not known to be drained. */
  private leave(): void {
    if (performance.now() - this.triedAt > TRY_AGAIN_AFTER) this.tried.clear();
    if (this.leaving !== undefined || this.untried().length === 0) return;
    this.leaving = setTimeout(() => {
      this.leaving = undefined;
      const untried = this.untried();
      // Any of them: those that leave with this page must not all go to the first.
      const other = untried[Math.floor(this.random() * untried.length)];
      if (other === undefined) return;
      for (const origin of [this.origin, other]) this.tried.add(origin);
      this.triedAt = performance.now();
      this.left = this.origin || this.own;
      this.turn(this.origins.indexOf(other));
      this.onTurned();
    }, this.random() * LEAVE_WITHIN);
  }

  private untried(): string[] {
    return this.others.filter((origin) => origin !== this.origin && !this.tried.has(origin));
  }

  private turn(to: number): void {
    clearTimeout(this.leaving);
    this.leaving = undefined;
    this.current = to;
    this.others = [];
    this.isDrained = false;
    this.forget();
  }
}

/** Whether another server may do what this one did not: it gave no answer, or said that it cannot now. */
export function isNodeTrouble(status: number | null): boolean {
  return status === null || status >= 500;
}
