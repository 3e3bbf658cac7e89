// What a page keeps in the browser. In a frame of another site, and with cookies off, the browser throws where it would
// keep something: then nothing is kept, and everything else works.

export interface Kept {
  get(key: string): string | null;
  /** `null` forgets it. */
  set(key: string, value: string | null): void;
}

export function keptFor(area: "localStorage" | "sessionStorage"): Kept {
  return {
    get(key) {
      try {
        return window[area].getItem(key);
      } catch {
        return null;
      }
    },
    set(key, value) {
      try {
        if (value === null) window[area].removeItem(key);
        else window[area].setItem(key, value);
      } catch {
        // Full or forbidden.
      }
    },
  };
}
