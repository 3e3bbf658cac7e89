// The way of a stream through the nodes, as a tree of boxes: who takes it in, which origins have it, which edges read it from whom, and
// who encodes its renditions. Pure.

import * as format from "../format.ts";
import type { Hop, Path } from "./cluster.ts";

export interface Box {
  kind: "ingest" | "origin" | "edge" | "worker" | "more";
  /** "" of those that are only counted. */
  node: string;
  look: "good" | "alert" | "lost" | "quiet";
  /** What it does for the stream. */
  does: string;
  /** "" while nothing is wrong. */
  trouble: string;
  branches: Box[];
}

/** A crowd of edges is a number. */
const EDGES_DRAWN = 8;

/** `lost`: nodes of which it was told that they are. */
export function tree(path: Path, epoch: number | null, lost: ReadonlySet<string>): Box {
  const edgesOf = (node: string): Box[] => {
    const readers = path.edges.filter(({ from }) => from.includes(node));
    const drawn = readers.slice(0, EDGES_DRAWN).map((edge) => box("edge", edge, format.viewers(edge.viewers), lost));
    // Who is beyond what the server lists is one of the crowd.
    const beyond = readers.length - drawn.length + (readers.length > EDGES_DRAWN ? path.edges_count - path.edges.length : 0);
    if (beyond > 0) drawn.push({ kind: "more", node: "", look: "quiet", does: `and ${beyond} more`, trouble: "", branches: [] });
    return drawn;
  };
  const { ingest } = path;
  const takes = ["takes it in", epoch === null ? "" : `epoch ${epoch}`, ingest.viewers > 0 ? format.viewers(ingest.viewers) : ""];
  const root = box("ingest", ingest, takes.filter(Boolean).join(" · "), lost);
  Object.assign(root, unanswered(ingest));
  // A stream without the node that has it stands still.
  if (ingest.state === null) Object.assign(root, { look: "lost", trouble: "lost" });
  const origins = path.origins.map((origin) => {
    const branches = edgesOf(origin.node);
    return { ...box("origin", origin, originDoes(origin, branches.length > 0), lost), ...unanswered(origin), branches };
  });
  const workers = path.workers.map((worker) => box("worker", worker, worker.node === ingest.node ? "encodes its renditions itself" : "encodes its renditions", lost));
  root.branches = [...origins, ...edgesOf(ingest.node), ...workers];
  return root;
}

/** Edges stay at one that is well, whichever is the primary by now. */
function originDoes({ state, place, asked, has }: Hop, isRead: boolean): string {
  const role = place === "primary" ? "primary" : isRead ? "standby, read all the same" : "stands by";
  if (state === "serving" && !asked) return `${role}, not asked what it has`;
  return has === false ? `${role}, has nothing of it yet` : role;
}

function box(kind: Box["kind"], { node, state }: Hop, does: string, lost: ReadonlySet<string>): Box {
  const [look, trouble] = marks(state, lost.has(node));
  return { kind, node, look, does, trouble, branches: [] };
}

/** The first sign of one that is gone; edges are not all asked where they are many, nor are workers. */
function unanswered({ state, asked, has }: Hop): Partial<Box> {
  return state === "serving" && asked && has === null ? { look: "alert", trouble: "does not answer" } : {};
}

function marks(state: string | null, isLost: boolean): [look: Box["look"], trouble: string] {
  if (state === "serving") return ["good", ""];
  if (state !== null) return ["alert", state];
  return isLost ? ["lost", "lost"] : ["quiet", "not announced"];
}

/** `now`, with those of `before` that are in it no more because they were lost: where they were. */
export function withLost(now: Box, before: Box | undefined, lost: ReadonlySet<string>): Box {
  if (!before) return now;
  const there = new Set(all(now).map(({ node }) => node));
  const gone = (box: Box) => lost.has(box.node) && !there.has(box.node);
  const ghosts = (of: Box | undefined): Box[] =>
    (of?.branches ?? []).filter(gone).map((box) => ({ ...box, look: "lost", trouble: "lost", does: "", branches: [] }));
  const filled = (box: Box): Box => {
    const was = all(before).find(({ node, kind }) => kind === box.kind && node === box.node);
    return { ...box, branches: [...box.branches.map(filled), ...ghosts(was)] };
  };
  return filled(now);
}

function all(box: Box): Box[] {
  return [box, ...box.branches.flatMap(all)];
}

/** Whether there is a way at all: not within one node. */
export function isWorthDrawing(box: Box): boolean {
  return box.branches.some(({ node }) => node !== box.node) || box.look !== "good";
}
