// The log of events: what is kept of it, and what of that is shown. Pure.

export const EVENTS_ADDRESS = "/api/v1/events";

export interface Event {
  sequence: number;
  /** Unix milliseconds, by the clock of `node`. */
  at_ms: number;
  /** Who tells it. */
  node: string;
  kind: string;
  /** The stream or the node that it is about. */
  subject: string;
  words: string;
}

/** The page keeps and shows so many. */
export const EVENTS_KEPT = 500;

/** `kept` is the newest first. What is known already changes nothing; a log that has begun anew is a new one. */
export function add(kept: Event[], event: Event): Event[] {
  const newest = kept[0];
  if (newest && event.sequence <= newest.sequence) {
    const same = kept.find(({ sequence }) => sequence === event.sequence);
    const isKnown = same ? same.at_ms === event.at_ms && same.node === event.node : event.at_ms <= newest.at_ms;
    return isKnown ? kept : [event];
  }
  return [event, ...kept].slice(0, EVENTS_KEPT);
}

/** An event as the server sent it; null if it is none. */
export function read(text: string): Event | null {
  try {
    const value = JSON.parse(text) as Partial<Event>;
    const { sequence, at_ms, node, kind, subject, words } = value;
    if (typeof sequence !== "number" || typeof at_ms !== "number") return null;
    return { sequence, at_ms, node: String(node), kind: String(kind), subject: String(subject), words: String(words) };
  } catch {
    return null;
  }
}

/** `kind`: of this kind alone; "" is any. `text`: what has each of its words, in any of the columns. */
export function filter(events: Event[], kind: string, text: string): Event[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return events.filter((event) => {
    const told = `${event.kind} ${event.node} ${event.subject} ${event.words}`.toLowerCase();
    return (kind === "" || event.kind === kind) && words.every((word) => told.includes(word));
  });
}

/** The newest event of each subject whose kind begins so. `events` are the newest first. */
export function newestOf(events: Event[], kinds: string): Map<string, Event> {
  const newest = new Map<string, Event>();
  for (const event of events) {
    if (event.kind.startsWith(kinds) && !newest.has(event.subject)) newest.set(event.subject, event);
  }
  return newest;
}

/** How an event looks: what was lost is red. */
export function look(kind: string): "lost" | "alert" | "plain" {
  if (kind.endsWith("-lost")) return "lost";
  return kind === "stream-interrupted" || kind === "node-draining" ? "alert" : "plain";
}
