// The load of each node over the last minutes, as this page has seen it. Pure.

import type { Point } from "../connect/graph.ts";
import type { Load, Node } from "./cluster.ts";

/** In milliseconds. */
export const HISTORY_SPAN = 300_000;
/** Nodes tell of themselves each three seconds: two polls that are nearer saw the same. */
const SAMPLE_EVERY_MIN = 1000;

interface Sample {
  /** When the node told it, on the page's clock, in milliseconds. */
  at: number;
  load: Load;
}

export class History {
  private readonly nodes = new Map<string, Sample[]>();

  /** What all nodes say; who is not there any more is forgotten. `now` on a clock that does not leap, in milliseconds. */
  see(nodes: Node[], now: number): void {
    const there = new Set(nodes.map(({ id }) => id));
    for (const id of this.nodes.keys()) if (!there.has(id)) this.nodes.delete(id);
    for (const { id, load, silent_ms } of nodes) {
      const samples = this.nodes.get(id) ?? [];
      const at = now - silent_ms;
      const last = samples.at(-1);
      // One that is silent says nothing new.
      if (!last || at - last.at >= SAMPLE_EVERY_MIN) samples.push({ at, load });
      const old = samples.findIndex((sample) => now - sample.at <= HISTORY_SPAN);
      this.nodes.set(id, old < 0 ? [] : samples.slice(old));
    }
  }

  /** The oldest first, each over the time since the one before; ends `now`, so that all nodes' lines are on one clock. */
  points(id: string, value: (load: Load) => number, now: number): Point[] {
    const samples = this.nodes.get(id) ?? [];
    const points = samples.map(({ at, load }, i): Point => [at - (samples[i - 1]?.at ?? at), value(load)]);
    const last = samples.at(-1);
    return last ? [...points, [Math.max(0, now - last.at), value(last.load)]] : points;
  }
}
