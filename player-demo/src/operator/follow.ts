// Follows the events of the server for as long as the page is looked at: the server has few places for that.

import { type Event, EVENTS_ADDRESS, read } from "./events.ts";

/** A browser does not come again by itself after an answer that is an error. In milliseconds. */
const RETRY = 5000;

export interface FollowHandlers {
  onEvent(event: Event): void;
  /** Nodes or streams look otherwise than before. */
  onChange(): void;
  onState(state: "following" | "waiting"): void;
  /** The last event that is known; null if none is. */
  after(): number | null;
}

export class Follower {
  private source: EventSource | null = null;
  private timer: number | undefined;

  constructor(private readonly handlers: FollowHandlers) {
    document.addEventListener("visibilitychange", () => (document.hidden ? this.stop() : this.start()));
  }

  start(): void {
    this.stop();
    if (document.hidden) return;
    const after = this.handlers.after();
    const source = new EventSource(after === null ? EVENTS_ADDRESS : `${EVENTS_ADDRESS}?after=${after}`);
    this.source = source;
    source.addEventListener("open", () => this.handlers.onState("following"));
    source.addEventListener("message", ({ data }) => {
      const event = read(String(data));
      if (event) this.handlers.onEvent(event);
    });
    source.addEventListener("changed", () => this.handlers.onChange());
    source.addEventListener("error", () => {
      this.handlers.onState("waiting");
      if (source.readyState === EventSource.CLOSED) this.timer = window.setTimeout(() => this.start(), RETRY);
    });
  }

  private stop(): void {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }
}
