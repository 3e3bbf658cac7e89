// The operator's page: who is there, what is published, what happens.

import "../base.css";
import "./operator.css";
import { draw, shape } from "../connect/graph.ts";
import { byId, part, setText, write } from "../dom.ts";
import * as format from "../format.ts";
import { Poller } from "../poll.ts";
import { type Entry, type EntryList, type Expected, type Load, lost, type Lost, type Node, NODES_ADDRESS, type NodeList, SETTINGS_ADDRESS, type SettingList, STREAMS_ADDRESS, type Trust, TRUST_ADDRESS, viewersOrigin, watchLinks } from "./cluster.ts";
import * as log from "./events.ts";
import { Follower } from "./follow.ts";
import { History, HISTORY_SPAN } from "./history.ts";
import { type Box, isWorthDrawing, tree, withLost } from "./path.ts";
import * as words from "./words.ts";

const root = document.documentElement;
const trouble = byId("trouble", HTMLElement);
const kindChoice = byId("kind", HTMLSelectElement);
const textChoice = byId("text", HTMLInputElement);
const history = new History();

let self = "";
let nodes: Node[] = [];
let entries: Entry[] = [];
let expected: Expected[] = [];
let settings: SettingList = { settings: [] };
let trust: Trust | null = null;
let events: log.Event[] = [];
let failures = 0;
/** How far the server's clock is before this machine's, in milliseconds. */
let ahead = 0;
/** Losses from before the page was opened are no news. */
let alarmedTo = -1;

const nodePoller = new Poller<NodeList>(NODES_ADDRESS, {
  onAnswer(answer, serverTime) {
    failures = 0;
    ahead = serverTime - Date.now();
    self = answer.this;
    nodes = answer.nodes;
    history.see(nodes, performance.now());
    render();
  },
  onFailure() {
    failures += 1;
    if (failures >= 2) render();
  },
  settled: () => nodes.length > 0 && nodes.every(({ state }) => state === "serving"),
});

const streamPoller = new Poller<EntryList>(STREAMS_ADDRESS, {
  onAnswer(answer) {
    entries = answer.streams;
    expected = answer.expected;
    renderStreams();
  },
  onFailure() {
    // The other poll tells.
  },
  settled: () => entries.every(({ phase }) => phase === "live" || phase === "ended"),
});

/** What changes when an operator wants it, and else never. */
function quietly<T>(address: string, take: (answer: T) => void): Poller<T> {
  return new Poller<T>(address, {
    onAnswer(answer) {
      take(answer);
      renderCluster();
    },
    onFailure() {
      // The poll of nodes tells.
    },
    settled: () => true,
  });
}
const settingPoller = quietly<SettingList>(SETTINGS_ADDRESS, (answer) => {
  settings = answer;
});
const trustPoller = quietly<Trust | null>(TRUST_ADDRESS, (answer) => {
  trust = answer;
});

const follower = new Follower({
  onEvent(event) {
    const before = events[0];
    events = log.add(events, event);
    if (events[0] === before) return;
    if (event.kind === "node-lost" && alarmedTo >= 0 && event.sequence > alarmedTo) setText("alarm", event.words);
    batch();
  },
  onChange: askAgain,
  onState(state) {
    root.dataset.events = state;
    setText("events-state", state === "following" ? "As they happen, the newest first" : "Waiting for the server…");
  },
  after: () => events[0]?.sequence ?? null,
});

/** Many events at once, as at the start, are drawn once; and what they tell of is asked for. */
let batched: number | undefined;
function batch(): void {
  batched ??= window.setTimeout(() => {
    batched = undefined;
    alarmedTo = events[0]?.sequence ?? -1;
    renderEvents();
    renderLost();
    renderStreams();
    askAgain();
    settingPoller.now();
    trustPoller.now();
  }, 100);
}

/** Figures change all the time, so they are polled; what else there is to see is asked for when the server says that it changed. */
function askAgain(): void {
  nodePoller.now();
  streamPoller.now();
}

function now(): number {
  return Date.now() + ahead;
}

/** Keeps elements of a list by their keys: focus and reading place stay put. */
class Rows<T> {
  private readonly rows = new Map<string, Row<T>>();

  constructor(
    private readonly list: HTMLElement,
    private readonly make: () => Row<T>,
  ) {}

  show(items: [key: string, item: T][]): void {
    const present = new Set(items.map(([key]) => key));
    for (const [key, row] of this.rows) {
      if (present.has(key)) continue;
      row.element.remove();
      this.rows.delete(key);
    }
    items.forEach(([key, item], i) => {
      const row = this.rows.get(key) ?? this.make();
      this.rows.set(key, row);
      row.show(item);
      if (this.list.children[i] !== row.element) this.list.insertBefore(row.element, this.list.children[i] ?? null);
    });
  }
}

interface Row<T> {
  readonly element: HTMLElement;
  show(item: T): void;
}

const SVG = "http://www.w3.org/2000/svg";

/** A figure with its bar, where it is a share of something, and its line of the last minutes. */
class Gauge {
  readonly element = part("div", "gauge");
  private readonly value = part("dd", "gauge-value");
  private readonly bar = document.createElementNS(SVG, "svg");
  private readonly fill = document.createElementNS(SVG, "rect");
  private readonly graph = document.createElementNS(SVG, "svg");

  constructor(private readonly label: string) {
    for (const [svg, className, box] of [[this.bar, "bar", "0 0 100 6"], [this.graph, "line", "0 0 300 64"]] as const) {
      svg.setAttribute("class", className);
      svg.setAttribute("viewBox", box);
      svg.setAttribute("preserveAspectRatio", "none");
    }
    this.bar.setAttribute("aria-hidden", "true");
    this.graph.setAttribute("role", "img");
    this.fill.setAttribute("height", "6");
    this.bar.append(this.fill);
    const figure = part("dd", "gauge-figure");
    figure.append(this.bar, this.graph);
    this.element.append(part("dt", "", label), this.value, figure);
  }

  /** `top`: what the line's box is high, if that is not the highest of its values. */
  show(text: string, share: number | null, id: string, of: (load: Load) => number, top?: number): void {
    write(this.value, text);
    this.bar.classList.toggle("bar-none", share === null);
    this.fill.setAttribute("width", String(Math.round(Math.min(1, share ?? 0) * 100)));
    this.fill.setAttribute("class", (share ?? 0) >= 0.85 ? "bar-fill bar-full" : "bar-fill");
    const points = history.points(id, of, performance.now());
    draw(this.graph, shape(points, { spanMin: HISTORY_SPAN, top }), `${this.label} of ${id} over the last five minutes`);
  }
}

class NodeRow implements Row<Node> {
  readonly element = part("li", "node");
  private readonly name = part("h3", "node-name");
  private readonly badge = part("p", "badge");
  private readonly about = part("p", "soft node-about");
  private readonly cpu = new Gauge("CPU");
  private readonly egress = new Gauge("Egress");
  private readonly counts = part("p", "node-counts");
  private readonly foot = part("p", "soft node-foot");
  private readonly certificate = part("p", "soft node-foot");
  private readonly link = document.createElement("a");

  constructor() {
    const head = part("div", "node-head");
    head.append(this.name, this.badge);
    const gauges = part("dl", "gauges");
    gauges.append(this.cpu.element, this.egress.element);
    this.element.append(head, this.about, gauges, this.counts, this.foot, this.certificate, this.link);
  }

  show(node: Node): void {
    const { id, state, roles, zone, version, load } = node;
    this.element.dataset.node = id;
    this.element.dataset.look = state;
    write(this.name, id === self && nodes.length > 1 ? `${id} (this node)` : id);
    showBadge(this.badge, state);
    write(this.about, [roles.join(", "), zone && `zone ${zone}`].filter(Boolean).join(" · "));
    this.cpu.show(words.cpu(load), load.cpu, id, ({ cpu }) => cpu, 1);
    this.egress.show(words.egress(load), words.egressShare(load), id, ({ egress }) => egress, load.egress_max || undefined);
    write(this.counts, `${format.viewers(load.viewers)} · ${words.count(load.streams, "stream")}`);
    write(this.foot, `heard ${words.heard(node.silent_ms)} · ${version}`);
    const ends = node.certificate_ends_ms;
    this.certificate.hidden = ends === null || ends === undefined;
    this.certificate.classList.toggle("soft", !words.isCertificateDue(ends, Date.now()));
    write(this.certificate, words.certificate(ends, Date.now()));
    const origin = viewersOrigin(node.viewers);
    this.link.hidden = origin === null;
    if (origin) this.link.href = origin;
    write(this.link, origin ?? "");
  }
}

class LostRow implements Row<Lost> {
  readonly element = part("li", "node node-lost");
  private readonly name = part("h3", "node-name");
  private readonly badge = part("p", "badge");
  private readonly words = part("p", "node-about");

  constructor() {
    const head = part("div", "node-head");
    head.append(this.name, this.badge);
    this.element.append(head, this.words);
  }

  show({ id, words: told, at }: Lost): void {
    this.element.dataset.node = id;
    this.element.dataset.look = "lost";
    write(this.name, id);
    showBadge(this.badge, "lost");
    write(this.words, `${told}, at ${words.time(at, now())}`);
  }
}

/** The way of a stream, drawn anew when it is another. */
class PathTree {
  readonly element = part("ul", "path");
  private drawn: Box | undefined;
  private text = "";

  show({ stream, path, epoch, phase }: Entry): void {
    const gone = new Set(lost(nodes, events, now()).map(({ id }) => id));
    const box = path && phase !== "ended" ? withLost(tree(path, epoch, gone), this.drawn, gone) : undefined;
    this.drawn = box;
    this.element.hidden = !box || !isWorthDrawing(box);
    const text = JSON.stringify(box);
    if (text === this.text) return;
    this.text = text;
    this.element.setAttribute("aria-label", `The way of ${stream} through the nodes`);
    this.element.replaceChildren(...(box ? [hop(box)] : []));
  }
}

const KINDS: Record<Box["kind"], string> = { ingest: "Ingest", origin: "Origin", edge: "Edge", worker: "Worker", more: "" };

function hop({ kind, node, look, does, trouble, branches }: Box): HTMLElement {
  const item = part("li", "hop");
  const box = part("div", "hop-box");
  Object.assign(box.dataset, { kind, node, look });
  const head = part("p", "hop-head");
  if (KINDS[kind]) head.append(part("span", "soft hop-kind", KINDS[kind]));
  if (node) head.append(part("strong", "hop-node", node));
  if (trouble) head.append(part("span", "hop-trouble", trouble));
  if (head.childElementCount > 0) box.append(head);
  if (does) box.append(part("p", "soft hop-does", does));
  item.append(box);
  if (branches.length > 0) {
    const list = part("ul", "hop-branches");
    list.append(...branches.map(hop));
    item.append(list);
  }
  return item;
}

class StreamRow implements Row<Entry> {
  readonly element = part("li", "stream");
  private readonly name = part("h3", "stream-name");
  private readonly badge = part("p", "badge");
  private readonly about = part("p", "soft stream-about");
  private readonly facts = part("p", "stream-facts");
  private readonly renditions = part("p", "soft stream-renditions");
  private readonly path = new PathTree();
  private readonly links = part("p", "stream-links");

  constructor() {
    const head = part("div", "node-head");
    head.append(this.name, this.badge);
    this.element.append(head, this.about, this.facts, this.renditions, this.path.element, this.links);
  }

  show(entry: Entry): void {
    this.element.dataset.stream = entry.stream;
    write(this.name, entry.stream);
    showBadge(this.badge, entry.phase);
    const since = `since ${words.time(entry.since_ms, now())} (${format.elapsed(now() - entry.since_ms)})`;
    const about = [`on ${entry.holder.node}`, entry.epoch === null ? "" : `epoch ${entry.epoch}`, since, entry.unlisted ? "unlisted" : ""];
    write(this.about, about.filter(Boolean).join(" · "));
    for (const [line, text] of [[this.facts, words.facts(entry)], [this.renditions, words.renditions(entry)]] as const) {
      write(line, text);
      line.hidden = text === "";
    }
    this.path.show(entry);
    const links = watchLinks(entry, nodes);
    const shown = [...this.links.children].map((link) => link.getAttribute("href")).join(" ");
    if (shown !== links.map(({ href }) => href).join(" ")) {
      this.links.replaceChildren(
        ...links.map(({ node, href }) => {
          const link = document.createElement("a");
          link.href = href;
          link.append(`Watch at ${node}`, part("span", "visually-hidden", `: ${entry.stream}`));
          return link;
        }),
      );
    }
  }
}

function showBadge(badge: HTMLElement, state: string): void {
  const [look, text] = words.badge(state);
  badge.dataset.look = look;
  write(badge, text);
}

const lostRows = part("ul", "nodes nodes-lost");
lostRows.setAttribute("aria-label", "Lost nodes");
byId("nodes", HTMLElement).after(lostRows);
const nodeList = new Rows<Node>(byId("nodes", HTMLElement), () => new NodeRow());
const lostList = new Rows<Lost>(lostRows, () => new LostRow());
const streamList = new Rows<Entry>(byId("streams", HTMLElement), () => new StreamRow());

function render(): void {
  const fails = failures >= 2;
  root.dataset.state = fails ? "error" : "ok";
  trouble.hidden = !fails;
  write(trouble, fails ? "This node does not answer. What is below is what it told last; this page goes on trying." : "");
  nodeList.show(nodes.map((node) => [node.id, node]));
  const viewers = nodes.reduce((sum, { load }) => sum + load.viewers, 0);
  setText("nodes-count", nodes.length === 0 ? "" : `${words.count(nodes.length, "node")} · ${format.viewers(viewers)}`);
  renderLost();
  renderStreams();
}

function renderLost(): void {
  const gone = lost(nodes, events, now());
  lostRows.hidden = gone.length === 0;
  lostList.show(gone.map((node) => [node.id, node]));
}

function renderCluster(): void {
  const list = byId("cluster", HTMLElement);
  const lines = [...words.settings(settings), ...words.trust(trust, now())];
  list.hidden = lines.length === 0;
  list.replaceChildren(...lines.map((line) => part("li", "", line)));
}

function renderStreams(): void {
  streamList.show(entries.map((entry) => [entry.stream, entry]));
  setText("streams-count", entries.length === 0 ? "" : words.count(entries.length, "stream"));
  byId("streams-none", HTMLElement).hidden = entries.length > 0;
  const list = byId("expected", HTMLElement);
  list.hidden = expected.length === 0;
  list.replaceChildren(...expected.map((audience) => part("li", "", words.expected(audience, now()))));
}

function renderEvents(): void {
  const kinds = [...new Set(events.map(({ kind }) => kind))].sort();
  for (const kind of kinds) {
    if ([...kindChoice.options].some(({ value }) => value === kind)) continue;
    kindChoice.append(new Option(kind, kind));
  }
  const shown = log.filter(events, kindChoice.value, textChoice.value);
  byId("events", HTMLElement).replaceChildren(...shown.map(eventRow));
  byId("events-none", HTMLElement).hidden = shown.length > 0 || events.length === 0;
}

function eventRow(event: log.Event): HTMLElement {
  const row = part("li", "event");
  row.dataset.look = log.look(event.kind);
  row.dataset.kind = event.kind;
  const at = document.createElement("time");
  at.dateTime = new Date(event.at_ms).toISOString();
  at.textContent = words.time(event.at_ms, now());
  row.append(at, part("span", "event-kind", event.kind), part("span", "event-words", event.words), part("span", "soft event-node", `told by ${event.node}`));
  return row;
}

kindChoice.addEventListener("change", renderEvents);
textChoice.addEventListener("input", renderEvents);
nodePoller.now();
streamPoller.now();
settingPoller.now();
trustPoller.now();
follower.start();
