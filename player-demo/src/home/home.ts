// The list of live streams, or how to become the first.

import "../base.css";
import "./home.css";
import { LIST_ADDRESS, type Stream, type StreamList, watchAddress } from "../api.ts";
import { offerCopies } from "../copy.ts";
import { byId, part, write } from "../dom.ts";
import * as format from "../format.ts";
import { Poller } from "../poll.ts";
import { serverAddress } from "../connect/setup.ts";
import { explainWarning } from "../self-signed.ts";

const root = document.documentElement;
const server = byId("server", HTMLElement);
const list = byId("streams", HTMLElement);
/** Cards stay the same elements from poll to poll: the focus, and what a screen reader reads, stay put. */
const cards = new Map<string, Card>();
let shown: Stream[] = [];
let failures = 0;

const poller = new Poller<StreamList>(LIST_ADDRESS, {
  onAnswer({ streams, rtmp_port: port, rtmps_port }) {
    failures = 0;
    write(server, port ? serverAddress(location.hostname, { rtmp_port: port, rtmps_port }, "live") : "");
    for (const id of ["go-live", "studio", "in-a-minute", "steps"]) byId(id, HTMLElement).hidden = !port;
    shown = [...streams].sort((a, b) => key(a).localeCompare(key(b)));
    render();
  },
  onFailure() {
    failures += 1;
    if (failures >= 2) render();
  },
  settled: () => shown.length > 0 && shown.every(({ state }) => state === "live"),
});

function render(): void {
  const trouble = failures >= 2;
  root.dataset.state = trouble ? "error" : shown.length > 0 ? "live" : "empty";
  byId("trouble", HTMLElement).hidden = !trouble;
  byId("trouble", HTMLElement).textContent = trouble ? "The server cannot be reached. This page goes on trying." : "";
  byId("waiting", HTMLElement).hidden = true;
  list.hidden = shown.length === 0;
  byId("empty", HTMLElement).hidden = shown.length > 0 || trouble;
  byId("count", HTMLElement).textContent = shown.length === 1 ? "1 stream" : `${shown.length} streams`;

  const present = new Set(shown.map(key));
  for (const [name, card] of cards) {
    if (present.has(name)) continue;
    card.element.remove();
    cards.delete(name);
  }
  shown.forEach((stream, i) => {
    const card = cards.get(key(stream)) ?? new Card(stream);
    cards.set(key(stream), card);
    card.show(stream);
    if (list.children[i] !== card.element) list.insertBefore(card.element, list.children[i] ?? null);
  });
}

function key({ app, stream }: Stream): string {
  return `${app}/${stream}`;
}

class Card {
  readonly element = document.createElement("li");
  private readonly badge = part("p", "badge");
  private readonly uptime = part("p", "card-uptime");
  private readonly facts = part("dl", "card-facts");
  private readonly warning = part("p", "warning");
  private readonly reason = part("p", "card-reason");
  private stream: Stream;

  constructor(stream: Stream) {
    this.stream = stream;
    this.element.className = "card";
    const top = part("div", "card-top");
    top.append(this.badge, this.uptime);
    const title = part("h2", "card-title");
    const link = document.createElement("a");
    link.href = watchAddress(stream);
    link.textContent = stream.stream;
    title.append(link);
    const app = part("p", "card-app");
    app.textContent = stream.app;
    this.element.append(top, title, app, this.reason, this.facts, this.warning);
  }

  show(stream: Stream): void {
    this.stream = stream;
    const live = stream.state === "live";
    this.badge.dataset.look = live ? "live" : "busy";
    write(this.badge, live ? "Live" : stream.state === "interrupted" ? "Interrupted" : "Starting");
    this.reason.hidden = live;
    write(this.reason, live ? "" : (stream.reason ?? "The first seconds are being prepared."));
    const facts: [string, string][] = [
      ["Picture", format.resolution(stream.video)],
      ["Frame rate", format.frameRate(stream.video)],
      ["Bitrate", format.bitrate(stream.bitrate)],
      ["Keyframe every", format.seconds(stream.keyframe_interval)],
      ["Watching", format.viewers(stream.viewers)],
    ];
    if (this.facts.childElementCount === 0) {
      this.facts.append(
        ...facts.map(([label]) => {
          const row = document.createElement("div");
          row.append(part("dt", ""), part("dd", ""));
          write(row.firstElementChild, label);
          return row;
        }),
      );
    }
    facts.forEach(([, value], i) => write(this.facts.children[i]?.lastElementChild, value));
    const warning = format.keyframeWarning(stream);
    this.facts.children[3]?.classList.toggle("fact-warned", warning !== null);
    this.warning.hidden = warning === null;
    write(this.warning, warning ?? "");
    this.tick();
  }

  tick(): void {
    const { since, state } = this.stream;
    write(this.uptime, since === null ? "" : `${state} for ${format.elapsed(Date.now() - since)}`);
  }
}

offerCopies();
void explainWarning();
poller.now();
setInterval(() => {
  for (const card of cards.values()) card.tick();
}, 1000);
