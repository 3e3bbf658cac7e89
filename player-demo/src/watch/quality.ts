// Which rendition of a stream the viewer sees: what there is to choose from, what was chosen, and in which words. Pure.

import type { Layer } from "../api.ts";
import * as format from "../format.ts";
import type { Kept } from "../kept.ts";

/** One encoding of the picture. */
export interface Rendition {
  width: number;
  height: number;
  /** Null where the playlist does not say. */
  frameRate: number | null;
  /** Bits per second, with the sound beside it. */
  bitrate: number;
}

/** Left to the player, the sound without the picture, or the height of a picture. */
export type Choice = "auto" | "audio" | number;

/** What a stream offers. */
export interface Offer {
  /** One per height, the largest first. */
  renditions: Rendition[];
  /** The sound is a rendition of its own, beside the picture. */
  audioOnly: boolean;
}

export const NOTHING: Offer = { renditions: [], audioOnly: false };

/** Above this the frame rate is worth a word: 50 is what Europe films, 60 what games show. */
const FRAME_RATE_TOLD_ABOVE = 50;

/** A fixed choice of which nothing comes for this long, in milliseconds, is given up. */
export const STANDS_STILL_MAX = 8000;

/** Of several with the same height, another codec for example, the one with the most bits. */
export function offerOf(all: Rendition[], audioOnly: boolean): Offer {
  const best = new Map<number, Rendition>();
  for (const rendition of all) {
    const known = best.get(rendition.height);
    if (rendition.height > 0 && !(known && known.bitrate >= rendition.bitrate)) best.set(rendition.height, rendition);
  }
  const renditions = [...best.values()].sort((a, b) => b.height - a.height);
  return { renditions, audioOnly: audioOnly && renditions.length > 0 };
}

/** Whether there is anything to choose. */
export function isChoice(offer: Offer): boolean {
  return offer.renditions.length > 1 || offer.audioOnly;
}

/** The largest not above `height`; the smallest where all are. */
export function nearest<R extends { height: number }>(renditions: readonly R[], height: number): R | null {
  const sorted = [...renditions].sort((a, b) => b.height - a.height);
  return sorted.find((rendition) => rendition.height <= height) ?? sorted.at(-1) ?? null;
}

export function ofHeight(offer: Offer, height: number): Rendition | null {
  return offer.renditions.find((rendition) => rendition.height === height) ?? null;
}

/** `720p`, `720p60`. */
export function nameOf({ height, frameRate }: Rendition): string {
  return `${height}p${frameRate !== null && frameRate > FRAME_RATE_TOLD_ABOVE ? Math.round(frameRate) : ""}`;
}

/** What the button says, in two words that may stand one above the other. `shown` is on the screen. */
export function buttonWords(choice: Choice, offer: Offer, shown: Rendition | null): [first: string, second: string] {
  if (choice === "audio") return ["Audio", "only"];
  if (choice === "auto") return ["Auto", shown ? nameOf(shown) : ""];
  const chosen = nearest(offer.renditions, choice);
  return ["", chosen ? nameOf(chosen) : `${choice}p`];
}

export interface Item {
  choice: Choice;
  label: string;
  /** In small letters. */
  detail: string;
  checked: boolean;
}

/** The menu, from the top. */
export function menuItems(choice: Choice, offer: Offer, shown: Rendition | null): Item[] {
  const now = choice === "auto" && shown ? nameOf(shown) : "";
  const items: Item[] = [{ choice: "auto", label: "Auto", detail: now, checked: choice === "auto" }];
  const chosen = typeof choice === "number" ? nearest(offer.renditions, choice) : null;
  // A single one is what Auto shows.
  if (offer.renditions.length > 1) {
    for (const rendition of offer.renditions) {
      const { height, bitrate } = rendition;
      const detail = bitrate > 0 ? format.bitrate(bitrate) : "";
      items.push({ choice: height, label: nameOf(rendition), detail, checked: rendition === chosen });
    }
  }
  if (offer.audioOnly) items.push({ choice: "audio", label: "Audio only", detail: "", checked: choice === "audio" });
  return items;
}

/** The choice in a sentence. */
export function nameOfChoice(choice: Choice, offer: Offer): string {
  return choice === "auto" ? "Auto" : buttonWords(choice, offer, null).join(" ").trim();
}

/** `640×360, 700 kb/s (auto)`: the overlay's line. */
export function describe(choice: Choice, shown: Rendition | null): string {
  if (choice === "audio") return "Audio only";
  if (!shown) return format.UNKNOWN;
  return `${shown.width}×${shown.height}, ${format.bitrate(shown.bitrate)}${choice === "auto" ? " (auto)" : ""}`;
}

// Playlists

/**
 * The multivariant playlist with a filter on it, for what no player can be told in another way: the sound alone, and
 * with the browser's own player (`native`) the height of the picture.
 */
export function filtered(playlist: string, choice: Choice, native: boolean): string {
  const filter = choice === "audio" ? "only=audio" : native && choice !== "auto" ? `max=${choice}` : null;
  return filter === null ? playlist : `${playlist}${playlist.includes("?") ? "&" : "?"}${filter}`;
}

interface Variant extends Rendition {
  codecs: string;
  /** The server's, out of the address `…/NAME/index.m3u8`. */
  name: string;
}

/** What a multivariant playlist offers, rfc8216bis §4.4.6. */
export function readMultivariant(text: string): Offer {
  const { variants, audioOnly } = read(text);
  return offerOf(variants.map(({ width, height, bitrate, frameRate }) => ({ width, height, bitrate, frameRate })), audioOnly);
}

/** The publisher's own picture. */
const OWN = "v";

/**
 * The same for WebRTC, where every browser takes H.264, and the server makes a picture of its own where the publisher's does
 * not suit. Of a broadcaster that sends `layers` there are these and nothing else. `names`: what the server calls them, by height.
 */
export function readForWebRtc(text: string, layers: readonly Layer[]): { offer: Offer; names: Map<number, string> } {
  const { variants, audioOnly } = read(text);
  if (layers.length > 0) {
    const sent = layers.map(({ width, height, bitrate }) => ({ width, height, bitrate: bitrate ?? 0, frameRate: null }));
    return { offer: offerOf(sent, audioOnly), names: new Map(layers.map(({ height, name }) => [height, name])) };
  }
  const h264 = variants.filter(({ codecs }) => codecs.includes("avc1"));
  const isMade = (height: number) => h264.some((other) => other.height === height && other.name !== OWN);
  const suited = h264.filter(({ name, height }) => name !== OWN || !isMade(height));
  const renditions = suited.map(({ width, height, bitrate, frameRate }) => ({ width, height, bitrate, frameRate }));
  return { offer: offerOf(renditions, audioOnly), names: new Map(suited.map(({ height, name }) => [height, name])) };
}

function read(text: string): { variants: Variant[]; audioOnly: boolean } {
  const variants: Variant[] = [];
  let audioOnly = false;
  const lines = text.split("\n").map((line) => line.trim());
  lines.forEach((line, i) => {
    const [tag = "", list = ""] = splitOnce(line, ":");
    if (tag === "#EXT-X-MEDIA") audioOnly ||= isSoundOfItsOwn(attributes(list));
    if (tag !== "#EXT-X-STREAM-INF") return;
    const found = attributes(list);
    const [width, height] = (found.get("RESOLUTION") ?? "").split("x").map(Number);
    const bitrate = Number(found.get("AVERAGE-BANDWIDTH") ?? found.get("BANDWIDTH"));
    const frameRate = Number(found.get("FRAME-RATE")) || null;
    const [codecs, name] = [found.get("CODECS") ?? "", lines[i + 1]?.split("/").at(-2) ?? ""];
    if (width && height && bitrate > 0) variants.push({ width, height, bitrate, frameRate, codecs, name });
  });
  return { variants, audioOnly };
}

/** Sound without an address is part of the picture's rendition, rfc8216bis §4.4.6.2.1. */
function isSoundOfItsOwn(media: Map<string, string>): boolean {
  return media.get("TYPE") === "AUDIO" && media.has("URI");
}

/** An attribute list, rfc8216bis §4.2, without the quotes. */
function attributes(list: string): Map<string, string> {
  const found = list.matchAll(/([A-Z0-9-]+)=(?:"([^"]*)"|([^",]*))/g);
  return new Map(Array.from(found, ([, name = "", quoted, plain]) => [name, quoted ?? plain ?? ""]));
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

// Keeping

const KEPT = "tidecast-quality";

/** A height, whatever renditions the next stream has. */
export function keptChoice(kept: Kept): Choice {
  const height = Number(kept.get(KEPT));
  return Number.isInteger(height) && height > 0 ? height : "auto";
}

/** The sound alone is for this visit: who comes back for a picture must not find none. */
export function keepChoice(kept: Kept, choice: Choice): void {
  if (choice !== "audio") kept.set(KEPT, choice === "auto" ? null : String(choice));
}

// Giving up

/** Notices that what was chosen is not what comes. */
export class Patience {
  private mark: number | null = null;
  private since: number | null = null;

  /**
   * Whether nothing of the fixed choice has come for too long. `mark` changes with each picture of it, null while something
   * else is shown; `now` in milliseconds.
   */
  isOver(now: number, mark: number | null): boolean {
    const moved = mark !== null && mark !== this.mark;
    if (moved) this.mark = mark;
    if (moved || this.since === null) this.since = now;
    return now - this.since >= STANDS_STILL_MAX;
  }

  /** It need not move, or has just been chosen. */
  reset(): void {
    this.mark = this.since = null;
  }
}
