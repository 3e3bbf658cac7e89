// What the player knows about itself: for the overlay, and for tests as `window.tidecast.stats()`.

import type { Stream } from "../api.ts";
import * as format from "../format.ts";
import type { Link } from "./link.ts";
import { type Player, type PlayerKind, bufferAhead } from "./player.ts";
import { type Choice, describe } from "./quality.ts";

/** Times are in seconds; null is "not known". */
export interface Stats {
  player: PlayerKind | null;
  session: string | null;
  /** Broadcaster's clock to picture, by PROGRAM-DATE-TIME; right only if both clocks are. */
  latency: number | null;
  /** Behind the end of the playlist. */
  edgeLatency: number | null;
  targetLatency: number | null;
  buffer: number;
  playbackRate: number;
  frames: number;
  droppedFrames: number;
  stalls: number;
  /** From opening the player to the first picture. */
  firstPicture: number | null;
  /** Bits per second, as loaded; by the server's word for a native player. */
  bitrate: number | null;
  width: number;
  height: number;
  codecs: string | null;
  /** Height of the rendition on the screen, whether the player chose it, and the heights there are. */
  rendition: number | null;
  auto: boolean;
  renditions: number[];
  /** The same in words. */
  renditionWords: string;
  partTarget: number | null;
  partsLoaded: number;
  /** Parts are loaded on their own, and the playlist is held by the server until the next one. */
  lowLatency: boolean;
  /** Of a session by WebRTC. */
  link: Link | null;
}

export interface Observed {
  video: HTMLVideoElement;
  player: Player | null;
  stream: Stream | null;
  choice: Choice;
  stalls: number;
  firstPicture: number | null;
}

/** So far. */
export function countPictures(video: HTMLVideoElement, player: Player | null): { frames: number; droppedFrames: number } {
  const { totalVideoFrames, droppedVideoFrames } = video.getVideoPlaybackQuality();
  const { frames, droppedFrames } = player?.link ?? { frames: totalVideoFrames, droppedFrames: droppedVideoFrames };
  return { frames, droppedFrames };
}

export function collect({ video, player, stream, choice, stalls, firstPicture }: Observed): Stats {
  const details = player?.hls?.latestLevelDetails ?? null;
  const shown = player?.shown() ?? null;
  const partsLoaded = player?.partsLoaded ?? 0;
  const tracks = [stream?.video?.codec, stream?.audio?.codec].filter((codec) => codec !== undefined);
  return {
    player: player?.kind ?? null,
    session: stream?.session ?? null,
    latency: player?.clockLatency() ?? null,
    edgeLatency: player?.edgeLatency() ?? null,
    targetLatency: player?.targetLatency() ?? null,
    buffer: bufferAhead(video),
    playbackRate: video.playbackRate,
    ...countPictures(video, player),
    stalls,
    firstPicture,
    bitrate: player?.meter?.bitsPerSecond() ?? player?.link?.bitrate ?? stream?.bitrate ?? null,
    width: video.videoWidth,
    height: video.videoHeight,
    codecs: tracks.length > 0 ? tracks.join(" ") : null,
    rendition: shown?.height ?? null,
    auto: choice === "auto",
    renditions: player?.offer.renditions.map(({ height }) => height) ?? [],
    renditionWords: describe(choice, shown),
    partTarget: details?.partTarget || stream?.part_target || null,
    partsLoaded,
    lowLatency: partsLoaded > 0 && details?.canBlockReload === true,
    link: player?.link ?? null,
  };
}

/** The overlay's lines, in order. */
export function lines(stats: Stats): [label: string, value: string][] {
  const size = stats.width > 0 ? `${stats.width}×${stats.height}` : format.UNKNOWN;
  if (stats.player === "webrtc") return linesOfWebRtc(stats, size);
  const parts = stats.partTarget === null ? format.UNKNOWN : `${Math.round(stats.partTarget * 1000)} ms`;
  return [
    ["Latency", format.seconds(stats.latency, 2)],
    ["Behind edge", format.seconds(stats.edgeLatency, 2)],
    ["Target", format.seconds(stats.targetLatency, 2)],
    ["Buffer", format.seconds(stats.buffer, 2)],
    ["Speed", `${stats.playbackRate.toFixed(2)}×`],
    ["Stalls", String(stats.stalls)],
    ["Dropped", `${stats.droppedFrames} of ${stats.frames}`],
    ["Bitrate", format.bitrate(stats.bitrate)],
    ["Picture", size],
    ["Rendition", stats.renditionWords],
    ["Codecs", stats.codecs ?? format.UNKNOWN],
    ["Part target", `${parts}${stats.lowLatency ? ", in use" : ""}`],
    ["Player", stats.player ?? format.UNKNOWN],
    ["Protocol", stats.lowLatency ? "LL-HLS" : "HLS"],
  ];
}

function linesOfWebRtc(stats: Stats, size: string): [label: string, value: string][] {
  const { link } = stats;
  const milliseconds = (value: number | null | undefined) => (value == null ? format.UNKNOWN : `${Math.round(value * 1000)} ms`);
  const freezes = link && link.freezes > 0 ? `${link.freezes} (${format.seconds(link.frozenFor)})` : "0";
  return [
    ["Latency", format.seconds(stats.latency, 2)],
    ["Round trip", milliseconds(link?.roundTrip)],
    ["Loss", link?.loss == null ? format.UNKNOWN : `${(100 * link.loss).toFixed(1)} %`],
    ["Jitter", milliseconds(link?.jitter)],
    ["Freezes", freezes],
    ["Stalls", String(stats.stalls)],
    ["Dropped", `${stats.droppedFrames} of ${stats.frames}`],
    ["Bitrate", format.bitrate(stats.bitrate)],
    ["Picture", size],
    ["Rendition", stats.renditionWords],
    ["Protocol", link?.protocol ? `WebRTC over ${link.protocol}` : "WebRTC"],
  ];
}
