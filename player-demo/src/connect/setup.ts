// What a broadcaster types where. Pure.

import { type StreamName, embedAddress, watchAddress } from "../api.ts";

const RTMP_PORT = 1935;
/** There is no default that encoders agree on, so it is always named. */
export interface Ports {
  rtmp_port: number;
  /** Encrypted, if there is a certificate that encoders trust. */
  rtmps_port?: number | undefined;
}

/** What stands in place of a key that is not shown; the same for every key, so that it tells nothing, not its length. */
export const HIDDEN = "••••••••••••";

/** The rule of the server: a name stands in URLs as it is. */
export function isName(text: string): boolean {
  return /^[A-Za-z0-9_-]{1,64}$/.test(text);
}

/** `host` as the browser knows the server (an IPv6 address in brackets). */
export function serverAddress(host: string, { rtmp_port: port, rtmps_port: encrypted }: Ports, app: string): string {
  if (encrypted !== undefined) return `rtmps://${host}:${encrypted}/${app}`;
  return `rtmp://${host}${port === RTMP_PORT ? "" : `:${port}`}/${app}`;
}

export function streamKey(stream: string, key: string): string {
  return `${stream}?key=${key}`;
}

/** In single quotes, because shells read `?` and `&`; no name, host or key has one itself. */
export function ffmpegCommand(address: string): string {
  return [
    "ffmpeg -re -i clip.mp4",
    "-c:v libx264 -preset veryfast -tune zerolatency -pix_fmt yuv420p",
    "-b:v 4500k -maxrate 4500k -bufsize 4500k",
    "-force_key_frames 'expr:gte(t,n_forced*2)'",
    "-c:a aac -ar 48000 -b:a 128k",
    `-f flv '${address}'`,
  ].join(" ");
}

export function watchLink(origin: string, name: StreamName): string {
  return origin + watchAddress(name);
}

export function embedSnippet(origin: string, name: StreamName): string {
  return (
    `<iframe src="${origin}${embedAddress(name)}" title="Live stream" width="640" height="360" ` +
    'allow="autoplay; fullscreen; picture-in-picture" allowfullscreen style="border:0"></iframe>'
  );
}
