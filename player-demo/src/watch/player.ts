// The ways to play a stream behind one face, and two of them: hls.js on Media Source Extensions, and the browser's own HLS.

import Hls, {
  type ErrorData, ErrorDetails, ErrorTypes, Events, type FragLoadedData, type HlsConfig, type Level, type RetryConfig,
} from "hls.js";
import workerAddress from "hls.js/dist/hls.worker.js";
import type { Stream } from "../api.ts";
import { codecName } from "../format.ts";
import { CAPTIONS_NAMES, LiveCaptions } from "./captions.ts";
import { textAt, warm } from "./cold.ts";
import type { Link } from "./link.ts";
import { nextMove } from "./live-edge.ts";
import { Place } from "./place.ts";
import { type Choice, NOTHING, type Offer, type Rendition, filtered, nearest, ofHeight, offerOf, readMultivariant } from "./quality.ts";
import { Requests, onOrigin } from "./requests.ts";
import { Seam } from "./seam.ts";
import { Standstill } from "./standstill.ts";

export type PlayerKind = HlsKind | "webrtc";
export type HlsKind = "hls.js" | "native";

export interface PlayerEvents {
  /** The player will not come back by itself. */
  onFailure(detail: string): void;
  /** A request got no answer at all: the server may be gone. */
  onNoAnswer(): void;
  /** What comes does not go on with what plays, although it is the same programme: it has to be opened anew. */
  onOther(): void;
  /** The browser has no decoder for this stream. */
  onUnsupported(): void;
  /** What was chosen, and had to be made first, is there, and is turned to. */
  onMade(): void;
}

export interface Player {
  readonly kind: PlayerKind;
  readonly hls: Hls | null;
  readonly meter: BitrateMeter | null;
  /** Of a session by WebRTC. */
  readonly link: Link | null;
  /** Parts fetched on their own: above 0, low-latency mode is really in use. */
  readonly partsLoaded: number;
  /** What there is to choose from; nothing until a playlist has told it. */
  readonly offer: Offer;
  /** The rendition on the screen. */
  shown(): Rendition | null;
  /** Whether that is what was chosen, as far as the player lets us see. */
  isOnChoice(): boolean;
  /** Takes up another choice without an interruption; false if only a player opened anew can. */
  choose(choice: Choice): boolean;
  /** Seconds between the broadcaster's clock and the picture, by PROGRAM-DATE-TIME. */
  clockLatency(): number | null;
  /** Seconds behind the end of the playlist, and where the playlist asks to be. */
  edgeLatency(): number | null;
  targetLatency(): number | null;
  /**
   * Called a few times a second while the viewer wants to be at the live edge. `broadcasting`: there is something to see
   * there.
   */
  keepUp(broadcasting: boolean): void;
  goLive(): void;
  /**
   * Goes on with the same at the node of this origin; false if only a player opened anew can. `answers`: the one before it does,
   * so that there is time.
   */
  moveTo(origin: string, answers: boolean): boolean;
  destroy(): void;
}

/**
 * hls.js wherever it can run (Media Source Extensions or Managed Media Source), even where the browser says it can
 * play HLS itself: Chromium's own HLS takes no part in low latency and reports no errors. `wanted` comes from
 * `?player=` and is for tests and support.
 */
export function choosePlayer(wanted: string | null, can: { mse: boolean; native: boolean }): HlsKind | null {
  if (wanted === "native" && can.native) return "native";
  if (can.mse) return "hls.js";
  return can.native ? "native" : null;
}

export function supportedHere(video: HTMLVideoElement): { mse: boolean; native: boolean } {
  return { mse: Hls.isSupported(), native: video.canPlayType("application/vnd.apple.mpegurl") !== "" };
}

/** Everyday names of the codecs of a stream that Media Source Extensions here have no decoder for. */
export function codecsLacking(stream: Stream | null): string[] {
  const source = (window as { ManagedMediaSource?: typeof MediaSource }).ManagedMediaSource ?? window.MediaSource;
  const codecs = [stream?.video, stream?.audio].flatMap((track) => track?.codec ?? []);
  const lacking = codecs.filter((codec) => !source?.isTypeSupported(`video/mp4; codecs="${codec}"`));
  return (lacking.length > 0 ? lacking : codecs).map(codecName);
}

/** `again` is the mark of what is asked for again; the browser's own HLS knows no such thing. */
export function openPlayer(
  kind: HlsKind, video: HTMLVideoElement, playlist: string, again: number | null, choice: Choice, events: PlayerEvents,
): Player {
  if (kind === "native") return new NativePlayer(video, playlist, choice, events);
  return new HlsPlayer(video, playlist, new Requests(again), choice, events);
}

/** What the playlist offers without a filter; for a player that does not say, or was told only of the sound. */
async function offerAt(playlist: string): Promise<Offer> {
  try {
    const response = await fetch(playlist);
    return response.ok ? readMultivariant(await response.text()) : NOTHING;
  } catch {
    // The player has asked the same server, and reports it.
    return NOTHING;
  }
}

/**
 * The page asks other nodes by itself, of any port, and knows from the state of the stream when to. `undefined` is what hls.js
 * takes for none, and its types do not.
 */
const NO_STEERING = { contentSteeringController: undefined } as unknown as Partial<HlsConfig>;

/** When these are used up the page says so and starts over, with pauses that grow. */
const A_FEW: RetryConfig = { maxNumRetry: 4, retryDelayMs: 250, maxRetryDelayMs: 2000, backoff: "exponential" };
const FOREVER: RetryConfig = { ...A_FEW, maxNumRetry: Number.POSITIVE_INFINITY };

/** A rendition that had a gap is tried again by Auto after so many milliseconds, if it is the one that fits. */
const AVOIDED_FOR = 10_000;

/** One that had nothing but gaps is asked for so many parts, which is 8 s, and tried again as soon as it has media. */
const QUESTIONS_MAX = 16;

/** Whether it is or not, another node is moved to after that, in milliseconds. */
const READY_WITHIN = 2000;

const LACKS_A_DECODER = [
  ErrorDetails.MANIFEST_INCOMPATIBLE_CODECS_ERROR,
  ErrorDetails.BUFFER_INCOMPATIBLE_CODECS_ERROR,
  ErrorDetails.BUFFER_ADD_CODEC_ERROR,
];

class HlsPlayer implements Player {
  readonly kind = "hls.js";
  readonly hls: Hls;
  readonly meter = new BitrateMeter();
  readonly link = null;
  partsLoaded = 0;
  offer = NOTHING;
  /** Index of a level; -1 leaves it to hls.js. */
  private wanted = -1;
  /** Set until the wanted level has media: before that there is nothing to turn to. */
  private asking: AbortController | null = null;
  /** Levels that Auto has found cold, and has asked for. */
  private readonly warming = new Set<Level>();
  private recoveredAt = Number.NEGATIVE_INFINITY;
  /** Where a gap ends that playing would begin in; null once something behind it is there. */
  private gapAtBegin: number | null = null;
  private readonly standstill = new Standstill();
  /** Origin of the node that was moved to last, or is about to be. */
  private movingTo: string | null = null;
  private readonly seam = new Seam();
  private readonly place = new Place();
  private isOther = false;
  /** Aborted when the player is. */
  private readonly gone = new AbortController();

  constructor(
    private readonly video: HTMLVideoElement,
    playlist: string,
    private readonly requests: Requests,
    private choice: Choice,
    private readonly events: PlayerEvents,
  ) {
    this.hls = new Hls({
      lowLatencyMode: true,
      // A gap in all renditions is no reason to forget what was chosen; `Patience` is for one that does not come back.
      preserveManualLevelOnError: true,
      errorPenaltyExpireMs: AVOIDED_FOR,
      workerPath: workerAddress,
      loader: this.requests.loader as HlsConfig["loader"],
      pLoader: this.seam.loader(this.requests.loader),
      xhrSetup: this.requests.setup,
      abrController: this.seam.abr,
      timelineController: LiveCaptions,
      ...NO_STEERING,
      ...CAPTIONS_NAMES,
      // Live only: what is behind the picture is of no use, and what is ahead cannot be much.
      backBufferLength: 10,
      maxBufferLength: 10,
      maxMaxBufferLength: 20,
      liveDurationInfinity: true,
      // Catching up is `keepUp`'s business; a stall costs a quarter of a second of latency, not a whole one.
      maxLiveSyncPlaybackRate: 1,
      liveSyncOnStallIncrease: 0.25,
      // A part is small against the round trip, so the first estimates say little; a good start is worth more.
      abrEwmaDefaultEstimate: 3_000_000,
      // Whether the stream is still there is for the server's state to say: as long as it says live, go on asking.
      playlistLoadPolicy: {
        default: { maxTimeToFirstByteMs: 10_000, maxLoadTimeMs: 20_000, timeoutRetry: FOREVER, errorRetry: FOREVER },
      },
      manifestLoadPolicy: {
        default: { maxTimeToFirstByteMs: 5000, maxLoadTimeMs: 10_000, timeoutRetry: A_FEW, errorRetry: A_FEW },
      },
      fragLoadPolicy: {
        default: { maxTimeToFirstByteMs: 5000, maxLoadTimeMs: 20_000, timeoutRetry: A_FEW, errorRetry: A_FEW },
      },
    });
    this.hls.on(Events.ERROR, (_, error) => this.onError(error));
    this.hls.on(Events.FRAG_LOADED, (_, loaded) => this.onLoaded(loaded));
    this.hls.on(Events.BUFFER_APPENDED, (_, appended) => {
      if (this.seam.appended(appended, this.hls.latestLevelDetails)) this.turn();
    });
    this.hls.on(Events.LEVEL_UPDATED, (_, { details }) => {
      if (this.place.updated(details)) this.beginBehindGap();
      else this.sayOther();
    });
    if (choice === "audio") void offerAt(playlist).then((offer) => (this.offer = offer));
    else {
      this.hls.on(Events.MANIFEST_PARSED, (_, { levels, audioTracks }) => {
        this.onLevels(levels, audioTracks.some(({ url }) => url !== ""));
      });
      this.hls.on(Events.LEVELS_UPDATED, (_, { levels }) => this.onLevels(levels, this.offer.audioOnly));
    }
    this.hls.loadSource(new URL(filtered(playlist, choice, false), location.href).href);
    this.hls.attachMedia(video);
  }

  shown(): Rendition | null {
    if (this.choice === "audio") return null;
    const level = this.hls.levels[this.hls.currentLevel];
    // hls.js learns of a switch a little after the screen.
    const late = level?.height !== this.video.videoHeight ? ofHeight(this.offer, this.video.videoHeight) : null;
    return late ?? (level ? renditionOf(level) : null);
  }

  isOnChoice(): boolean {
    if (typeof this.choice !== "number") return true;
    return this.shown()?.height === nearest(this.offer.renditions, this.choice)?.height;
  }

  choose(choice: Choice): boolean {
    // The picture and the sound alone are two playlists.
    if (choice === "audio" || this.choice === "audio") return choice === this.choice;
    this.choice = choice;
    this.apply();
    return true;
  }

  /** Levels come with the playlist, and go when hls.js can do nothing with one. */
  private onLevels(levels: Level[], audioOnly: boolean): void {
    this.offer = offerOf(levels.map(renditionOf), audioOnly);
    this.apply();
  }

  private apply(): void {
    const chosen = typeof this.choice === "number" ? nearest(this.offer.renditions, this.choice) : null;
    const level = this.hls.levels.findIndex((level) => {
      const { height, bitrate } = renditionOf(level);
      return height === chosen?.height && bitrate === chosen.bitrate;
    });
    // Nothing new, while it is asked for.
    if (level === this.wanted && this.asking !== null) return;
    this.wanted = level;
    this.asking?.abort();
    this.asking = null;
    // Auto is free to go on with what it has.
    if (level < 0 || this.hls.latestLevelDetails === null) this.turn();
    else if (level !== this.hls.manualLevel) void this.ask(level);
  }

  private async ask(level: number): Promise<void> {
    const asking = new AbortController();
    this.asking = asking;
    const address = this.hls.levels[level]?.uri ?? "";
    const isMade = await warm((query) => textAt(this.requests.at(address + query), asking.signal), asking.signal);
    if (this.asking !== asking) return;
    this.asking = null;
    if (isMade) this.events.onMade();
  }

  /** To the wanted level, unless it is made on demand and has no media yet. */
  private turn(): void {
    if (this.asking === null && this.wanted !== this.hls.manualLevel) this.hls.loadLevel = this.wanted;
  }

  clockLatency(): number | null {
    const shown = this.hls.playingDate;
    return shown ? (Date.now() - shown.getTime()) / 1000 : null;
  }

  edgeLatency(): number | null {
    return this.hls.latency > 0 ? this.hls.latency : null;
  }

  targetLatency(): number | null {
    return this.hls.targetLatency;
  }

  keepUp(broadcasting: boolean): void {
    if (broadcasting && this.hls.autoLevelEnabled) this.leaveGap();
    if (this.video.paused) this.standstill.reset();
    else if (this.goOn(broadcasting)) return;
    const latency = this.edgeLatency();
    const target = this.targetLatency();
    if (latency === null || target === null || this.video.paused || this.video.seeking) return;
    const partTarget = this.hls.latestLevelDetails?.partTarget || null;
    const move = nextMove({ latency, target, bufferAhead: bufferAhead(this.video), partTarget }, this.video.playbackRate);
    if (move.type === "jump") this.goLive();
    else if (this.video.playbackRate !== move.rate) this.video.playbackRate = move.rate;
  }

  /**
   * Another rendition may have what is missing. hls.js 1.7.4 tries one, too, but only seconds after the first part that is a
   * gap: with what is buffered at the live edge, the picture stands still before that.
   */
  private leaveGap(): void {
    const { levels, loadLevel, currentLevel } = this.hls;
    const level = levels[loadLevel];
    const parts = level?.details?.partList;
    if (!level || !parts?.at(-1)?.gap) return;
    const isCold = parts.every(({ gap }) => gap);
    if (isCold) {
      void this.warmForAuto(level);
      // It has just been asked for, and others would have to be, too.
      if (this.video.readyState === HTMLMediaElement.HAVE_NOTHING) return;
    }
    const now = performance.now();
    level.loadError += 1;
    level.loadErrorTime = now;
    const free = ({ loadError, loadErrorTime }: Level) => loadError === 0 || now - loadErrorTime > AVOIDED_FOR;
    // A smaller one, which the network carries, before a larger one. hls.js has them sorted by bitrate.
    const others = levels.flatMap((other, i) => (i !== loadLevel && free(other) ? [i] : []));
    const smaller = others.filter((i) => i < loadLevel).at(-1) ?? others[0];
    // The one on the screen is surely made.
    const next = isCold && others.includes(currentLevel) ? currentLevel : smaller;
    if (next !== undefined) this.hls.nextAutoLevel = next;
  }

  /** Auto comes back to a level that is made on demand once it has media. */
  private async warmForAuto(level: Level): Promise<void> {
    if (this.warming.has(level)) return;
    this.warming.add(level);
    const { signal } = this.gone;
    if (await warm((query) => textAt(this.requests.at(level.uri + query), signal), signal, QUESTIONS_MAX)) level.loadError = 0;
    this.warming.delete(level);
  }

  /** Whether a picture that stood still was helped. */
  private goOn(broadcasting: boolean): boolean {
    const { currentTime: position, buffered: ranges } = this.video;
    const buffered = Array.from({ length: ranges.length }, (_, i) => [ranges.start(i), ranges.end(i)] as const);
    const target = broadcasting ? this.hls.liveSyncPosition : null;
    const onward = this.standstill.wayOn(performance.now(), { position, buffered, target });
    if (onward !== null) this.video.currentTime = onward;
    return onward !== null;
  }

  goLive(): void {
    const position = this.hls.liveSyncPosition;
    if (position !== null) this.video.currentTime = position;
  }

  moveTo(origin: string, answers: boolean): boolean {
    void this.move(origin, answers);
    return true;
  }

  private async move(origin: string, answers: boolean): Promise<void> {
    this.movingTo = origin;
    if (answers) await this.isReady(origin);
    if (this.movingTo !== origin || this.gone.signal.aborted) return;
    this.requests.moveTo(origin);
    if (!answers) this.requests.askAnew();
  }

  /** A node where nobody watches has to fetch the stream first. */
  private async isReady(origin: string): Promise<void> {
    const level = this.hls.levels[this.hls.loadLevel];
    if (!level) return;
    const asking = new AbortController();
    const timer = window.setTimeout(() => asking.abort(), READY_WITHIN);
    await textAt(onOrigin(level.uri, origin), asking.signal).catch(() => "");
    clearTimeout(timer);
  }

  destroy(): void {
    this.asking?.abort();
    this.gone.abort();
    this.hls.destroy();
    this.video.playbackRate = 1;
  }

  private onLoaded({ frag, part }: FragLoadedData): void {
    if (part) this.partsLoaded += 1;
    const { stats, duration } = part ?? frag;
    this.meter.add(frag.type, stats.loaded, duration);
  }

  /**
   * hls.js 1.7.4 goes on behind a gap that it would begin in, with the picture and not with the sound: that waits for a
   * picture from before the gap, for ever if the first segment behind it is still open.
   */
  private beginBehindGap(): void {
    // What plays must not be loaded anew.
    if (this.video.readyState !== HTMLMediaElement.HAVE_NOTHING) this.gapAtBegin = null;
    const end = this.gapAtBegin;
    const onward = end !== null && this.hls.latestLevelDetails?.partList?.find(({ start, gap }) => !gap && start > end - 0.01);
    if (!onward) return;
    this.gapAtBegin = null;
    // Not while hls.js is in the middle of it.
    queueMicrotask(() => this.hls.startLoad(onward.start));
  }

  /** Once: hls.js may find it out as well, and goes on with the playlist for all that. */
  private sayOther(): void {
    if (!this.isOther) this.events.onOther();
    this.isOther = true;
  }

  private onError(error: ErrorData): void {
    if (error.details === ErrorDetails.FRAG_GAP && error.frag?.type === "main") {
      this.gapAtBegin = error.frag.end;
      this.beginBehindGap();
    }
    const unanswered = error.type === ErrorTypes.NETWORK_ERROR && error.response?.code === 0;
    if (unanswered) this.events.onNoAnswer();
    // Addresses or discontinuities are not those of the same segments before.
    if (error.details === ErrorDetails.LEVEL_PARSING_ERROR && this.place.isKnown) return this.sayOther();
    if (!error.fatal) return;
    // A media error by its type, but nothing to recover from.
    if (LACKS_A_DECODER.includes(error.details)) return this.events.onUnsupported();
    // hls.js asks to try this once for a media error; a second one soon after means it does not help.
    const now = performance.now();
    if (error.type === ErrorTypes.MEDIA_ERROR && now - this.recoveredAt > 10_000) {
      this.recoveredAt = now;
      this.hls.recoverMediaError();
      return;
    }
    this.events.onFailure(`${error.details}${error.response?.code ? ` (HTTP ${error.response.code})` : ""}`);
  }
}

/** hls.js has 0 for what the playlist does not say. */
function renditionOf({ width, height, averageBitrate, bitrate, frameRate }: Level): Rendition {
  return { width, height, bitrate: averageBitrate || bitrate, frameRate: frameRate || null };
}

class NativePlayer implements Player {
  readonly kind = "native";
  readonly hls = null;
  readonly meter = null;
  readonly link = null;
  readonly partsLoaded = 0;
  offer = NOTHING;

  constructor(
    private readonly video: HTMLVideoElement,
    playlist: string,
    private readonly choice: Choice,
    private readonly events: PlayerEvents,
  ) {
    video.addEventListener("error", this.onError);
    video.src = filtered(playlist, choice, true);
    void offerAt(playlist).then((offer) => (this.offer = offer));
  }

  shown(): Rendition | null {
    return ofHeight(this.offer, this.video.videoHeight);
  }

  /** A greatest height is all that it can be told. */
  isOnChoice(): boolean {
    return true;
  }

  choose(choice: Choice): boolean {
    return choice === this.choice;
  }

  clockLatency(): number | null {
    // Safari only; an invalid date when the playlist has no PROGRAM-DATE-TIME.
    const video = this.video as HTMLVideoElement & { getStartDate?: () => Date };
    const start = video.getStartDate?.().getTime() ?? Number.NaN;
    return Number.isFinite(start) ? (Date.now() - start) / 1000 - this.video.currentTime : null;
  }

  edgeLatency(): number | null {
    const { seekable, currentTime } = this.video;
    return seekable.length > 0 ? seekable.end(seekable.length - 1) - currentTime : null;
  }

  targetLatency(): number | null {
    return null;
  }

  /** The browser looks after that itself. */
  keepUp(): void {}

  goLive(): void {
    const { seekable } = this.video;
    if (seekable.length > 0) this.video.currentTime = seekable.end(seekable.length - 1);
  }

  /** The browser asks by itself. */
  moveTo(): boolean {
    return false;
  }

  destroy(): void {
    this.video.removeEventListener("error", this.onError);
    this.video.removeAttribute("src");
    this.video.load();
  }

  private readonly onError = (): void => {
    this.events.onFailure(this.video.error?.message || "the browser could not play it");
  };
}

/** Bits per second of what was really loaded, over about the last ten seconds of media. */
export class BitrateMeter {
  private readonly loads = new Map<string, { bytes: number; duration: number }[]>();

  add(track: string, bytes: number, duration: number): void {
    const loads = this.loads.get(track) ?? [];
    loads.push({ bytes, duration });
    while (loads.length > 1 && sum(loads, "duration") - (loads[0]?.duration ?? 0) >= 10) loads.shift();
    this.loads.set(track, loads);
  }

  /** All tracks together; null before anything was loaded. */
  bitsPerSecond(): number | null {
    let total = 0;
    for (const loads of this.loads.values()) {
      const duration = sum(loads, "duration");
      if (duration > 0) total += (sum(loads, "bytes") * 8) / duration;
    }
    return total > 0 ? total : null;
  }
}

function sum<K extends string>(items: Record<K, number>[], key: K): number {
  return items.reduce((total, item) => total + item[key], 0);
}

export function bufferAhead(video: HTMLVideoElement): number {
  const { buffered, currentTime } = video;
  for (let i = 0; i < buffered.length; i += 1) {
    // A hole this small is stepped over by the player.
    if (buffered.start(i) <= currentTime + 0.1 && buffered.end(i) > currentTime) return buffered.end(i) - currentTime;
  }
  return 0;
}
