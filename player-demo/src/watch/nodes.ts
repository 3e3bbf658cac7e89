// The servers that have this stream, each with the same bytes under the same paths. While one answers, the page stays
// with it; when it does not, the next one is asked.

import { NODES_ADDRESS, type Nodes } from "../api.ts";

/** A server that does not answer by then is not waited for, in milliseconds. */
const TOLD_WITHIN = 1500;

/** More than a server tells of. Those that were known for longest are forgotten first. */
const ORIGINS_MAX = 18;

/** Asked for again after that: servers come and go while a stream is watched. */
const TOLD_FOR = 15_000;

export class NodeList {
  /** The one that is asked now is the first that was told of; "" is where this page came from. */
  private origins = [""];
  private current = 0;
  /** How many have failed since one answered. */
  private failed = 0;
  /** Who told of the others, and when. */
  private told = { by: "", at: Number.NEGATIVE_INFINITY };
  /** By the server this page came from. */
  prefer: "hls" | "webrtc" | null = null;

  /**
   * `own`: how others call the server this page came from. `onPrefer`: it has said what it prefers. `onDrained`: the one that is
   * asked now, at this origin, would have viewers go; told again and again.
   */
  constructor(
    private readonly own: string,
    private readonly onPrefer: () => void = () => {},
    private readonly onDrained: (origin: string) => void = () => {},
  ) {}

  /** To be put before a path. */
  get origin(): string {
    return this.origins[this.current] ?? "";
  }

  get hasOthers(): boolean {
    return this.origins.length > 1;
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
        if (drained) this.onDrained(by || this.own);
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
    const others = alternates.map((origin) => (origin === this.own ? "" : origin));
    // A server that has only just begun, or is of another mind, does not know all that were told of before.
    this.origins = [...new Set([this.origin, ...others, "", ...this.origins])].slice(0, ORIGINS_MAX);
    this.current = 0;
  }

  answered(): void {
    this.failed = 0;
    if (this.told.by !== this.origin || performance.now() - this.told.at > TOLD_FOR) void this.load();
  }

  /** Turns to the next one; true if it has not failed like this one, and so is worth asking at once. */
  next(): boolean {
    this.failed += 1;
    this.current = (this.current + 1) % this.origins.length;
    return this.failed < this.origins.length;
  }
}

/** Whether another server may do what this one did not: it gave no answer, or said that it cannot now. */
export function isNodeTrouble(status: number | null): boolean {
  return status === null || status >= 500;
}
