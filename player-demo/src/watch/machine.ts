// What the watch page shows and does, as a pure machine: events in, the next model and effects out. No clock,
// no DOM, no network; `watch.ts` performs the effects and feeds what happens back in.
//
// Two sources have to agree: the server's word (is there a programme?) and the player's (is there a picture?).
// The server decides when to start; the player's buffer decides when an ended programme really leaves the screen.

import type { Stream } from "../api.ts";

export type Phase = "loading" | "offline" | "starting" | "live" | "interrupted" | "ended" | "error";

/** How the media element is doing while the phase is live. `blocked`: the browser wants a tap before it plays. */
export type Playback = "loading" | "playing" | "stalled" | "paused" | "blocked";

export type Fault =
  /** The server does not answer; polling goes on. */
  | { kind: "unreachable" }
  /** The server does not know such a name. */
  | { kind: "bad-name" }
  /** The player gave up; it is started again by itself. */
  | { kind: "playback"; detail: string }
  /**
   * This browser cannot play it; starting again would not help. `codecs` are the everyday names of those it lacks; none if
   * it has no player at all.
   */
  | { kind: "unsupported"; codecs: string[] };

export interface Model {
  phase: Phase;
  /** The server's last word. */
  stream: Stream | null;
  /** The session on the screen; null when nothing is being played. */
  playing: string | null;
  /** Where its playlist is played from: the same session may be at another server now. */
  from: string | null;
  playback: Playback;
  /** The programme is over on the server, and the player plays out what it has. */
  finishing: boolean;
  /** The player reached the end of the programme; the server's word on what comes next is awaited. */
  drained: boolean;
  pollFailures: number;
  playbackFailures: number;
  fault: Fault | null;
}

export type Event =
  | { type: "answer"; stream: Stream }
  | { type: "poll-failed"; status: number | null }
  | { type: "playback"; playback: Playback }
  /** Playback went well for a while: forget earlier failures. */
  | { type: "settled" }
  | { type: "media-ended" }
  | { type: "player-failed"; detail: string }
  | { type: "unsupported"; codecs: string[] }
  /** What was left to play out should be over by now. */
  | { type: "finish-timeout" }
  /** The retry button, or the automatic retry. */
  | { type: "retry" }
  /** What the viewer chose, or the server has now, only a player opened anew can show. */
  | { type: "reopen" };

export type Effect =
  | { type: "play"; playlist: string }
  /** What is played goes on at another server. */
  | { type: "move"; from: string; playlist: string }
  | { type: "stop" }
  | { type: "poll-now" }
  /** Send `finish-timeout` later. */
  | { type: "finish-soon" }
  /** Send `retry` after a pause that grows with `failures`. */
  | { type: "retry-later"; failures: number };

export interface Step {
  model: Model;
  effects: Effect[];
}

/** One lost poll is a hiccup; this many in a row are told to the viewer, unless the picture still moves. */
const POLL_FAILURES_TOLD = 2;

export const initial: Model = {
  phase: "loading",
  stream: null,
  playing: null,
  from: null,
  playback: "loading",
  finishing: false,
  drained: false,
  pollFailures: 0,
  playbackFailures: 0,
  fault: null,
};

export function step(model: Model, event: Event): Step {
  switch (event.type) {
    case "answer":
      return onAnswer({ ...model, stream: event.stream, pollFailures: 0 });
    case "poll-failed":
      return onPollFailed({ ...model, pollFailures: model.pollFailures + 1 }, event.status);
    case "playback":
      return stay(model.phase === "live" ? { ...model, playback: event.playback } : model);
    case "settled":
      return stay({ ...model, playbackFailures: 0 });
    case "media-ended":
      if (model.phase !== "live") return stay(model);
      if (model.finishing) return conclude(model);
      return { model: { ...model, drained: true }, effects: [{ type: "poll-now" }] };
    case "player-failed":
      return onPlayerFailed(model, event.detail);
    case "unsupported":
      return halt(model, { kind: "unsupported", codecs: event.codecs });
    case "finish-timeout":
      return model.finishing ? conclude(model) : stay(model);
    case "retry":
      return onRetry(model);
    case "reopen":
      // Nothing that is over, or on its way out, is begun again.
      if (model.phase !== "live" || !model.stream || !isOn(model.stream) || model.drained) return stay(model);
      // Failures of what was shown before say nothing of what was chosen now.
      return start({ ...model, playbackFailures: 0 }, model.stream);
  }
}

/** Whether nothing is expected to change soon, so that polling may be slow. */
export function isSettled(model: Model): boolean {
  if (model.stream?.state === "interrupted") return false;
  return model.phase === "live" && !model.finishing && !model.drained && ["playing", "paused"].includes(model.playback);
}

/** The player is kept, since it goes on by itself when the broadcaster is back; but it has nothing more to show. */
export function isWaitingForBroadcaster(model: Model): boolean {
  return model.phase === "live" && model.stream?.state === "interrupted" && ["loading", "stalled"].includes(model.playback);
}

function onAnswer(model: Model): Step {
  const stream = model.stream;
  if (!stream) return stay(model);
  // Another session may have other codecs.
  if (model.fault?.kind === "unsupported" && stream.state === "live" && sessionOf(stream) === model.playing) {
    return stay(model);
  }
  if (model.phase === "live" && model.playing !== null) return onAnswerWhilePlaying(model, stream);
  // The pause before the automatic retry is not cut short by the server saying what it said before.
  if (model.fault?.kind === "playback" && stream.state === "live" && sessionOf(stream) === model.playing) {
    return stay(model);
  }
  return follow(model, stream);
}

function onAnswerWhilePlaying(model: Model, stream: Stream): Step {
  const same = isOn(stream) && sessionOf(stream) === model.playing;
  if (model.drained) {
    return same ? onPlayerFailed(model, "the playlist ended although the stream is live") : conclude(model);
  }
  // Polling moves on only when a server is gone, or would have viewers go, and then the player must follow.
  if (same && stream.state === "live" && stream.playlist !== model.from) return move(model, stream);
  if (same) return stay({ ...model, finishing: false });
  if (stream.state === "live") return start(model, stream);
  const somethingLeft = model.playback === "playing" || model.playback === "paused";
  if (!somethingLeft) return conclude(model);
  if (model.finishing) return stay(model);
  return { model: { ...model, finishing: true }, effects: [{ type: "finish-soon" }] };
}

/** Takes the server's word, with nothing left on the screen that contradicts it. */
function follow(model: Model, stream: Stream): Step {
  switch (stream.state) {
    case "live":
      return start(model, stream);
    case "starting":
    case "interrupted":
      return rest(model, stream.state);
    case "ended":
      return rest(model, "ended");
    case "offline":
      // The server forgets an ended programme after a while; the viewer who saw it end does not.
      return rest(model, model.playing !== null || model.phase === "ended" ? "ended" : "offline");
  }
}

function conclude(model: Model): Step {
  return model.stream ? follow(model, model.stream) : stay(model);
}

function start(model: Model, stream: Stream): Step {
  return {
    model: {
      ...model,
      phase: "live",
      playing: sessionOf(stream),
      from: stream.playlist,
      playback: "loading",
      finishing: false,
      drained: false,
      fault: null,
    },
    effects: [{ type: "play", playlist: stream.playlist }],
  };
}

function move(model: Model, stream: Stream): Step {
  // With nothing to be kept it is begun anew.
  if (model.playback === "loading" || model.from === null) return start(model, stream);
  return {
    model: { ...model, from: stream.playlist, finishing: false },
    effects: [{ type: "move", from: model.from, playlist: stream.playlist }],
  };
}

function rest(model: Model, phase: Phase): Step {
  const next = { ...model, phase, playing: null, finishing: false, drained: false, playbackFailures: 0, fault: null };
  return { model: next, effects: model.playing === null ? [] : [{ type: "stop" }] };
}

function halt(model: Model, fault: Fault): Step {
  const effects: Effect[] = model.phase === "live" ? [{ type: "stop" }] : [];
  return { model: { ...model, phase: "error", finishing: false, drained: false, fault }, effects };
}

function onPollFailed(model: Model, status: number | null): Step {
  if (status === 400 || status === 404) return halt({ ...model, playing: null }, { kind: "bad-name" });
  if (model.pollFailures < POLL_FAILURES_TOLD || model.fault?.kind === "unsupported") return stay(model);
  const onScreen = model.playback !== "loading" && model.playback !== "stalled";
  if (model.phase === "live" && onScreen && !model.drained) return stay(model);
  // Also in place of a playback fault: polling finds out when it makes sense to start again.
  return halt({ ...model, playing: null }, { kind: "unreachable" });
}

function onPlayerFailed(model: Model, detail: string): Step {
  if (model.phase !== "live") return stay(model);
  // Not its fault: there is nothing to play.
  if (model.finishing || model.stream?.state === "interrupted") return conclude(model);
  const playbackFailures = model.playbackFailures + 1;
  const halted = halt({ ...model, playbackFailures }, { kind: "playback", detail });
  return {
    model: halted.model,
    effects: [...halted.effects, { type: "poll-now" }, { type: "retry-later", failures: playbackFailures }],
  };
}

function onRetry(model: Model): Step {
  if (model.phase !== "error") return stay(model);
  if (model.fault?.kind === "playback" && model.stream?.state === "live") return start(model, model.stream);
  return { model, effects: [{ type: "poll-now" }] };
}

function stay(model: Model): Step {
  return { model, effects: [] };
}

function isOn(stream: Stream): boolean {
  return stream.state === "live" || stream.state === "interrupted";
}

/** A server that names no session still has one programme per playlist. */
function sessionOf(stream: Stream): string {
  return stream.session ?? stream.playlist;
}
