// Copy buttons: each names, in `data-copies`, the element whose text it copies, or whose `data-copy` if that is shown
// otherwise.

import { byId } from "./dom.ts";

const DONE_FOR = 1500;

export function offerCopies(): void {
  for (const button of document.querySelectorAll<HTMLButtonElement>("[data-copies]")) {
    button.addEventListener("click", async () => {
      const source = byId(button.dataset.copies ?? "", HTMLElement);
      button.dataset.done = (await copy(source.dataset.copy ?? source.textContent ?? "")) ? "yes" : "no";
      setTimeout(() => delete button.dataset.done, DONE_FOR);
    });
  }
}

async function copy(text: string): Promise<boolean> {
  // Browsers offer the clipboard on https and localhost only; a server at home has neither.
  if (!navigator.clipboard) return copySelected(text);
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text);
  }
}

function copySelected(text: string): boolean {
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return copied;
}
