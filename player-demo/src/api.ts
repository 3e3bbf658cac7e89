// What the server tells a page: the JSON behind `/state` and `/state/{app}/{stream}`.
// Names are the server's; times are in seconds unless the name or comment says otherwise.

/** `interrupted`: the broadcaster's media does not come at the moment; the session waits for it. */
export type StreamState = "offline" | "starting" | "live" | "interrupted" | "ended";

export interface Stream {
  app: string;
  stream: string;
  state: StreamState;
  /** One sentence for people: why the stream is still starting, or has no picture. */
  reason: string | null;
  /** Since when nothing comes from the broadcaster, in Unix milliseconds. */
  interrupted_since: number | null;
  /** Changes whenever a new programme begins under the same name. */
  session: string | null;
  /** Address of the multivariant playlist. */
  playlist: string;
  /** When the publisher came, in Unix milliseconds. */
  since: number | null;
  video: VideoTrack | null;
  audio: AudioTrack | null;
  /** Bits per second, all tracks together. */
  bitrate: number | null;
  keyframe_interval: number | null;
  viewers: number;
  part_target: number | null;
  target_latency: number | null;
  /** For the broadcaster: what is not as it should be. */
  warnings: string[];
}

export interface VideoTrack {
  codec: string;
  width: number;
  height: number;
  frame_rate: number | null;
}

export interface AudioTrack {
  codec: string;
  sample_rate: number;
  channels: number;
}

/** `GET /state`: every stream that is starting, live or interrupted. */
export interface StreamList {
  streams: Stream[];
  /** Where publishers connect. */
  rtmp_port: number;
}

export const LIST_ADDRESS = "/state";

export function streamAddress(name: StreamName): string {
  return `/state/${encodeURIComponent(name.app)}/${encodeURIComponent(name.stream)}`;
}

export function watchAddress(name: StreamName): string {
  return `/watch/${encodeURIComponent(name.app)}/${encodeURIComponent(name.stream)}`;
}

export interface StreamName {
  app: string;
  stream: string;
}

/** The stream a watch page is about, from its own address; null if the address names none. */
export function nameFromPath(path: string): StreamName | null {
  const match = /^\/watch\/([^/]+)\/([^/]+)\/?$/.exec(path);
  if (!match?.[1] || !match[2]) return null;
  try {
    return { app: decodeURIComponent(match[1]), stream: decodeURIComponent(match[2]) };
  } catch {
    return null;
  }
}
