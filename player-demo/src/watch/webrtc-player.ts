// Plays a WHEP session in the page's video element.

import type { Layer } from "../api.ts";
import type { Link } from "./link.ts";
import type { Player } from "./player.ts";
import { type Choice, NOTHING, type Rendition, nearest, ofHeight, readForWebRtc } from "./quality.ts";
import type { WhepSession } from "./whep.ts";

export class WebRtcPlayer implements Player {
  readonly kind = "webrtc";
  readonly hls = null;
  readonly meter = null;
  readonly partsLoaded = 0;
  offer = NOTHING;
  /** By height. */
  private names = new Map<number, string>();

  constructor(
    private readonly video: HTMLVideoElement,
    readonly session: WhepSession,
    source: { playlist: string; layers: () => readonly Layer[] },
    private choice: Choice,
  ) {
    video.srcObject = session.media;
    void this.learn(source);
  }

  get link(): Link | null {
    return this.session.link;
  }

  /** What there is to choose from: sizes that the broadcaster sends, or what the playlist tells. */
  private async learn({ playlist, layers }: { playlist: string; layers: () => readonly Layer[] }): Promise<void> {
    const text = await fetch(playlist).then(
      (response) => (response.ok ? response.text() : ""),
      () => "",
    );
    ({ offer: this.offer, names: this.names } = readForWebRtc(text, layers()));
    if (this.choice !== "auto") this.pin();
  }

  shown(): Rendition | null {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (height === 0) return null;
    return ofHeight(this.offer, height) ?? { width, height, bitrate: this.link?.bitrate ?? 0, frameRate: null };
  }

  isOnChoice(): boolean {
    if (typeof this.choice !== "number") return true;
    const chosen = nearest(this.offer.renditions, this.choice);
    return chosen === null || chosen.height === this.video.videoHeight;
  }

  choose(choice: Choice): boolean {
    // Sound alone is a playlist.
    if (choice === "audio") return false;
    this.choice = choice;
    this.pin();
    return true;
  }

  private pin(): void {
    const chosen = typeof this.choice === "number" ? nearest(this.offer.renditions, this.choice) : null;
    this.session.pin(chosen ? (this.names.get(chosen.height) ?? null) : null);
  }

  clockLatency(): number | null {
    return this.link?.latency ?? null;
  }

  /** There is no playlist to be behind of: what comes is shown. */
  edgeLatency(): number | null {
    return null;
  }

  targetLatency(): number | null {
    return null;
  }

  keepUp(): void {}

  goLive(): void {}

  /** `RoutedPlayer` does. */
  moveTo(): boolean {
    return false;
  }

  destroy(): void {
    this.session.close();
    this.video.srcObject = null;
  }
}
