// One WHEP session (draft-ietf-wish-whep): asked for, watched over, and given back. Knows no element to show it in.

import { use as useIceServers } from "../ice-servers.ts";
import { type Link, Meter } from "./link.ts";
import type { Trouble } from "./route.ts";

export interface SessionEvents {
  /** The first picture is decoded. */
  onMedia(): void;
  /** Nothing comes, or it comes again: the broadcaster's doing, the session is kept. */
  onFlow(flows: boolean): void;
  /** Told once; the session is closed then. */
  onTrouble(trouble: Trouble): void;
  /** The server gave no answer at all. */
  onNoAnswer(): void;
}

/** What the stream has, by the server's word. */
export interface Expected {
  picture: boolean;
  sound: boolean;
}

/** How often the counters are read, in milliseconds: until there is a picture, and then. */
const READ_FIRST = 100;
const READ = 500;

/** Without anything new for this long it is told that nothing comes, in milliseconds. */
const STOPPED_AFTER = 1500;

/** A path that does not answer for this long is lost, after the browser has noticed it, in milliseconds. */
const DISCONNECTED_MAX = 3000;

/** What the answers without a session mean; all others are refusals. */
const TROUBLES: Record<number, Trouble> = { 404: "over", 405: "absent" };

export class WhepSession {
  /** Tracks come into it by and by. */
  readonly media = new MediaStream();
  link: Link | null = null;
  private readonly peer = new RTCPeerConnection();
  private readonly meter = new Meter();
  private readonly gone = new AbortController();
  /** Address of the session, once there is one. */
  private location: string | null = null;
  private wanted: string | null = null;
  private hasMedia = false;
  private shown = 0;
  private shownAt = performance.now();
  private flows = true;
  private readTimer: number | undefined;
  private lostTimer: number | undefined;
  private readonly deadline: number;

  /** `within`: milliseconds until the first picture. `not`: origins of nodes that are not taken; asked there, another may answer. */
  constructor(
    private readonly address: string,
    private readonly expected: Expected,
    within: number,
    private events: SessionEvents,
    private readonly not: ReadonlySet<string> = new Set(),
  ) {
    this.deadline = window.setTimeout(() => this.fail(this.peer.connectionState === "connected" ? "silent" : "unreachable"), within);
    this.peer.addEventListener("track", ({ track }) => this.media.addTrack(track));
    this.peer.addEventListener("connectionstatechange", () => this.onState());
    // A page that goes does not wait for answers.
    window.addEventListener("pagehide", () => this.leave(), { signal: this.gone.signal });
    void this.join();
  }

  /** Of the node that has the session; null before there is one. */
  get origin(): string | null {
    return this.location === null ? null : new URL(this.location).origin;
  }

  /** Whoever takes it over hears of it from now on. */
  tell(events: SessionEvents): void {
    this.events = events;
  }

  /** By the name of a rendition; null leaves it to the server. */
  pin(rendition: string | null): void {
    this.wanted = rendition;
    if (this.location === null) return;
    void this.request(this.location, "PATCH", "application/json", JSON.stringify({ rendition })).catch(() => this.events.onNoAnswer());
  }

  close(): void {
    if (this.gone.signal.aborted) return;
    this.gone.abort();
    for (const timer of [this.deadline, this.readTimer, this.lostTimer]) clearTimeout(timer);
    this.leave();
    this.peer.close();
  }

  private async join(): Promise<void> {
    try {
      const transceivers = (["video", "audio"] as const).map((kind) => this.peer.addTransceiver(kind, { direction: "recvonly" }));
      const offer = await this.peer.createOffer();
      const response = await this.request(this.address, "POST", "application/sdp", offer.sdp ?? "");
      if (response.status !== 201) return this.fail(TROUBLES[response.status] ?? "refused");
      this.location = new URL(response.headers.get("location") ?? "", response.url).href;
      if (this.gone.signal.aborted) return this.leave();
      if (this.origin !== null && this.not.has(this.origin)) return this.fail("refused");
      useIceServers(this.peer, response.headers.get("link"));
      await this.peer.setLocalDescription(offer);
      await this.peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
      const agreed = transceivers.map(({ currentDirection }) => currentDirection === "recvonly");
      // A part of the stream is not the stream: HLS has all of it.
      if ((this.expected.picture && !agreed[0]) || (this.expected.sound && !agreed[1])) return this.fail("refused");
      if (this.wanted !== null) this.pin(this.wanted);
      void this.read();
    } catch (error) {
      if (this.gone.signal.aborted) return;
      // `fetch` says so when there was no answer.
      if (error instanceof TypeError) this.events.onNoAnswer();
      this.fail("refused");
    }
  }

  private request(address: string, method: string, type: string, body: string): Promise<Response> {
    return fetch(address, { method, headers: { "Content-Type": type }, body, signal: this.gone.signal });
  }

  private leave(): void {
    // Without an answer the server finds out by itself.
    if (this.location !== null) void fetch(this.location, { method: "DELETE", keepalive: true }).catch(() => {});
    this.location = null;
  }

  private fail(trouble: Trouble): void {
    if (this.gone.signal.aborted) return;
    this.close();
    this.events.onTrouble(trouble);
  }

  private onState(): void {
    const state = this.peer.connectionState;
    clearTimeout(this.lostTimer);
    if (state === "failed" || state === "closed") this.fail(this.hasMedia ? "lost" : "unreachable");
    else if (state === "disconnected" && this.hasMedia) this.lostTimer = window.setTimeout(() => this.fail("lost"), DISCONNECTED_MAX);
  }

  private async read(): Promise<void> {
    const stats: RTCStats[] = [];
    (await this.peer.getStats()).forEach((stat: RTCStats) => stats.push(stat));
    if (this.gone.signal.aborted) return;
    const { link, counts } = this.meter.read(stats, this.expected.picture, Date.now());
    this.link = link;
    // A hidden page need not decode.
    this.watchFlow(document.hidden ? counts.packets : counts.shown);
    if (!this.hasMedia && counts.shown > 0) {
      this.hasMedia = true;
      clearTimeout(this.deadline);
      this.events.onMedia();
    }
    this.readTimer = window.setTimeout(() => void this.read(), this.hasMedia ? READ : READ_FIRST);
  }

  private watchFlow(shown: number): void {
    const now = performance.now();
    if (shown !== this.shown) [this.shown, this.shownAt] = [shown, now];
    const flows = now - this.shownAt < STOPPED_AFTER;
    if (!this.hasMedia || flows === this.flows) return;
    this.flows = flows;
    this.events.onFlow(flows);
  }
}
