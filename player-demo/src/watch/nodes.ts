// The servers that have this stream, each with the same bytes under the same paths. While one answers, the page stays
// with it; when it does not, the next one is asked.

import { NODES_ADDRESS, type Nodes } from "../api.ts";

/** A server that does not answer by then is not waited for, in milliseconds. */
const TOLD_WITHIN = 1500;

export class NodeList {
  /** The server this page came from first; addresses there need no origin. */
  private origins = [""];
  private current = 0;
  /** How many have failed since one answered. */
  private failed = 0;
  /** By the server this page came from. */
  prefer: "hls" | "webrtc" | null = null;

  /** To be put before a path. */
  get origin(): string {
    return this.origins[this.current] ?? "";
  }

  /** Learns of the others. Without an answer there are none. */
  async load(): Promise<void> {
    try {
      const response = await fetch(NODES_ADDRESS, { signal: AbortSignal.timeout(TOLD_WITHIN) });
      if (!response.ok) return;
      const { alternates, prefer } = (await response.json()) as Nodes;
      this.learn(alternates);
      this.prefer = prefer ?? null;
    } catch {
      // The server is not there; polling finds out, and tells it.
    }
  }

  learn(alternates: string[]): void {
    this.origins = ["", ...alternates];
  }

  answered(): void {
    this.failed = 0;
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
