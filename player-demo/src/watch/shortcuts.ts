// The keyboard, in one table: what the keys do and what the help says are the same lines.

export type Command = "play" | "mute" | "louder" | "quieter" | "fullscreen" | "pip" | "live" | "quality" | "captions" | "stats" | "help";

export const SHORTCUTS: { command: Command; keys: string[]; shown: string[]; label: string }[] = [
  { command: "play", keys: ["k", " "], shown: ["K", "Space"], label: "Play or pause" },
  { command: "mute", keys: ["m"], shown: ["M"], label: "Sound on or off" },
  { command: "louder", keys: ["arrowup"], shown: ["↑"], label: "Louder (in the player)" },
  { command: "quieter", keys: ["arrowdown"], shown: ["↓"], label: "Quieter (in the player)" },
  { command: "live", keys: ["l"], shown: ["L"], label: "Go to live" },
  { command: "quality", keys: ["q"], shown: ["Q"], label: "Quality" },
  { command: "captions", keys: ["c"], shown: ["C"], label: "Captions on or off" },
  { command: "fullscreen", keys: ["f"], shown: ["F"], label: "Full screen" },
  { command: "pip", keys: ["p"], shown: ["P"], label: "Picture in picture" },
  { command: "stats", keys: ["s"], shown: ["S"], label: "Statistics" },
  { command: "help", keys: ["?"], shown: ["?"], label: "This help" },
];

/** What a key press asks for; null for one that belongs to somebody else. */
export function commandFor(event: KeyboardEvent): Command | null {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return null;
  const focused = event.target instanceof Element ? event.target : null;
  if (focused?.closest("input, select, textarea, dialog, [contenteditable]")) return null;
  const key = event.key.toLowerCase();
  // A focused control keeps the keys it answers to itself, and the page keeps scrolling outside the player.
  const onControl = focused?.closest("a, button, summary, media-control-bar > *, [tabindex='0']") != null;
  const inPlayer = focused?.closest("#stage") != null;
  if (onControl && (key === " " || key.startsWith("arrow"))) return null;
  if (!inPlayer && key.startsWith("arrow")) return null;
  return SHORTCUTS.find(({ keys }) => keys.includes(key))?.command ?? null;
}
