// Renditions that are made only while somebody asks for them, and have gaps until then: asked for before the player turns to
// them, so that the picture before goes on until there is another.

/** After an answer that was no playlist, in milliseconds. */
const ASK_AGAIN_AFTER = 500;

/** Whether the newest part of a media playlist is there, and no gap. */
export function hasMedia(playlist: string): boolean {
  const newest = playlist.split("\n").filter((line) => line.startsWith("#EXT-X-PART:")).at(-1);
  return newest !== undefined && !newest.includes("GAP=YES");
}

/** The query that has the server answer when there is a newer part, rfc8216bis §6.2.5.2; null if this is no playlist. */
export function nextPart(playlist: string): string | null {
  const first = /^#EXT-X-MEDIA-SEQUENCE:(\d+)/m.exec(playlist)?.[1];
  if (first === undefined) return null;
  const segments = playlist.split("#EXTINF:");
  const parts = segments.at(-1)?.match(/^#EXT-X-PART:/gm)?.length ?? 0;
  return `?_HLS_msn=${Number(first) + segments.length - 1}&_HLS_part=${parts}`;
}

/**
 * Asks for a media playlist until it has media, at most so many times: to ask is what whoever makes it waits for. False if it
 * has none, or if `signal` came before that.
 */
export async function warm(
  ask: (query: string) => Promise<string>,
  signal: AbortSignal,
  questions = Number.POSITIVE_INFINITY,
  pause: (milliseconds: number) => Promise<void> = wait,
): Promise<boolean> {
  let query = "";
  for (let asked = 0; asked < questions && !signal.aborted; asked += 1) {
    // No answer is none yet: whether the server is gone is for others to find out.
    const playlist = await ask(query).catch(() => "");
    if (signal.aborted) break;
    if (hasMedia(playlist)) return true;
    // Not again and again as a newcomer, whom the server would count.
    const next = nextPart(playlist);
    query = next ?? "";
    if (next === null) await pause(ASK_AGAIN_AFTER);
  }
  return false;
}

function wait(milliseconds: number): Promise<void> {
  return new Promise((resolve) => window.setTimeout(resolve, milliseconds));
}

/** The text at an address. */
export async function textAt(address: string, signal: AbortSignal): Promise<string> {
  const response = await fetch(address, { cache: "no-store", signal });
  return response.ok ? await response.text() : "";
}
