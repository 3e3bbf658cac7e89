// The watch page: the stage, and around it what there is to know about the stream, statistics and the keyboard.

import "../base.css";
import "./stage.css";
import "./watch.css";
import { type StreamName, nameFromPath } from "../api.ts";
import { byId, setText } from "../dom.ts";
import * as format from "../format.ts";
import { keptFor } from "../kept.ts";
import { explainWarning } from "../self-signed.ts";
import { type Model, initial } from "./machine.ts";
import { toggleQuality } from "./quality-menu.ts";
import { type Command, SHORTCUTS, commandFor } from "./shortcuts.ts";
import { changeVolume, goLive, openStage, request, stats, video } from "./stage.ts";
import { lines } from "./stats.ts";

const root = document.documentElement;
const name: StreamName = nameFromPath(location.pathname) ?? { app: "", stream: "" };
const kept = keptFor("localStorage");
let shown: Model = initial;

// About the stream

const TITLES: Record<Model["phase"], string> = {
  loading: "",
  offline: "Offline: ",
  starting: "Starting: ",
  live: "Live: ",
  interrupted: "Interrupted: ",
  ended: "Ended: ",
  error: "Problem: ",
};

const BADGES: Record<Model["phase"], [look: string, text: string]> = {
  loading: ["quiet", "Connecting"],
  offline: ["quiet", "Offline"],
  starting: ["busy", "Starting"],
  live: ["live", "Live"],
  interrupted: ["busy", "Interrupted"],
  ended: ["quiet", "Ended"],
  error: ["alert", "Problem"],
};

function renderAbout(model: Model): void {
  const [look, text] = BADGES[model.stream?.state === "interrupted" ? "interrupted" : model.phase];
  byId("badge", HTMLElement).dataset.look = look;
  setText("badge", text);
  const stream = model.stream;
  const warning = stream && model.phase === "live" ? format.keyframeWarning(stream) : null;
  byId("warning", HTMLElement).hidden = warning === null;
  setText("warning", warning ?? "");
  renderFacts(model);
}

/** Every second, because of the running time. */
function renderFacts(model: Model): void {
  const stream = model.stream;
  const facts: string[] = [];
  if (stream && model.phase === "live") {
    facts.push(format.viewers(stream.viewers));
    if (stream.since !== null) facts.push(`live for ${format.elapsed(Date.now() - stream.since)}`);
    facts.push(format.resolution(stream.video));
    if (stream.video?.frame_rate) facts.push(format.frameRate(stream.video));
    if (stream.bitrate !== null) facts.push(format.bitrate(stream.bitrate));
    facts.push(format.audio(stream.audio));
  }
  const box = byId("facts", HTMLElement);
  if (box.childElementCount !== facts.length) {
    box.replaceChildren(...facts.map(() => Object.assign(document.createElement("span"), { className: "fact" })));
  }
  facts.forEach((fact, i) => {
    const item = box.children[i];
    if (item && item.textContent !== fact) item.textContent = fact;
  });
}

// Statistics

function renderStats(): void {
  const list = byId("stats-list", HTMLElement);
  const shown = lines(stats());
  if (list.childElementCount !== shown.length) {
    list.replaceChildren(
      ...shown.map(([label]) => {
        const row = document.createElement("div");
        row.append(Object.assign(document.createElement("dt"), { textContent: label }), document.createElement("dd"));
        return row;
      }),
    );
  }
  shown.forEach(([, value], i) => {
    const cell = list.children[i]?.lastElementChild;
    if (cell && cell.textContent !== value) cell.textContent = value;
  });
}

// Buttons and keys

function toggleStats(): void {
  const panel = byId("stats", HTMLElement);
  panel.hidden = !panel.hidden;
  byId("stats-button", HTMLElement).setAttribute("aria-pressed", String(!panel.hidden));
  if (!panel.hidden) renderStats();
}

const COMMANDS: Record<Command, () => void> = {
  play: () => request(video.paused ? "mediaplayrequest" : "mediapauserequest"),
  mute: () => request(video.muted ? "mediaunmuterequest" : "mediamuterequest"),
  louder: () => changeVolume(0.1),
  quieter: () => changeVolume(-0.1),
  fullscreen: () => request(document.fullscreenElement ? "mediaexitfullscreenrequest" : "mediaenterfullscreenrequest"),
  pip: () => request(document.pictureInPictureElement ? "mediaexitpiprequest" : "mediaenterpiprequest"),
  live: goLive,
  quality: toggleQuality,
  captions: () => request("mediatogglesubtitlesrequest"),
  stats: toggleStats,
  help: () => byId("help", HTMLDialogElement).showModal(),
};

/** Commands that make sense without a picture. */
const ALWAYS: Command[] = ["stats", "help"];

const SHORTCUTS_OFF = "tidecast-shortcuts-off";
const shortcutsEnabled = byId("help-enabled", HTMLInputElement);
shortcutsEnabled.checked = kept.get(SHORTCUTS_OFF) === null;
shortcutsEnabled.addEventListener("change", () => kept.set(SHORTCUTS_OFF, shortcutsEnabled.checked ? null : "1"));

document.addEventListener("keydown", (event) => {
  const command = shortcutsEnabled.checked ? commandFor(event) : null;
  if (!command || (root.dataset.state !== "live" && !ALWAYS.includes(command))) return;
  event.preventDefault();
  COMMANDS[command]();
});
byId("stats-button", HTMLElement).addEventListener("click", toggleStats);
byId("help-button", HTMLElement).addEventListener("click", COMMANDS.help);

byId("help-list", HTMLElement).append(
  ...SHORTCUTS.map(({ shown, label }) => {
    const row = document.createElement("div");
    const keys = document.createElement("dt");
    keys.append(...shown.map((key) => Object.assign(document.createElement("kbd"), { textContent: key })));
    row.append(keys, Object.assign(document.createElement("dd"), { textContent: label }));
    return row;
  }),
);

// Start

setText("name", `${name.app}/${name.stream}`);
openStage(name, {
  render(model, before) {
    shown = model;
    if (before.phase !== model.phase) document.title = `${TITLES[model.phase]}${name.stream} · Tidecast`;
    if (before.stream !== model.stream || before.phase !== model.phase) renderAbout(model);
  },
  tick() {
    if (!byId("stats", HTMLElement).hidden) renderStats();
  },
});
setInterval(() => renderFacts(shown), 1000);
void explainWarning();
