// The studio: the browser's camera, microphone or screen on the air, by WHIP.

import "../base.css";
// Panels, fields, dials and graphs are those of the broadcasters' other page.
import "../connect/connect.css";
import "./studio.css";
import type { StreamName } from "../api.ts";
import { cleanKey, currentKey, keep, readFragment } from "../connect/key.ts";
import * as setup from "../connect/setup.ts";
import { offerCopies } from "../copy.ts";
import { byId, setText, write } from "../dom.ts";
import { keptFor } from "../kept.ts";
import { OnAir } from "./air.ts";
import { Broadcast } from "./broadcast.ts";
import type { Phase } from "./machine.ts";
import type { Hint } from "./sender.ts";
import { Stage } from "./stage.ts";
import { Wake } from "./wake.ts";
import * as words from "./words.ts";

/** The same as on the connect page: one name for both. */
const STREAM = "tidecast-stream";

const root = document.documentElement;
const kept = keptFor("sessionStorage");
const appInput = byId("app", HTMLInputElement);
const streamInput = byId("stream", HTMLInputElement);
const keyInput = byId("key-input", HTMLInputElement);
const guestInput = byId("guest", HTMLInputElement);
const goButton = byId("go", HTMLButtonElement);
const stopButton = byId("stop", HTMLButtonElement);
const qualitySelect = byId("quality", HTMLSelectElement);
const hintSelect = byId("hint", HTMLSelectElement);
const sizesSelect = byId("sizes", HTMLSelectElement);
const isLayered = () => sizesSelect.value === "three";
const hint = () => (hintSelect.value === "detail" ? "detail" : "motion") satisfies Hint;

const wake = new Wake();
let name: StreamName = { app: "live", stream: "cam1" };
let wasOn = false;

const stage = new Stage({
  onTrack(kind, track) {
    if (!broadcast.isOn) return complain("");
    if (!track) return;
    void broadcast.replace(track);
    if (!broadcast.takes(kind)) {
      const what = kind === "audio" ? "sound" : "a picture";
      complain(`This broadcast began without ${what}: stop and go live again to send it.`);
    }
  },
});
const broadcast = new Broadcast({ hint: hint(), bitrateMax: stage.quality.bitrateMax, layered: isLayered() }, onPhase);
const air = new OnAir(() => broadcast.stats());

function complain(text: string): void {
  byId("air-fault", HTMLElement).hidden = text === "";
  setText("air-fault", text);
}

// On the air

function onPhase(phase: Phase): void {
  const on = phase.name !== "idle";
  const [look, text] = words.badge(phase);
  byId("badge", HTMLElement).dataset.look = look;
  setText("badge", text);
  setText("state-words", words.phase(phase));
  setText("air-title", on ? `${name.app}/${name.stream}` : "Your stream");
  setText("on-air-title", phase.name === "live" ? "You are live" : "Reconnecting");
  root.dataset.air = on ? "on" : "off";
  root.dataset.phase = phase.name;
  showButtons(on);
  sizesSelect.disabled = on;
  document.title = on ? `${text}: ${name.stream} · Tidecast` : "Studio · Tidecast";
  wake.hold(on);
  if (phase.name === "live" && !wasOn) air.begin(name);
  if (!on && wasOn) air.end();
  if (phase.name === "live" || !on) wasOn = on;
  if (phase.name === "idle") {
    complain(phase.fault ? words.fault(phase.fault) : "");
    const wrongKey = phase.fault?.kind === "refused" && phase.fault.status === 401;
    keyInput.setAttribute("aria-invalid", String(wrongKey));
    if (wrongKey) keyInput.focus();
  }
}

function go(): void {
  const key = cleanKey(keyInput.value);
  if (!nameIsGood()) return streamInput.focus();
  if (stage.media.getTracks().length === 0) return complain("Turn on the camera and microphone, or share your screen, first.");
  if (key === null) {
    keyInput.setAttribute("aria-invalid", "true");
    keyInput.focus();
    return complain(keyInput.value.trim() === "" ? "Type or paste the publish key." : "This is not the publish key of this server.");
  }
  keyInput.setAttribute("aria-invalid", "false");
  complain("");
  keep(key);
  broadcast.start({ name, key, media: stage.media });
}

/** The focus goes with the button: what was focused may not be there any more. */
function showButtons(on: boolean): void {
  if (goButton.hidden === on) return;
  goButton.hidden = on;
  stopButton.hidden = !on;
  (on ? stopButton : goButton).focus();
}

byId("air-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  if (!broadcast.isOn) go();
});
stopButton.addEventListener("click", () => broadcast.stop());
qualitySelect.addEventListener("change", () => {
  void stage.resize();
  void broadcast.limit(stage.quality.bitrateMax);
});
sizesSelect.addEventListener("change", () => broadcast.layer(isLayered()));
hintSelect.addEventListener("change", () => broadcast.hint(hint()));
// A tab that is closed by mistake ends nothing at once, but its picture is gone.
window.addEventListener("beforeunload", (event) => {
  if (broadcast.isOn) event.preventDefault();
});

// The stream and the key

function nameIsGood(): boolean {
  const next = { app: appInput.value.trim(), stream: streamInput.value.trim() };
  const wrong = [next.app, next.stream].some((text) => !setup.isName(text));
  setText("name-error", wrong ? "A name has 1 to 64 letters, digits, - and _, and no spaces." : "");
  appInput.setAttribute("aria-invalid", String(!setup.isName(next.app)));
  streamInput.setAttribute("aria-invalid", String(!setup.isName(next.stream)));
  if (!wrong) {
    name = next;
    kept.set(STREAM, `${name.app}/${name.stream}`);
  }
  return !wrong;
}

function remember(text: string | null): void {
  const [app = "", stream = "", more] = (text ?? "").split("/");
  if (more === undefined && setup.isName(app) && setup.isName(stream)) name = { app, stream };
}

/** The key is in the fragment, which browsers do not send. It is copied whole and shown without. */
function renderInvite(): void {
  const guest = guestInput.value.trim();
  const key = cleanKey(keyInput.value);
  const good = setup.isName(guest);
  guestInput.setAttribute("aria-invalid", String(!good));
  const link = (shown: string) => `${location.origin}/studio#key=${shown}&stream=${name.app}/${guest}`;
  const element = byId("invite", HTMLElement);
  byId("invite-copy", HTMLButtonElement).disabled = key === null || !good;
  if (key === null || !good) delete element.dataset.copy;
  else element.dataset.copy = link(encodeURIComponent(key));
  write(element, !good ? "The name of a stream has letters, digits, - and _." : key === null ? "Type the publish key first." : link(setup.HIDDEN));
}

for (const input of [appInput, streamInput]) input.addEventListener("input", () => (nameIsGood(), renderInvite()));
keyInput.addEventListener("input", () => {
  keyInput.setAttribute("aria-invalid", "false");
  renderInvite();
});
guestInput.addEventListener("input", renderInvite);
byId("key-show", HTMLElement).addEventListener("click", () => {
  const shown = keyInput.type === "password";
  keyInput.type = shown ? "text" : "password";
  byId("key-show", HTMLElement).setAttribute("aria-pressed", String(shown));
});

// Start

function arrive(): void {
  const carried = readFragment(location.hash);
  // Out of the address bar before anything else: people read over shoulders, and addresses are copied.
  if (location.hash) history.replaceState(null, "", location.pathname);
  remember(carried.stream ?? kept.get(STREAM));
  if (carried.key) keep(carried.key);
  appInput.value = name.app;
  streamInput.value = name.stream;
  keyInput.value = currentKey() ?? "";
  renderInvite();
}

const trouble = words.unfit(window.isSecureContext, !!navigator.mediaDevices?.getUserMedia, "RTCPeerConnection" in window, new URL(location.href));
byId("unfit", HTMLElement).hidden = trouble === null;
setText("unfit", trouble ?? "");
byId("desk", HTMLElement).hidden = trouble !== null;
offerCopies();
arrive();
window.addEventListener("hashchange", () => {
  if (!broadcast.isOn && readFragment(location.hash).key !== null) arrive();
});
