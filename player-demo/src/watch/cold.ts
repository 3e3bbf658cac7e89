// Renditions that are made only while somebody asks for them, and have gaps until then: asked for before the player turns to
// them, so that the picture before goes on until there is another.

/** Between two questions, in milliseconds. A rendition begins with a part, which is half a second long. */
const ASK_EVERY = 500;

/** Whether the newest part of a media playlist is there, and no gap. */
export function hasMedia(playlist: string): boolean {
  const newest = playlist.split("\n").filter((line) => line.startsWith("#EXT-X-PART:")).at(-1);
  return newest !== undefined && !newest.includes("GAP=YES");
}

/**
 * Asks for a media playlist until it has media, at most so many times: to ask is what whoever makes it waits for. False if it
 * has none, or if `signal` came before that.
 */
export async function warm(
  ask: () => Promise<string>,
  signal: AbortSignal,
  questions = Number.POSITIVE_INFINITY,
  pause: (milliseconds: number) => Promise<void> = wait,
): Promise<boolean> {
  for (let asked = 0; asked < questions && !signal.aborted; asked += 1) {
    // No answer is none yet: whether the server is gone is for others to find out.
    const playlist = await ask().catch(() => "");
    if (signal.aborted) break;
    if (hasMedia(playlist)) return true;
    await pause(ASK_EVERY);
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
