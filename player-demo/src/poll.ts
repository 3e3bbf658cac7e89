// Asks the server for state again and again: quickly while something is about to change, slowly while a stream
// plays, not at all in a hidden tab where nothing plays, and ever more rarely the longer the server does not answer.

/** How often to ask, in milliseconds. */
export const POLL_WAITING = 1000;
export const POLL_PLAYING = 5000;
const POLL_FAILING_MAX = 5000;

/** A poll that hangs must not stop the page from noticing that the server is back. */
const ANSWER_TIMEOUT = 8000;

/**
 * The pause before the next poll. It grows with how long the server has given no answer, however often it was asked: a
 * short restart is not waited for much longer than it took. Spread by ±25 %, so that a whole audience does not come back
 * in the same moment. `failingFor` in milliseconds, null if it answers; `random` is in 0…1.
 */
export function pollDelay(settled: boolean, failingFor: number | null, random: number): number {
  if (failingFor === null) return settled ? POLL_PLAYING : POLL_WAITING;
  return spread(Math.min(POLL_FAILING_MAX, Math.max(POLL_WAITING, failingFor)), random);
}

/** `first`, then doubled with each further failure up to `max`, each spread by ±25 %. */
export function backoff(first: number, max: number, failures: number, random: number): number {
  return spread(Math.min(max, first * 2 ** (failures - 1)), random);
}

function spread(pause: number, random: number): number {
  return Math.round(pause * (0.75 + random / 2));
}

export interface PollHandlers<T> {
  /** Called for every answer, also when it says the same as the last; `serverTime` is in Unix milliseconds. */
  onAnswer(answer: T, serverTime: number): void;
  /** The server answered with this status and these words, or (null) not at all. */
  onFailure(status: number | null, words: string): void;
  /** Nothing is expected to change soon. */
  settled(): boolean;
  /** In a hidden tab there is something that needs the answers. Looked at again and again; without it there never is. */
  wantedHidden?(): boolean;
  /** Sent with each question. */
  headers?(): Record<string, string>;
}

type Outcome<T> = { answer: T; serverTime: number } | { status: number | null; words: string };

export class Poller<T> {
  /** The last answer and its ETag; a 304 from the same address stands for it. */
  private last: { address: string; etag: string; answer: T } | null = null;
  /** By `performance.now()`; null while it answers. */
  private failingSince: number | null = null;
  private timer: number | undefined;
  private asking = false;
  /** `now()` while a question was under way: its answer may be older than what the caller knows. */
  private askAgain = false;
  private stopped = true;
  /** Of the question that is under way. */
  private limit = new AbortController();
  private limitTimer: number | undefined;

  /** Where to ask is looked up before each question, if it may change. */
  constructor(
    private readonly address: string | (() => string),
    private readonly handlers: PollHandlers<T>,
  ) {
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.schedule();
      else if (!this.stopped) this.now();
    });
    window.addEventListener("online", () => {
      if (!this.stopped) this.now();
    });
  }

  /** Asks at once, even in a hidden tab. Of a question under way the answer is waited for no longer than `within` from now. */
  now(within?: number): void {
    this.stopped = false;
    clearTimeout(this.timer);
    if (this.asking) this.askAgain = true;
    else void this.ask();
    if (within !== undefined) this.hurry(within);
  }

  private hurry(within: number): void {
    const { limit } = this;
    clearTimeout(this.limitTimer);
    this.limitTimer = window.setTimeout(() => limit.abort(), within);
  }

  /** Asks no more, until `now()`; an answer under way is dropped. */
  stop(): void {
    this.stopped = true;
    this.askAgain = false;
    clearTimeout(this.timer);
  }

  private async ask(): Promise<void> {
    this.asking = true;
    this.askAgain = false;
    this.limit = new AbortController();
    this.hurry(ANSWER_TIMEOUT);
    const outcome = await this.fetch();
    this.asking = false;
    clearTimeout(this.limitTimer);
    if (this.stopped) return;
    try {
      if ("answer" in outcome) {
        this.failingSince = null;
        this.handlers.onAnswer(outcome.answer, outcome.serverTime);
      } else {
        this.failingSince ??= performance.now();
        this.last = null;
        this.handlers.onFailure(outcome.status, outcome.words);
      }
    } finally {
      this.schedule();
    }
  }

  private async fetch(): Promise<Outcome<T>> {
    const address = typeof this.address === "string" ? this.address : this.address();
    const last = this.last?.address === address ? this.last : null;
    try {
      // `no-store` keeps the browser's cache out of it: with our own If-None-Match the 304 reaches this code.
      const response = await fetch(address, {
        headers: { ...this.handlers.headers?.(), ...(last ? { "If-None-Match": last.etag } : {}) },
        cache: "no-store",
        signal: this.limit.signal,
      });
      const serverTime = Date.parse(response.headers.get("Date") ?? "") || Date.now();
      if (response.status === 304 && last) return { answer: last.answer, serverTime };
      if (!response.ok) return { status: response.status, words: (await response.text()).trim() };
      const answer = (await response.json()) as T;
      const etag = response.headers.get("ETag");
      this.last = etag ? { address, etag, answer } : null;
      return { answer, serverTime };
    } catch {
      return { status: null, words: "" };
    }
  }

  private schedule(): void {
    clearTimeout(this.timer);
    if (this.asking || this.stopped) return;
    if (this.askAgain) return void this.ask();
    const { handlers } = this;
    if (document.hidden && !handlers.wantedHidden) return;
    const failingFor = this.failingSince === null ? null : performance.now() - this.failingSince;
    const pause = pollDelay(document.hidden || handlers.settled(), failingFor, Math.random());
    this.timer = window.setTimeout(() => {
      if (document.hidden && !handlers.wantedHidden?.()) this.schedule();
      else void this.ask();
    }, pause);
  }
}
