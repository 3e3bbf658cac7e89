// One player for the stage, whatever plays: WebRTC where that is wanted and works, else HLS.

import type { Layer } from "../api.ts";
import { captionsShow } from "./captions.ts";
import type { Link } from "./link.ts";
import { type HlsKind, type Player, type PlayerEvents, type PlayerKind, openPlayer } from "./player.ts";
import type { Choice, Offer, Rendition } from "./quality.ts";
import { onOrigin } from "./requests.ts";
import { CLIMB_WITHIN, FIRST_PICTURE_WITHIN, type Route, type Trouble } from "./route.ts";
import { WebRtcPlayer } from "./webrtc-player.ts";
import { type Expected, type SessionEvents, WhepSession } from "./whep.ts";

/** Where the stream is, in both ways, and what it has. */
export interface Source extends Expected {
  playlist: string;
  /** The mark under which it is asked for by HLS; null if there is none. */
  again: number | null;
  whep: string;
  /** Sizes that the broadcaster sends at once, as they are known by now; none where it is one. */
  layers: () => readonly Layer[];
}

export interface RoutedEvents extends PlayerEvents {
  /** Another player has taken over the element, which is to be played anew. */
  onTurned(): void;
  /** Nothing comes at the moment, or it comes again, and the element does not say so itself. */
  onFlow(flows: boolean): void;
  /** There is no more to come. */
  onEnded(): void;
}

/** In milliseconds. */
const MOVE_AGAIN_AFTER = 60_000;

export class RoutedPlayer implements Player {
  private inner: Player;
  /** On its way while HLS plays, or a session of another node. */
  private coming: WhepSession | null = null;
  /** Origins of nodes that were moved away from while they answer: a session that is still there is to be left. */
  private readonly left = new Set<string>();
  /** Where there was no room, that is not asked for again before, in milliseconds. */
  private moveAt = Number.NEGATIVE_INFINITY;
  /** A session that was lost is asked for once more. */
  private retries = false;

  constructor(
    private readonly video: HTMLVideoElement,
    private source: Source,
    private readonly fallback: HlsKind,
    private choice: Choice,
    private readonly route: Route,
    private readonly events: RoutedEvents,
  ) {
    const canByWebRtc = choice !== "audio" && "RTCPeerConnection" in window;
    this.inner = canByWebRtc && route.first(source.whep, performance.now()) === "webrtc" ? this.byWebRtc() : this.byHls();
  }

  private byHls(): Player {
    const { playlist, again } = this.source;
    return openPlayer(this.fallback, this.video, playlist, again, this.choice, this.events);
  }

  private byWebRtc(): Player {
    const session = new WhepSession(this.source.whep, this.source, FIRST_PICTURE_WITHIN, this.whilePlaying());
    return new WebRtcPlayer(this.video, session, this.source, this.choice);
  }

  private whilePlaying(): SessionEvents {
    return {
      onMedia: () => {
        this.retries = false;
        this.route.worked(performance.now());
      },
      onFlow: (flows) => this.events.onFlow(flows),
      onNoAnswer: () => this.events.onNoAnswer(),
      onTrouble: (trouble) => this.onTrouble(trouble),
    };
  }

  private onTrouble(trouble: Trouble): void {
    this.coming?.close();
    this.coming = null;
    const next = this.route.failed(trouble, this.source.whep, performance.now());
    // What was here a moment ago, and is no stream any more: its last seconds have been seen.
    if (trouble === "over" && this.retries) return this.events.onEnded();
    this.retries = next === "webrtc";
    // The stream may have ended, or its server be gone.
    if (this.retries) this.events.onNoAnswer();
    this.turn(() => (next === "webrtc" ? this.byWebRtc() : this.byHls()));
  }

  private turn(open: () => Player): void {
    this.inner.destroy();
    this.inner = open();
    this.events.onTurned();
  }

  private climb(): void {
    this.prepare(new Set(), (trouble) => this.route.failed(trouble, this.source.whep, performance.now()));
  }

  /** A session to be turned to when it has a picture, of any node whose origin is not in `not`. */
  private prepare(not: ReadonlySet<string>, onTrouble: (trouble: Trouble) => void): void {
    const session = new WhepSession(this.source.whep, this.source, CLIMB_WITHIN, {
      onMedia: () => {
        this.coming = null;
        session.tell(this.whilePlaying());
        this.route.worked(performance.now());
        this.turn(() => new WebRtcPlayer(this.video, session, this.source, this.choice));
      },
      onFlow: () => {},
      // What plays finds out as well.
      onNoAnswer: () => {},
      onTrouble: (trouble) => {
        this.coming = null;
        onTrouble(trouble);
      },
    }, not);
    this.coming = session;
  }

  // The player there is

  get kind(): PlayerKind {
    return this.inner.kind;
  }
  get hls(): Player["hls"] {
    return this.inner.hls;
  }
  get meter(): Player["meter"] {
    return this.inner.meter;
  }
  get partsLoaded(): number {
    return this.inner.partsLoaded;
  }
  get offer(): Offer {
    return this.inner.offer;
  }
  get link(): Link | null {
    return this.inner.link;
  }

  shown(): Rendition | null {
    return this.inner.shown();
  }

  isOnChoice(): boolean {
    return this.inner.isOnChoice();
  }

  choose(choice: Choice): boolean {
    this.choice = choice;
    return this.inner.choose(choice);
  }

  clockLatency(): number | null {
    return this.inner.clockLatency();
  }

  edgeLatency(): number | null {
    return this.inner.edgeLatency();
  }

  targetLatency(): number | null {
    return this.inner.targetLatency();
  }

  keepUp(broadcasting: boolean): void {
    const playsByHls = this.inner.kind !== "webrtc" && this.choice !== "audio" && this.coming === null;
    const isWatched = broadcasting && !this.video.paused && !document.hidden && "RTCPeerConnection" in window;
    // Which a session does not have.
    const reads = captionsShow(this.video);
    if (playsByHls && isWatched && !reads && this.route.isTimeToClimb(this.source.whep, performance.now())) this.climb();
    this.leave();
    this.inner.keepUp(broadcasting);
  }

  goLive(): void {
    this.inner.goLive();
  }

  moveTo(origin: string, answers: boolean): boolean {
    const { playlist, whep } = this.source;
    if (answers) this.left.add(new URL(whep, location.href).origin);
    this.left.delete(origin);
    this.moveAt = Number.NEGATIVE_INFINITY;
    this.source = { ...this.source, playlist: onOrigin(playlist, origin), whep: onOrigin(whep, origin) };
    // A session of a node that is gone is no longer one.
    return this.inner.kind === "webrtc" ? answers : this.inner.moveTo(origin, answers);
  }

  private leave(): void {
    const now = performance.now();
    const at = this.inner instanceof WebRtcPlayer ? this.inner.session.origin : null;
    if (at === null || !this.left.has(at) || this.coming !== null || this.video.paused || now < this.moveAt) return;
    this.moveAt = now + MOVE_AGAIN_AFTER;
    // Whom it asks may send it to another one that has room. If there is none, or it fails, the session here goes on.
    this.prepare(this.left, () => {});
  }

  destroy(): void {
    this.coming?.close();
    this.inner.destroy();
  }
}
