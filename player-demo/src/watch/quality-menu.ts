// The quality button in the control bar and the menu it opens: a menu button as the ARIA Authoring Practices describe it.
// Knows nothing of players; `stage.ts` says what to show and learns what was chosen.

import { byId, part, setText, write } from "../dom.ts";
import { type Choice, type Item, type Offer, type Rendition, buttonWords, isChoice, menuItems, nameOfChoice } from "./quality.ts";

/** Seconds without a movement after which media-chrome hides the controls; -1 is never. */
const AUTOHIDE = "2";

const button = byId("quality-button", HTMLButtonElement);
const menu = byId("quality-menu", HTMLElement);
/** Over everything else in the stage while the menu is open: the click that closes it must do nothing else. */
const scrim = byId("quality-scrim", HTMLElement);
const controller = byId("player", HTMLElement);

/** The switch below the renditions. */
export interface LowLatency {
  on: boolean;
  /** In small letters: what plays. */
  detail: string;
}

export interface Listener {
  onChoice(choice: Choice): void;
  onLowLatency(on: boolean): void;
  /** The menu is about to be seen: `renderQuality` is to be called. */
  onOpen(): void;
}

let listener: Listener = { onChoice: () => {}, onLowLatency: () => {}, onOpen: () => {} };

export function listen(to: Listener): void {
  listener = to;
}

/** `lowLatency`: null where there is nothing to switch. */
export function renderQuality(
  choice: Choice,
  offer: Offer,
  shown: Rendition | null,
  lowLatency: LowLatency | null,
  usable: boolean,
): void {
  button.hidden = !isChoice(offer) && lowLatency === null;
  const words = buttonWords(choice, offer, shown);
  setText("quality-first", words[0]);
  setText("quality-second", words[1]);
  if (menu.hidden) return;
  if (button.hidden || !usable) close(false);
  else renderItems(menuItems(choice, offer, shown), lowLatency);
}

/** In place: an item that has the focus keeps it. */
function renderItems(items: Item[], lowLatency: LowLatency | null): void {
  const count = items.length + (lowLatency ? 1 : 0);
  while (menu.childElementCount > count) menu.lastElementChild?.remove();
  items.forEach(({ choice, label, detail, checked }, i) => renderItem(i, "menuitemradio", String(choice), { label, detail, checked }));
  if (!lowLatency) return;
  const { on: checked, detail } = lowLatency;
  renderItem(items.length, "menuitemcheckbox", LOW_LATENCY, { label: "Low latency", detail, checked });
}

const LOW_LATENCY = "low-latency";

function renderItem(place: number, role: string, value: string, { label, detail, checked }: Omit<Item, "choice">): void {
  const item = menu.children[place] ?? menu.appendChild(newItem());
  item.setAttribute("role", role);
  item.setAttribute("data-choice", value);
  item.setAttribute("aria-checked", String(checked));
  write(item.children[0], label);
  write(item.children[1], detail);
}

function newItem(): HTMLElement {
  const item = part("button", "quality-item");
  item.setAttribute("type", "button");
  item.tabIndex = -1;
  item.append(part("span", "quality-label"), part("small", "quality-detail"));
  return item;
}

// Opening and closing

export function toggleQuality(): void {
  if (!menu.hidden) return close(true);
  if (!button.hidden) open();
}

function open(): void {
  menu.hidden = scrim.hidden = false;
  button.ariaExpanded = "true";
  controller.setAttribute("autohide", "-1");
  listener.onOpen();
  (menu.querySelector<HTMLElement>('[role="menuitemradio"][aria-checked="true"]') ?? items()[0])?.focus();
}

function close(focusButton: boolean): void {
  if (menu.hidden) return;
  menu.hidden = scrim.hidden = true;
  button.ariaExpanded = "false";
  controller.setAttribute("autohide", AUTOHIDE);
  if (focusButton) button.focus();
}

function items(): HTMLElement[] {
  return [...menu.querySelectorAll<HTMLElement>(".quality-item")];
}

function choose(item: Element): void {
  const text = item.getAttribute("data-choice") ?? "auto";
  close(true);
  if (text === LOW_LATENCY) return listener.onLowLatency(item.getAttribute("aria-checked") !== "true");
  listener.onChoice(text === "auto" || text === "audio" ? text : Number(text));
}

/** Up and down go round. */
const MOVES: Record<string, (at: number, count: number) => number> = {
  ArrowDown: (at, count) => (at + 1) % count,
  ArrowUp: (at, count) => (at + count - 1) % count,
  Home: () => 0,
  End: (_, count) => count - 1,
};

menu.addEventListener("keydown", (event) => {
  if (event.key === "Escape") close(true);
  // The focus goes on from the button.
  else if (event.key === "Tab") return close(true);
  else {
    const all = items();
    const to = MOVES[event.key]?.(all.indexOf(document.activeElement as HTMLElement), all.length);
    if (to === undefined) return;
    all[to]?.focus();
  }
  event.preventDefault();
});
menu.addEventListener("click", (event) => {
  const item = event.target instanceof Element ? event.target.closest(".quality-item") : null;
  if (item) choose(item);
});
button.addEventListener("click", toggleQuality);
button.addEventListener("keydown", (event) => {
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  event.preventDefault();
  toggleQuality();
});
document.addEventListener("click", (event) => {
  const inside = event.composedPath().some((node) => node === menu || node === button);
  if (!inside) close(false);
});

// The note

/** Long enough to be read twice, in milliseconds. */
const NOTE_SHOWN = 7000;
let noteTimer: number | undefined;

/** Says once, to eyes and ears, that the choice was given up. */
export function sayGivenUp(choice: Choice, offer: Offer): void {
  const words = `${nameOfChoice(choice, offer)} does not come at the moment. Quality is on Auto again.`;
  const note = byId("quality-note", HTMLElement);
  setText("quality-note", words);
  setText("announcer", words);
  note.hidden = false;
  clearTimeout(noteTimer);
  noteTimer = window.setTimeout(() => (note.hidden = true), NOTE_SHOWN);
}
