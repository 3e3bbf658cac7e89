// What a broadcast does next: a state machine without timers, sockets or media. `broadcast.ts` drives it.

import { backoff } from "../poll.ts";

/** Why there is no broadcast, or not at the moment. */
export type Fault =
  /** The server said no: its status, and its words. */
  | { kind: "refused"; status: number; words: string }
  /** No answer over HTTP. */
  | { kind: "unreachable" }
  /** It worked, and the way is gone. */
  | { kind: "lost" }
  /** HTTP works, and nothing else: `port` is where UDP would have to arrive. */
  | { kind: "no-udp"; port: number | null }
  /** This browser cannot make what the server takes. */
  | { kind: "no-codec" };

export type Phase =
  | { name: "idle"; fault: Fault | null }
  /** Asking, then waiting for ICE and DTLS. `attempt` is 0 before the first success, and counts from 1 afterwards. */
  | { name: "connecting"; attempt: number }
  | { name: "live" }
  /** The path is silent: it may come back by itself within a moment. */
  | { name: "shaky" }
  /** A new path is looked for, within the same session. */
  | { name: "restarting" }
  /** Before the next attempt at a new session. */
  | { name: "waiting"; attempt: number; fault: Fault };

export type Event =
  | { name: "go" }
  | { name: "stop" }
  /** There is a session, and not a connection yet. */
  | { name: "answered" }
  /** What `RTCPeerConnection.connectionState` says. */
  | { name: "connected" | "disconnected" | "failed" }
  /** There is no session: the server, or the way to it. */
  | { name: "fault"; fault: Fault }
  /** The device has another network than before. */
  | { name: "network-changed" }
  /** The timer that the last step set. */
  | { name: "timeout" };

/** What the driver does, in this order. */
export type Effect =
  /** A new peer connection, and a POST with its offer. */
  | "publish"
  /** New ICE credentials, and a PATCH with them. */
  | "restart"
  /** Drops the peer connection; the server keeps the programme open for whoever comes back. */
  | "drop"
  /** DELETE: the programme is over. */
  | "end";

export interface Step {
  phase: Phase;
  effects: Effect[];
  /** Milliseconds until `timeout`, if nothing else comes before; null for none. */
  timer: number | null;
}

/** From the offer to the answer: nodes of a cluster may have to wait for their store for 15 s and a question. */
export const ANSWER_TIME_MAX = 20_000;
/** From the answer to a connection: the server gives it 15 s, and a bad line takes two. */
export const CONNECT_TIME_MAX = 14_000;
/** How long a silent path may recover by itself: ICE consents every 5 s (RFC 7675), radio cells change in two. */
export const SHAKY_TIME_MAX = 2_000;
/** For an ICE restart; afterwards a new session is quicker. */
export const RESTART_TIME_MAX = 8_000;
/** The first pause before a new session, and the longest. Most of it must fit into the server's linger of 20 s. */
const PAUSE_FIRST = 1_000;
const PAUSE_MAX = 10_000;

export const START: Phase = { name: "idle", fault: null };

/** `port`: where the server takes UDP, if it said so; `random` is in 0…1. */
export function step(phase: Phase, event: Event, port: number | null, random: number): Step {
  const stay: Step = { phase, effects: [], timer: null };
  if (event.name === "stop") {
    return phase.name === "idle" ? stay : { phase: { name: "idle", fault: null }, effects: ["end", "drop"], timer: null };
  }
  switch (phase.name) {
    case "idle":
      return event.name === "go" ? connect(0) : stay;
    case "connecting":
      switch (event.name) {
        case "answered":
          return { phase, effects: [], timer: CONNECT_TIME_MAX };
        case "connected":
          return { phase: { name: "live" }, effects: [], timer: null };
        case "fault":
          return lost(event.fault, phase.attempt, random);
        case "failed":
        case "timeout":
          return lost({ kind: "no-udp", port }, phase.attempt, random);
        default:
          return keep(phase);
      }
    case "live":
    case "shaky":
      switch (event.name) {
        case "connected":
          return { phase: { name: "live" }, effects: [], timer: null };
        case "disconnected":
          return phase.name === "shaky" ? keep(phase) : { phase: { name: "shaky" }, effects: [], timer: SHAKY_TIME_MAX };
        case "failed":
        case "network-changed":
        case "timeout":
          return { phase: { name: "restarting" }, effects: ["restart"], timer: RESTART_TIME_MAX };
        case "fault":
          return lost(event.fault, 1, random);
        default:
          return keep(phase);
      }
    case "restarting":
      switch (event.name) {
        case "connected":
          return { phase: { name: "live" }, effects: [], timer: null };
        // While the old path dies the new one is still being looked for.
        case "timeout":
          return lost({ kind: "lost" }, 1, random);
        case "fault":
          return lost(event.fault, 1, random);
        default:
          return keep(phase);
      }
    case "waiting":
      return event.name === "timeout" || event.name === "network-changed" ? connect(phase.attempt) : keep(phase);
  }
}

/** The timer that runs goes on. */
export const KEEP_TIMER = -1;

function keep(phase: Phase): Step {
  return { phase, effects: [], timer: KEEP_TIMER };
}

/** `whip.ts` keeps to the time for an answer. */
function connect(attempt: number): Step {
  return { phase: { name: "connecting", attempt }, effects: ["publish"], timer: null };
}

/**
 * Before the first success a person is there to act on the fault. After it the broadcast is theirs to end: everything but a
 * key that is not right any more is tried again. `attempt` is that of the connection that was lost.
 */
function lost(reason: Fault, attempt: number, random: number): Step {
  // A session that the server does not know any more: it was started again, or gave it up.
  const fault: Fault = attempt > 0 && reason.kind === "refused" && reason.status === 404 ? { kind: "lost" } : reason;
  const final = attempt === 0 || fault.kind === "no-codec" || (fault.kind === "refused" && fault.status === 401);
  if (final) {
    // What was asked for and never came to be is not left to time out: the name would be taken for as long.
    return { phase: { name: "idle", fault }, effects: ["end", "drop"], timer: null };
  }
  return {
    phase: { name: "waiting", attempt: attempt + 1, fault },
    effects: ["drop"],
    timer: backoff(PAUSE_FIRST, PAUSE_MAX, attempt, random),
  };
}
