// Keeps a viewer at the target latency, gently. hls.js has a catch-up of its own, but it acts only with more than
// one second of buffer ahead: a stream with 200 ms parts plays with half of that and would never catch up.

export interface Position {
  /** Seconds behind the live edge, and where the playlist asks players to be. */
  latency: number;
  target: number;
  /** Seconds of media ready ahead of the picture. */
  bufferAhead: number;
  partTarget: number | null;
}

export type Move = { type: "rate"; rate: number } | { type: "jump" };

/** 5 % faster is not heard in speech and hardly in music; a second is regained in twenty. */
export const CATCH_UP_RATE = 1.05;

/** Catch-up starts when this far behind the target and ends on reaching it, so that the rate does not flutter. */
const CATCH_UP_FROM = 0.2;
const CATCH_UP_UNTIL = 0.03;

/** Too far behind to catch up while anybody watches: jump. Also when the live button offers to. */
export const JUMP_FROM = 5;

/** How far behind the target still counts as live on the badge. */
export const LIVE_WITHIN = 2.5;

export function nextMove(position: Position, rate: number): Move {
  const behind = position.latency - position.target;
  if (behind > JUMP_FROM) return { type: "jump" };
  // Playing faster than the parts come would only trade latency for a stall.
  const spare = position.bufferAhead > 1.2 * (position.partTarget ?? 1);
  const threshold = rate > 1 ? CATCH_UP_UNTIL : CATCH_UP_FROM;
  return { type: "rate", rate: spare && behind > threshold ? CATCH_UP_RATE : 1 };
}
