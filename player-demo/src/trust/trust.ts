// What a certificate means that nobody vouches for. The words stand in the page; only what the certificate says is asked.

import "../base.css";
import "./trust.css";
import { byId, write } from "../dom.ts";

/** `GET /trust/state` */
interface Certificate {
  /** SHA-256, as browsers show it. */
  fingerprint: string;
  names: string[];
  /** Unix milliseconds. */
  not_after: number;
}

async function show(): Promise<void> {
  let words: [fingerprint: string, names: string, until: string];
  try {
    const response = await fetch("/trust/state");
    if (!response.ok) throw new Error(`status ${response.status}`);
    const { fingerprint, names, not_after: until } = (await response.json()) as Certificate;
    words = [fingerprint, names.join(", "), new Date(until).toLocaleDateString(undefined, { dateStyle: "long" })];
  } catch {
    words = ["The server does not say. Reload the page.", "", ""];
  }
  ["fingerprint", "names", "until"].forEach((id, i) => write(byId(id, HTMLElement), words[i] ?? ""));
}

void show();
