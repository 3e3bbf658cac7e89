/** The element the page's HTML promises; a missing one is a bug in the page, told at once. */
export function byId<T extends Element>(id: string, type: abstract new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`the page has no ${type.name} #${id}`);
  return element;
}

/** Text is written only when it changes: a live region would repeat itself, and a selection would be lost. */
export function write(element: Element | null | undefined, text: string): void {
  if (element && element.textContent !== text) element.textContent = text;
}

export function setText(id: string, text: string): void {
  write(byId(id, HTMLElement), text);
}

/** An element with its class and its text; text is never markup. */
export function part(tag: string, className: string, text = ""): HTMLElement {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}
