// What arrives, in words. Pure.

import type { ConnectReport, Refusal, Sound, Stream } from "../api.ts";
import * as format from "../format.ts";

/** A refusal this young is what the broadcaster is looking at right now, in milliseconds. */
const FRESH = 60_000;

/** `now` is the server's time, in Unix milliseconds. */
export function stateWords(stream: Stream, now: number): string {
  switch (stream.state) {
    case "live":
      return stream.since === null ? "On the air." : `On the air for ${format.elapsed(now - stream.since)}.`;
    case "starting":
      return stream.reason ?? "The first seconds have arrived and are being prepared.";
    case "interrupted":
      // The server's reason is for viewers.
      return "Nothing arrives any more. Viewers wait, and go on by themselves as soon as your encoder is back.";
    case "ended":
      return stream.reason ?? "The stream has ended. Start the encoder again, and it goes on under the same link.";
    default:
      return "Nothing arrives yet. What your encoder sends shows here within a second or two.";
  }
}

export function badge(state: string): [look: string, text: string] {
  const known: Record<string, [string, string]> = {
    live: ["live", "Live"],
    starting: ["busy", "Starting"],
    interrupted: ["alert", "Interrupted"],
    ended: ["quiet", "Ended"],
  };
  return known[state] ?? ["quiet", "Offline"];
}

/** Whether media is arriving, so that there is something to measure. */
export function isArriving(state: string): boolean {
  return state === "live" || state === "starting";
}

export interface Dial {
  label: string;
  value: string;
  detail: string;
}

export function dials(report: ConnectReport): Dial[] {
  const { stream } = report;
  const { video, audio } = stream;
  const measured = (label: string, value: string, detail = ""): Dial => {
    return isArriving(stream.state) ? { label, value, detail } : { label, value: format.UNKNOWN, detail: "" };
  };
  const frameRate = report.frame_rate === null ? format.UNKNOWN : `${report.frame_rate.toFixed(1)} fps`;
  return [
    measured("Bitrate", format.bitrate(stream.bitrate)),
    measured("Frame rate", frameRate),
    measured("Keyframe every", format.seconds(stream.keyframe_interval)),
    measured("Picture", video ? format.resolution(video) : format.UNKNOWN, video ? format.codecName(video.codec) : ""),
    measured("Sound", sound(report.sound), audio ? format.audio(audio) : ""),
    { label: "Watching", value: format.viewers(stream.viewers), detail: "" },
  ];
}

/** Nothing is decoded on the server, so no more is claimed than frame sizes tell. */
export function sound(heard: Sound): string {
  switch (heard.state) {
    case "arriving":
      return format.bitrate(heard.bitrate);
    case "silent":
      return "Probably silent";
    case "stopped":
      return `None for ${heard.seconds} s`;
    case "none":
      return "None";
  }
}

/** Whether an address leads here from this machine only, so that a link with it is of no use to anybody else. */
export function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname.endsWith(".localhost") || hostname.startsWith("127.") || hostname === "[::1]";
}

/** `12 s ago`, `4 min ago`, `3 h ago`. */
export function ago(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 100) return `${seconds} s ago`;
  if (seconds < 100 * 60) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

/** When, how often, what and who: the small print of a refusal. */
export function circumstances(refusal: Refusal, now: number): string {
  const times = refusal.times > 1 ? [`${refusal.times} times`] : [];
  return [ago(now - refusal.at), ...times, who(refusal)].join(", ");
}

/** `live/cam1, from 203.0.113.7, ffmpeg` */
export function who({ stream, from, encoder }: Refusal): string {
  return [stream, `from ${from}`, encoder].filter(Boolean).join(", ");
}

/** The refusal to put before everything else: the newest, if it is fresh and this stream is not on the air. */
export function urgent(report: ConnectReport, now: number): Refusal | null {
  if (isArriving(report.stream.state)) return null;
  const name = `${report.stream.app}/${report.stream.stream}`;
  const mine = report.refusals.find(({ stream }) => stream === null || stream === name);
  return mine && now - mine.at < FRESH ? mine : null;
}
