// Drives a broadcast: does what `machine.ts` says, with a peer connection, WHIP and timers.

import { type Stream, type StreamName, streamAddress } from "../api.ts";
import { type Effect, type Event, type Fault, KEEP_TIMER, type Phase, START, step } from "./machine.ts";
import { type Hint, NoCodec, Sender, type Wishes } from "./sender.ts";
import { udpPort } from "./sdp.ts";
import { Refused, type Session, publish } from "./whip.ts";

/** For the server to say who is live, in milliseconds. */
const STATE_TIMEOUT = 5_000;

/** What is sent, and where to. */
export interface Programme {
  name: StreamName;
  key: string;
  media: MediaStream;
}

export class Broadcast {
  private phase: Phase = START;
  private programme: Programme | null = null;
  private sender: Sender | null = null;
  private session: Session | null = null;
  /** Where the server takes UDP. */
  private port: number | null = null;
  private timer: number | undefined;
  /** Of peer connections: what an older one reports is of no interest any more. */
  private generation = 0;

  constructor(
    private wishes: Wishes,
    private readonly onPhase: (phase: Phase) => void,
  ) {
    const changed = () => this.handle({ name: "network-changed" });
    window.addEventListener("online", changed);
    onNetworkType(changed);
  }

  get isOn(): boolean {
    return this.phase.name !== "idle";
  }

  start(programme: Programme): void {
    this.programme = programme;
    this.handle({ name: "go" });
  }

  stop(): void {
    this.handle({ name: "stop" });
  }

  /** Whether a track of this kind would be sent: a session has the kinds that it began with. */
  takes(kind: string): boolean {
    return this.sender?.sends(kind) ?? true;
  }

  async replace(track: MediaStreamTrack): Promise<void> {
    await this.sender?.replace(track);
    this.sender?.hint(this.wishes.hint);
  }

  hint(hint: Hint): void {
    this.wishes = { ...this.wishes, hint };
    this.sender?.hint(hint);
  }

  /** From the next session on: the sizes are in the offer. */
  layer(layered: boolean): void {
    this.wishes = { ...this.wishes, layered };
  }

  async limit(bitrateMax: number): Promise<void> {
    this.wishes = { ...this.wishes, bitrateMax };
    await this.sender?.limit(bitrateMax);
  }

  stats(): Promise<RTCStatsReport> | null {
    return this.phase.name === "idle" ? null : (this.sender?.peer.getStats() ?? null);
  }

  private handle(event: Event): void {
    const next = step(this.phase, event, this.port, Math.random());
    this.phase = next.phase;
    if (next.timer !== KEEP_TIMER) {
      clearTimeout(this.timer);
      if (next.timer !== null) this.timer = window.setTimeout(() => this.handle({ name: "timeout" }), next.timer);
    }
    for (const effect of next.effects) this.perform(effect);
    this.onPhase(this.phase);
  }

  private perform(effect: Effect): void {
    switch (effect) {
      case "publish":
        return void this.publish(this.phase.name === "connecting" && this.phase.attempt > 0);
      case "restart":
        return void this.restart();
      case "end":
        void this.session?.end();
        this.session = null;
        return;
      case "drop":
        this.generation += 1;
        this.sender?.close();
        // The session's address stays, to end it if nothing comes of another.
        this.sender = null;
    }
  }

  /** `again`: viewers know this broadcast, and others may have taken its name meanwhile. */
  private async publish(again: boolean): Promise<void> {
    const generation = ++this.generation;
    const current = () => generation === this.generation;
    const { programme } = this;
    if (!programme) return;
    try {
      // Where the newer publisher takes over, two that come back by themselves would take it from each other for ever.
      if (again && (await isLive(programme.name))) throw new Refused(409, "");
      if (!current()) return;
      const sender = new Sender(programme.media, this.wishes);
      this.sender = sender;
      sender.peer.addEventListener("connectionstatechange", () => {
        const { connectionState } = sender.peer;
        const told = connectionState === "connected" || connectionState === "disconnected" || connectionState === "failed";
        if (told && current()) this.handle({ name: connectionState });
      });
      const { session, answer, link } = await publish(programme.name, programme.key, await sender.offer());
      // Stopped meanwhile: the server must not wait for it, and the name is free again.
      if (!current()) return void session.end();
      this.session = session;
      this.port = udpPort(answer);
      this.handle({ name: "answered" });
      await sender.begin(answer, link);
      // The server says goodbye: when it stops, or has another publisher. ICE would notice after seven seconds.
      const transport = sender.peer.getSenders()[0]?.transport;
      transport?.addEventListener("statechange", () => {
        if (transport.state === "closed" && current()) this.handle({ name: "fault", fault: { kind: "lost" } });
      });
    } catch (error) {
      if (current()) this.handle({ name: "fault", fault: faultOf(error) });
    }
  }

  private async restart(): Promise<void> {
    const { generation, sender, session } = this;
    try {
      if (!sender || !session) return;
      await sender.restart((fragment) => session.restart(fragment));
      // The browser may have been connected all the time, and has nothing to tell then.
      if (generation === this.generation && sender.peer.connectionState === "connected") this.handle({ name: "connected" });
    } catch (error) {
      // Without an answer the network may be on its way: the timer decides. A session that is gone does not come back.
      if (generation === this.generation && error instanceof Refused) this.handle({ name: "fault", fault: faultOf(error) });
    }
  }
}

async function isLive(name: StreamName): Promise<boolean> {
  const response = await fetch(streamAddress(name), { cache: "no-store", signal: AbortSignal.timeout(STATE_TIMEOUT) });
  return response.ok && ((await response.json()) as Stream).state === "live";
}

/** From Wi-Fi to the mobile network, without waiting for silence: Chrome tells on phones (Network Information API). */
function onNetworkType(changed: () => void): void {
  const { connection } = navigator as Navigator & { connection?: EventTarget & { type?: string } };
  let type = connection?.type;
  // It tells of every new guess at the speed, too.
  connection?.addEventListener("change", () => {
    if (connection.type === type) return;
    type = connection.type;
    if (navigator.onLine) changed();
  });
}

function faultOf(error: unknown): Fault {
  if (error instanceof Refused) return { kind: "refused", status: error.status, words: error.words };
  if (error instanceof NoCodec) return { kind: "no-codec" };
  return { kind: "unreachable" };
}
