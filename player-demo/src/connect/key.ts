// The publish key in the browser: in this tab only, and in no address that is sent anywhere or stays in a history.

import { keptFor } from "../kept.ts";

const KEY = "tidecast-publish-key";
const kept = keptFor("sessionStorage");
/** Where the browser keeps nothing, the key lasts as long as the page. */
let inMemory: string | null = null;

/** What a link to the page may carry in its fragment, which browsers never send: `#key=…&stream=live/cam1`. */
export interface Carried {
  key: string | null;
  stream: string | null;
}

export function readFragment(fragment: string): Carried {
  const values = new URLSearchParams(fragment.replace(/^#/, ""));
  return { key: values.get("key") || null, stream: values.get("stream") };
}

export function currentKey(): string | null {
  return inMemory ?? kept.get(KEY);
}

export function keep(key: string | null): void {
  inMemory = key;
  kept.set(KEY, key);
}

/** A key as it is sent; null for what the server could not have made: HTTP headers carry no other characters. */
export function cleanKey(typed: string): string | null {
  const key = typed.trim();
  return /^[\x21-\x7e]+$/.test(key) ? key : null;
}
