// What the admin port tells of the cluster, and what of it is worth a line on the page. Pure.
// Names are the server's; every text was made by some node and is only text here.

import type { Stream } from "../api.ts";
import { type Event, newestOf } from "./events.ts";

export const NODES_ADDRESS = "/api/v1/nodes";
export const STREAMS_ADDRESS = "/api/v1/streams";
export const SETTINGS_ADDRESS = "/api/v1/settings";
export const TRUST_ADDRESS = "/api/v1/trust";

/** `GET /api/v1/nodes`. */
export interface NodeList {
  /** The node that answers. */
  this: string;
  nodes: Node[];
}

export interface Node {
  id: string;
  roles: string[];
  zone: string;
  version: string;
  /** Before the path of a page, as viewers reach it. */
  viewers: string | null;
  load: Load;
  silent_ms: number;
  state: string;
  /** When its certificate in the cluster ends, in Unix milliseconds; null without one, absent from an earlier release. */
  certificate_ends_ms?: number | null;
}

/** Rates in bits per second. */
export interface Load {
  /** Share of the machine's processors, 0 to 1. */
  cpu: number;
  egress: number;
  /** 0 if the operator has set no limit. */
  egress_max: number;
  viewers: number;
  streams: number;
}

/** `GET /api/v1/streams`. */
export interface EntryList {
  streams: Entry[];
  expected: Expected[];
}

/** An audience that an operator expects. */
export interface Expected {
  stream: string;
  viewers: number;
  /** In Unix milliseconds. */
  at_ms: number;
  /** Where it will be: at the first of these first. */
  edges: string[];
}

export interface Entry {
  /** `live/cam1`. */
  stream: string;
  holder: { node: string };
  epoch: number | null;
  phase: string;
  /** When the publisher came, in Unix milliseconds. */
  since_ms: number;
  unlisted: boolean;
  /** On all nodes. Absent from an earlier release, as are the others below. */
  viewers?: number;
  path?: Path;
  /** Absent if the node that has it does not answer. */
  facts?: Facts;
}

/** What viewers' `/state` says, and more for operators. */
export interface Facts extends Omit<Stream, "viewers"> {
  /** Of the last seconds; `video` has the rate measured at the start. */
  frame_rate: number | null;
  /** The publisher's picture first. */
  ladder: Rung[];
}

export interface Rung {
  name: string;
  width: number;
  height: number;
  /** Bits per second. */
  bitrate: number | null;
  /** Made by a worker. */
  encoded: boolean;
  /** Only while somebody watches it. */
  on_demand: boolean;
}

/** The way of a stream through the nodes. */
export interface Path {
  ingest: Hop;
  workers: Hop[];
  /** None if edges read it from `ingest`. */
  origins: Hop[];
  edges: Hop[];
  /** With those that are not listed. */
  edges_count: number;
}

export interface Hop {
  node: string;
  /** Null of one that is not there. */
  state: string | null;
  /** Of an origin. */
  place?: "primary" | "standby" | "other";
  /** Whether it was asked what it has: of a large fleet not all are. */
  asked: boolean;
  /** Null if it does not say. */
  has: boolean | null;
  /** From whom it reads the stream. */
  from: string[];
  viewers: number;
}

/** `GET /api/v1/settings`. */
export interface SettingList {
  settings: Setting[];
}

export interface Setting {
  key: string;
  /** What all nodes have from their next start on, and the node on which that was set; null if each has its own. */
  cluster: { value: string; by: string } | null;
  /** What is in force on the node that answers. */
  here: string | null;
  /** Where that comes from. */
  origin: string;
}

/** `GET /api/v1/trust`; null in no cluster. */
export interface Trust {
  /** Certificates by each of them are good. */
  roots: number;
  /** Nodes that were put out. */
  revoked: string[];
  /** That nobody has taken yet; told where the authority is. */
  tokens: { node: string | null; ends_ms: number }[];
}

/** A node that was lost is shown for so long, in milliseconds; then it is history. */
export const LOST_SHOWN = 600_000;

export interface Lost {
  id: string;
  /** The event's words. */
  words: string;
  at: number;
}

/** Nodes that are not there, and of which the last that was told is that they were lost. `now` in Unix milliseconds. */
export function lost(nodes: Node[], events: Event[], now: number): Lost[] {
  const there = new Set(nodes.map(({ id }) => id));
  const gone: Lost[] = [];
  for (const [id, event] of newestOf(events, "node-")) {
    if (event.kind !== "node-lost" || there.has(id) || now - event.at_ms > LOST_SHOWN) continue;
    gone.push({ id, words: event.words, at: event.at_ms });
  }
  return gone.sort((a, b) => a.id.localeCompare(b.id));
}

/** The origin of what a node says is its viewers' address; null if no browser should be led there. */
export function viewersOrigin(address: string | null): string | null {
  try {
    const url = new URL(address ?? "");
    return url.protocol === "https:" || url.protocol === "http:" ? url.origin : null;
  } catch {
    return null;
  }
}

const WATCH_LINKS_MAX = 3;

/** Where to watch: at the node that has the stream, and at nodes that show those of others. */
export function watchLinks(entry: Entry, nodes: Node[]): { node: string; href: string }[] {
  if (entry.phase === "ended") return [];
  const takesViewers = nodes.filter(({ state, roles }) => state !== "suspect" && roles.includes("edge"));
  const holds = (node: Node) => node.id === entry.holder.node;
  // A node with streams of its own sends viewers of others away.
  const shows = takesViewers.filter((node) => holds(node) || !node.roles.includes("origin"));
  shows.sort((a, b) => Number(holds(b)) - Number(holds(a)) || a.id.localeCompare(b.id));
  const links: { node: string; href: string }[] = [];
  for (const node of shows) {
    const origin = viewersOrigin(node.viewers);
    const path = entry.stream.split("/").map(encodeURIComponent).join("/");
    if (origin && links.length < WATCH_LINKS_MAX) links.push({ node: node.id, href: `${origin}/watch/${path}` });
  }
  return links;
}
