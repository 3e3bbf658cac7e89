// The way from every page to the one that explains the browser's warning, where there is something to explain.

import { byId } from "./dom.ts";
import { NODES_ADDRESS, type Nodes } from "./api.ts";

/** Shows the link in the footer if this server's certificate is its own. */
export async function explainWarning(): Promise<void> {
  try {
    const response = await fetch(NODES_ADDRESS);
    if (response.ok) byId("trust", HTMLElement).hidden = !((await response.json()) as Nodes).self_signed;
  } catch {
    // The server is not there; the page finds out by itself.
  }
}
