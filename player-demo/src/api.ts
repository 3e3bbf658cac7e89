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
  /** Sizes that the broadcaster sends at once, for viewers by WebRTC; absent where it is one. */
  layers?: Layer[];
  /** Bits per second, all tracks together. */
  bitrate: number | null;
  keyframe_interval: number | null;
  viewers: number;
  part_target: number | null;
  target_latency: number | null;
  /** For the broadcaster: what is not as it should be. */
  warnings: string[];
  /** The server that says so is drained or about to end; absent where it is not, and in earlier releases. */
  drained?: boolean;
}

export interface VideoTrack {
  codec: string;
  width: number;
  height: number;
  frame_rate: number | null;
}

export interface Layer {
  /** The server's, for a WHEP session. */
  name: string;
  width: number;
  height: number;
  /** Null until it is measured. */
  bitrate: number | null;
}

export interface AudioTrack {
  codec: string;
  sample_rate: number;
  channels: number;
}

/** `GET /state`: every stream that is starting, live or interrupted. */
export interface StreamList {
  streams: Stream[];
  /** Where publishers connect; a node that serves the streams of another has none. */
  rtmp_port?: number;
  /** The same encrypted, if there is a certificate that encoders trust. */
  rtmps_port?: number;
}

/** `GET /nodes`: this server, and where else its streams are. */
export interface Nodes {
  /** Origins, as in `https://edge2.example`. */
  alternates: string[];
  /** Its operator would have viewers go to another one; left out by earlier releases. */
  drained?: boolean;
  /** Whether this server made its certificate by itself. */
  self_signed: boolean;
  /** What this server would have pages play by; null where there is only HLS. */
  prefer?: "hls" | "webrtc" | null;
}

export const NODES_ADDRESS = "/nodes";

export const LIST_ADDRESS = "/state";

export function streamAddress(name: StreamName): string {
  return `/state/${encodeURIComponent(name.app)}/${encodeURIComponent(name.stream)}`;
}

export function whepAddress(name: StreamName): string {
  return `/whep/${encodeURIComponent(name.app)}/${encodeURIComponent(name.stream)}`;
}

export function watchAddress(name: StreamName): string {
  return `/watch/${encodeURIComponent(name.app)}/${encodeURIComponent(name.stream)}`;
}

export interface StreamName {
  app: string;
  stream: string;
}

export function embedAddress(name: StreamName): string {
  return `/embed/${encodeURIComponent(name.app)}/${encodeURIComponent(name.stream)}`;
}

/** The stream a watch page or an embedded player is about, from its own address; null if the address names none. */
export function nameFromPath(path: string): StreamName | null {
  const match = /^\/(?:watch|embed)\/([^/]+)\/([^/]+)\/?$/.exec(path);
  if (!match?.[1] || !match[2]) return null;
  try {
    return { app: decodeURIComponent(match[1]), stream: decodeURIComponent(match[2]) };
  } catch {
    return null;
  }
}

/** `GET /connect/state/{app}/{stream}`, with the publish key: what the broadcaster may know. */
export interface ConnectReport {
  stream: Stream;
  rtmp_port: number;
  rtmps_port?: number;
  /** Whether everybody finds the stream on the start page. */
  listed: boolean;
  /** Right now; `stream.video` has the rate measured at the start. */
  frame_rate: number | null;
  sound: Sound;
  /** How much later than it could media arrives. */
  late: number;
  /** What is wrong and how to mend it; what could be better. */
  warnings: string[];
  hints: string[];
  /** The last minutes, the oldest first: milliseconds, bits per second, frames per second. */
  samples: [span: number, bitrate: number, frameRate: number][];
  /** The newest first. */
  refusals: Refusal[];
}

export type Sound =
  | { state: "none" }
  | { state: "arriving"; bitrate: number }
  | { state: "silent" }
  | { state: "stopped"; seconds: number };

/** A publisher that was turned away. Everything but the times was said by a stranger: text, never markup. */
export interface Refusal {
  /** The last time, in Unix milliseconds. */
  at: number;
  times: number;
  from: string;
  stream: string | null;
  encoder: string | null;
  reason: string;
}

export function reportAddress(name: StreamName): string {
  return `/connect/state/${encodeURIComponent(name.app)}/${encodeURIComponent(name.stream)}`;
}
