// A QR code as one SVG path: sharp at every size, and allowed by a policy without inline styles.

import encodeQR from "qr";

/** Four modules around, as ISO/IEC 18004 wants; many phones read nothing with less. */
const QUIET = 4;

/** Size in modules, and the path of the dark ones. */
export function qrPath(text: string): { size: number; path: string } {
  const rows = encodeQR(text, "raw", { ecc: "medium", border: QUIET });
  const path = rows.flatMap((row, y) => row.flatMap((dark, x) => (dark ? [`M${x} ${y}h1v1h-1z`] : []))).join("");
  return { size: rows.length, path };
}

const SVG = "http://www.w3.org/2000/svg";

export function drawQr(svg: SVGElement, text: string): void {
  const { size, path } = qrPath(text);
  svg.setAttribute("viewBox", `0 0 ${size} ${size}`);
  const modules = svg.firstElementChild ?? svg.appendChild(document.createElementNS(SVG, "path"));
  modules.setAttribute("d", path);
}
