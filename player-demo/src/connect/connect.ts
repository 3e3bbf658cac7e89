// The broadcaster's page: opened by the publish key, it tells what to type into the encoder, how the stream is doing, and
// whom the server turned away and why.

import "../base.css";
import "./connect.css";
import { type ConnectReport, type StreamName, reportAddress, watchAddress } from "../api.ts";
import { offerCopies } from "../copy.ts";
import { byId, part, setText, write } from "../dom.ts";
import * as format from "../format.ts";
import { keptFor } from "../kept.ts";
import { Poller } from "../poll.ts";
import { explainWarning } from "../self-signed.ts";
import { type Point, draw, shape } from "./graph.ts";
import { cleanKey, currentKey, keep, readFragment } from "./key.ts";
import { drawQr } from "./qr.ts";
import * as setup from "./setup.ts";
import * as words from "./words.ts";

const STREAM = "tidecast-stream";
/** One lost answer is a hiccup. */
const FAILURES_TOLD = 2;

const root = document.documentElement;
const kept = keptFor("sessionStorage");
const keyInput = byId("key-input", HTMLInputElement);
const appInput = byId("app", HTMLInputElement);
const streamInput = byId("stream", HTMLInputElement);
const revealers = document.querySelectorAll<HTMLButtonElement>("[data-reveals]");

let name: StreamName = { app: "live", stream: "cam1" };
let report: ConnectReport | null = null;
let failures = 0;
/** The server's clock minus this browser's, in milliseconds. The header has whole seconds, so the largest is the truest. */
let skew = Number.NEGATIVE_INFINITY;
let keyShown = false;

const poller = new Poller<ConnectReport>(() => reportAddress(name), {
  headers: () => ({ Authorization: `Bearer ${currentKey() ?? ""}` }),
  onAnswer(answer, serverTime) {
    failures = 0;
    skew = Math.max(skew, serverTime - Date.now());
    // The answer to a question asked before the name was changed.
    if (answer.stream.app !== name.app || answer.stream.stream !== name.stream) return;
    report = answer;
    enter();
  },
  onFailure(status, said) {
    failures += 1;
    if (status === 401) return lock("This is not the publish key of this server.");
    if (status === 429) return lock(said || "Too many wrong keys came from your address. Wait a minute.");
    if (root.dataset.view !== "open") return lock(unreachable(status, said));
    if (failures >= FAILURES_TOLD) render();
  },
  settled: () => false,
});

function unreachable(status: number | null, said: string): string {
  if (status === null) return "The server cannot be reached. Is it running?";
  return said || `The server answered with status ${status}.`;
}

// The gate

/** Shows the gate, with what is wrong; "" for nothing. */
function lock(trouble: string): void {
  poller.stop();
  keep(null);
  report = null;
  root.dataset.view = "gate";
  byId("gate", HTMLElement).hidden = false;
  byId("desk", HTMLElement).hidden = true;
  byId("forget", HTMLElement).hidden = true;
  byId("gate-submit", HTMLButtonElement).disabled = false;
  keyInput.setAttribute("aria-invalid", String(trouble !== ""));
  setText("gate-error", trouble);
  keyInput.focus();
}

function unlock(typed: string): void {
  const key = cleanKey(typed);
  if (key === null) return lock(typed.trim() === "" ? "Type or paste the publish key." : "This is not the publish key of this server.");
  setText("gate-error", "");
  byId("gate-submit", HTMLButtonElement).disabled = true;
  keep(key);
  poller.now();
}

/** The key was right. */
function enter(): void {
  if (root.dataset.view !== "open") {
    root.dataset.view = "open";
    byId("gate", HTMLElement).hidden = true;
    byId("desk", HTMLElement).hidden = false;
    byId("forget", HTMLElement).hidden = false;
    keyInput.value = "";
    renderSetup();
  }
  render();
}

byId("gate-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  unlock(keyInput.value);
});
byId("key-show", HTMLElement).addEventListener("click", () => {
  const shown = keyInput.type === "password";
  keyInput.type = shown ? "text" : "password";
  byId("key-show", HTMLElement).setAttribute("aria-pressed", String(shown));
});
byId("forget", HTMLElement).addEventListener("click", () => lock(""));

// The stream

function choose(): void {
  const next = { app: appInput.value.trim(), stream: streamInput.value.trim() };
  const wrong = [next.app, next.stream].some((text) => !setup.isName(text));
  setText("name-error", wrong ? "A name has 1 to 64 letters, digits, - and _, and no spaces." : "");
  appInput.setAttribute("aria-invalid", String(!setup.isName(next.app)));
  streamInput.setAttribute("aria-invalid", String(!setup.isName(next.stream)));
  if (wrong || (next.app === name.app && next.stream === name.stream)) return;
  name = next;
  kept.set(STREAM, `${name.app}/${name.stream}`);
  renderSetup();
  poller.now();
}

function remember(text: string | null): void {
  const [app = "", stream = "", more] = (text ?? "").split("/");
  if (more !== undefined || !setup.isName(app) || !setup.isName(stream)) return;
  name = { app, stream };
  kept.set(STREAM, text);
}

for (const input of [appInput, streamInput]) input.addEventListener("input", choose);
byId("chooser", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());

// Setting up

function renderSetup(): void {
  const server = setup.serverAddress(location.hostname, report ?? { rtmp_port: 1935 }, name.app);
  setText("server", server);
  const key = currentKey() ?? "";
  showSecret("stream-key", (text) => setup.streamKey(name.stream, text), key);
  showSecret("ffmpeg", (text) => setup.ffmpegCommand(`${server}/${setup.streamKey(name.stream, text)}`), key);
  const link = setup.watchLink(location.origin, name);
  setText("link", link);
  setText("snippet", setup.embedSnippet(location.origin, name));
  byId("watch", HTMLAnchorElement).href = watchAddress(name);
  drawQr(byId("qr", SVGElement), link);
  byId("loopback", HTMLElement).hidden = !words.isLoopback(location.hostname);
}

/** A text with the key in it: hidden until asked for, copied whole. */
function showSecret(id: string, text: (key: string) => string, key: string): void {
  const element = byId(id, HTMLElement);
  element.dataset.copy = text(key);
  write(element, text(keyShown ? key : setup.HIDDEN));
}

for (const button of revealers) {
  button.addEventListener("click", () => {
    keyShown = !keyShown;
    for (const other of revealers) {
      other.setAttribute("aria-pressed", String(keyShown));
      // The words before those for screen readers.
      if (other.firstChild) other.firstChild.textContent = keyShown ? "Hide" : "Show";
    }
    renderSetup();
  });
}

const tabs = document.querySelectorAll<HTMLButtonElement>("[data-shows]");
for (const tab of tabs) {
  tab.addEventListener("click", () => {
    for (const other of tabs) {
      other.setAttribute("aria-pressed", String(other === tab));
      byId(other.dataset.shows ?? "", HTMLElement).hidden = other !== tab;
    }
  });
}

// The stream's health

function render(): void {
  const lost = failures >= FAILURES_TOLD;
  byId("trouble", HTMLElement).hidden = !lost;
  setText("trouble", lost ? "The server cannot be reached. This page goes on trying; the numbers are old." : "");
  if (!report) return;
  const { stream } = report;
  root.dataset.state = stream.state;
  const [look, text] = words.badge(stream.state);
  byId("badge", HTMLElement).dataset.look = look;
  setText("badge", text);
  document.title = `${text}: ${stream.stream} · Go live · Tidecast`;
  setText("listed", report.listed ? "" : "This stream is unlisted: only who has its link finds it.");
  renderDials(words.dials(report));
  const arriving = words.isArriving(stream.state);
  renderAdvice("warnings", arriving ? report.warnings : []);
  renderAdvice("hints", arriving ? report.hints : []);
  renderGraphs(report);
  renderRefusals(report);
  tick();
}

function renderDials(dials: words.Dial[]): void {
  const box = byId("dials", HTMLElement);
  dials.forEach(({ label, value, detail }, i) => {
    let row = box.children[i];
    if (!row) {
      row = part("div", "");
      row.append(part("dt", "", label), part("dd", ""), part("dd", "dial-detail"));
      box.append(row);
    }
    write(row.children[1], value);
    write(row.children[2], detail);
  });
}

/** Lines stay the same elements while they say the same, so that nobody is told twice. */
function renderAdvice(id: string, lines: string[]): void {
  const list = byId(id, HTMLElement);
  list.hidden = lines.length === 0;
  lines.forEach((line, i) => write(list.children[i] ?? list.appendChild(part("li", id === "warnings" ? "warning" : "hint-line")), line));
  while (list.childElementCount > lines.length) list.lastElementChild?.remove();
}

function renderGraphs({ samples, stream }: ConnectReport): void {
  byId("graphs", HTMLElement).hidden = samples.length < 2;
  const total = samples.reduce((sum, [span]) => sum + span, 0);
  const span = `the last ${format.elapsed(total)} minutes`;
  const graph = (id: string, points: Point[], caption: string, text: (value: number) => string) => {
    const drawn = shape(points);
    const [lowest, highest] = drawn ? [text(drawn.lowest), text(drawn.highest)] : [format.UNKNOWN, format.UNKNOWN];
    const range = lowest === highest ? highest : `${lowest} to ${highest}`;
    setText(`${id}-range`, range);
    draw(byId(`${id}-graph`, SVGElement), drawn, `${caption} over ${span}: ${range}`);
  };
  graph("bitrate", samples.map(([ms, rate]) => [ms, rate]), "Bitrate", format.bitrate);
  graph("frames", samples.map(([ms, , frames]) => [ms, frames]), "Frames per second", (value) => `${Math.round(value)} fps`);
  byId("frames-figure", HTMLElement).hidden = stream.video === null;
}

function renderRefusals({ refusals }: ConnectReport): void {
  const list = byId("refusals", HTMLElement);
  list.hidden = refusals.length === 0;
  byId("refusals-none", HTMLElement).hidden = refusals.length > 0;
  refusals.forEach((refusal, i) => {
    let item = list.children[i];
    if (!item) {
      item = part("li", "refusal");
      item.append(part("p", "refusal-reason"), part("p", "refusal-who"));
      list.append(item);
    }
    write(item.firstElementChild, sentence(refusal.reason));
  });
  while (list.childElementCount > refusals.length) list.lastElementChild?.remove();
}

function sentence(reason: string): string {
  return reason.charAt(0).toUpperCase() + reason.slice(1);
}

/** What changes by itself: how long ago, and for how long. */
function tick(): void {
  if (!report || root.dataset.view !== "open") return;
  const now = Date.now() + skew;
  setText("state-words", words.stateWords(report.stream, now));
  const list = byId("refusals", HTMLElement);
  report.refusals.forEach((refusal, i) => write(list.children[i]?.lastElementChild, words.circumstances(refusal, now)));
  const urgent = words.urgent(report, now);
  byId("banner", HTMLElement).hidden = urgent === null;
  // Apart, so that a screen reader does not read the alarm out again every second.
  setText("banner-words", urgent ? `Turned away: ${urgent.reason} (${words.who(urgent)}).` : "");
  setText("banner-age", urgent ? words.ago(now - urgent.at) : "");
}

// Start

function arrive(): void {
  const carried = readFragment(location.hash);
  // Out of the address bar before anything else: people read over shoulders, and addresses are copied.
  if (location.hash) history.replaceState(null, "", location.pathname);
  remember(carried.stream ?? kept.get(STREAM));
  appInput.value = name.app;
  streamInput.value = name.stream;
  const key = carried.key ?? currentKey();
  if (key === null) lock("");
  else unlock(key);
}

offerCopies();
void explainWarning();
arrive();
window.addEventListener("hashchange", () => {
  if (readFragment(location.hash).key !== null) arrive();
});
setInterval(tick, 1000);
