// Numbers as people read them. A dash stands for what is not known.

import type { AudioTrack, Stream, VideoTrack } from "./api.ts";

export const UNKNOWN = "–";

/** Above this a newcomer waits long for the first picture, and latency grows with it. */
export const KEYFRAME_INTERVAL_GOOD_MAX = 4;

export function bitrate(bitsPerSecond: number | null): string {
  if (bitsPerSecond === null) return UNKNOWN;
  if (bitsPerSecond >= 999_500) return `${(bitsPerSecond / 1e6).toFixed(1)} Mb/s`;
  return `${Math.round(bitsPerSecond / 1e3)} kb/s`;
}

export function resolution(video: VideoTrack | null): string {
  return video ? `${video.width}×${video.height}` : "Audio only";
}

/** `30`, `29.97`: whole rates whole, broadcast rates with two digits. */
export function frameRate(video: VideoTrack | null): string {
  if (!video?.frame_rate) return UNKNOWN;
  return `${Number(video.frame_rate.toFixed(2))} fps`;
}

export function seconds(value: number | null, digits = 1): string {
  return value === null ? UNKNOWN : `${value.toFixed(digits)} s`;
}

export function viewers(count: number): string {
  return count === 1 ? "1 viewer" : `${count} viewers`;
}

/** `0:07`, `12:03`, `3:00:09`. */
export function elapsed(milliseconds: number): string {
  const total = Math.max(0, Math.floor(milliseconds / 1000));
  const two = (n: number) => String(n).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

export function audio(track: AudioTrack | null): string {
  if (!track) return "No sound";
  const layouts: Record<number, string> = { 1: "mono", 2: "stereo", 6: "5.1", 8: "7.1" };
  const layout = layouts[track.channels] ?? `${track.channels} channels`;
  return `${codecName(track.codec)} ${Number((track.sample_rate / 1000).toFixed(1))} kHz ${layout}`;
}

/** The everyday name of an RFC 6381 codec string; the string itself when there is none. */
export function codecName(codec: string): string {
  const names: [RegExp, string][] = [
    [/^avc[13]/i, "H.264"],
    [/^(hvc1|hev1)/i, "HEVC"],
    [/^av01/i, "AV1"],
    [/^vp08/i, "VP8"],
    [/^vp09/i, "VP9"],
    [/^mp4a\.40/i, "AAC"],
    [/^opus/i, "Opus"],
  ];
  return names.find(([pattern]) => pattern.test(codec))?.[1] ?? codec;
}

/** What to tell about a long keyframe interval; null while it is fine. */
export function keyframeWarning(stream: Stream): string | null {
  const interval = stream.keyframe_interval;
  if (interval === null || interval <= KEYFRAME_INTERVAL_GOOD_MAX) return null;
  return (
    `A keyframe comes only every ${interval.toFixed(1)} s, so new viewers wait for the picture. ` +
    "In OBS, set Settings → Output → Streaming → Keyframe Interval to 2 s."
  );
}
