// What is shown while live: the link, who watches, and how the line is.

import { type Stream, type StreamName, streamAddress, watchAddress } from "../api.ts";
import { type Point, draw, shape } from "../connect/graph.ts";
import { watchLink } from "../connect/setup.ts";
import { isLoopback } from "../connect/words.ts";
import { byId, part, setText, write } from "../dom.ts";
import * as format from "../format.ts";
import { Poller } from "../poll.ts";
import { type Figures, type Stat, type Totals, between, totals } from "./figures.ts";
import * as words from "./words.ts";

/** Between two looks at the browser's statistics, in milliseconds. */
const LOOK_EVERY = 1_000;
/** How many looks the graphs have: three minutes. */
const LOOKS_MAX = 180;
/** Advice is about the last looks, not about one. */
const ADVICE_LOOKS = 5;

export class OnAir {
  private name: StreamName = { app: "", stream: "" };
  private before: Totals | null = null;
  private figures: Figures[] = [];
  private since = 0;
  private timer: number | undefined;
  private readonly poller = new Poller<Stream>(() => streamAddress(this.name), {
    onAnswer: (stream) => this.watched(stream),
    onFailure: () => setText("viewers", ""),
    settled: () => true,
  });

  constructor(private readonly stats: () => Promise<RTCStatsReport> | null) {}

  begin(name: StreamName): void {
    this.name = name;
    this.since = Date.now();
    this.figures = [];
    this.before = null;
    const link = watchLink(location.origin, name);
    setText("link", link);
    byId("watch", HTMLAnchorElement).href = watchAddress(name);
    byId("loopback", HTMLElement).hidden = !isLoopback(location.hostname);
    byId("on-air", HTMLElement).hidden = false;
    setText("viewers", "");
    this.timer = window.setInterval(() => void this.look(), LOOK_EVERY);
    this.poller.now();
  }

  end(): void {
    clearInterval(this.timer);
    this.poller.stop();
    byId("on-air", HTMLElement).hidden = true;
  }

  private watched(stream: Stream): void {
    setText("viewers", stream.state === "starting" ? "Viewers see it in a moment" : format.viewers(stream.viewers));
  }

  private async look(): Promise<void> {
    setText("on-air-for", `for ${format.elapsed(Date.now() - this.since)}`);
    const report = await this.stats();
    if (!report) return;
    const seen: Stat[] = [];
    report.forEach((stat) => seen.push(stat as Stat));
    const now = totals(seen, performance.now());
    const figures = this.before && between(this.before, now);
    this.before = now;
    if (figures) this.figures = [...this.figures, figures].slice(-LOOKS_MAX);
    this.show(now);
  }

  private show(now: Totals): void {
    const last = this.figures.at(-1);
    if (!last) return;
    const lately = this.figures.slice(-ADVICE_LOOKS).flatMap(({ loss }) => (loss === null ? [] : [loss]));
    const loss = lately.length > 0 ? lately.reduce((sum, share) => sum + share, 0) / lately.length : null;
    const trip = last.roundTrip === null ? format.UNKNOWN : milliseconds(last.roundTrip);
    dials([
      ["Bitrate", format.bitrate(last.bitrate)],
      ["Round trip", trip],
      ["Packets lost", loss === null ? format.UNKNOWN : percent(loss)],
      ["Picture", now.height > 0 ? `${now.width}×${now.height}, ${Math.round(last.frameRate)} fps` : format.UNKNOWN],
    ]);
    advise(words.line(loss, now.limitation));
    byId("graphs", HTMLElement).hidden = this.figures.length < 2;
    graph("bitrate", "Bitrate", this.points(({ bitrate }) => bitrate), format.bitrate);
    graph("trip", "Round trip", this.points(({ roundTrip }) => roundTrip), milliseconds);
    graph("loss", "Packets lost", this.points(({ loss }) => loss), percent);
  }

  private points(value: (figures: Figures) => number | null): Point[] {
    return this.figures.map((figures) => [figures.span, value(figures) ?? 0]);
  }
}

const milliseconds = (seconds: number) => `${Math.round(seconds * 1000)} ms`;
const percent = (share: number) => `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;

function graph(id: string, caption: string, points: Point[], text: (value: number) => string): void {
  const drawn = shape(points);
  const [lowest, highest] = drawn ? [text(drawn.lowest), text(drawn.highest)] : [format.UNKNOWN, format.UNKNOWN];
  const range = lowest === highest ? highest : `${lowest} to ${highest}`;
  setText(`${id}-range`, range);
  draw(byId(`${id}-graph`, SVGElement), drawn, `${caption}: ${range}`);
}

function dials(values: [label: string, value: string][]): void {
  const box = byId("dials", HTMLElement);
  values.forEach(([label, value], i) => {
    let row = box.children[i];
    if (!row) {
      row = part("div", "");
      row.append(part("dt", "", label), part("dd", ""));
      box.append(row);
    }
    write(row.lastElementChild, value);
  });
}

/** The line stays the same element while it says the same, so that nobody is told twice. */
function advise(line: string | null): void {
  const list = byId("advice", HTMLElement);
  list.hidden = line === null;
  write(list.firstElementChild ?? list.appendChild(part("li", "warning")), line ?? "");
}
