// A small graph of the last minutes, as an SVG path.

/** A span in milliseconds, and a value over it. */
export type Point = [span: number, value: number];

const WIDTH = 300;
const HEIGHT = 64;
/** A young stream does not fill the graph: a minute has at least this place. */
const SPAN_MIN = 60_000;
/** Headroom above the highest value, so that the line does not stick to the edge. */
const HEADROOM = 1.15;

export interface Shape {
  /** The line, and the area below it. */
  line: string;
  area: string;
  lowest: number;
  highest: number;
}

export interface Frame {
  /** What the width stands for at least, in milliseconds. */
  spanMin?: number;
  /** The value at the upper edge; without it, a little above the highest. */
  top?: number | undefined;
}

/** Newest on the right; null while there is nothing to draw. */
export function shape(points: Point[], { spanMin = SPAN_MIN, top }: Frame = {}): Shape | null {
  const total = points.reduce((sum, [span]) => sum + span, 0);
  if (total <= 0) return null;
  const values = points.map(([, value]) => value);
  const highest = Math.max(...values);
  const scaleX = WIDTH / Math.max(total, spanMin);
  const height = Math.max(top ?? highest * HEADROOM, highest);
  const scaleY = height > 0 ? HEIGHT / height : 0;
  let at = WIDTH - total * scaleX;
  const start = at;
  const line = points.map(([span, value], i) => {
    at += span * scaleX;
    return `${i === 0 ? "M" : "L"}${round(i === 0 ? start : at)} ${round(HEIGHT - value * scaleY)}`;
  });
  const path = line.join("");
  return { line: path, area: `${path}L${WIDTH} ${HEIGHT}L${round(start)} ${HEIGHT}Z`, lowest: Math.min(...values), highest };
}

function round(number: number): number {
  return Math.round(number * 10) / 10;
}

const SVG = "http://www.w3.org/2000/svg";

export function draw(svg: SVGElement, drawn: Shape | null, label: string): void {
  const paths = ["graph-area", "graph-line"].map((className, i) => {
    const path = svg.children[i] ?? svg.appendChild(document.createElementNS(SVG, "path"));
    path.setAttribute("class", className);
    return path;
  });
  paths[0]?.setAttribute("d", drawn?.area ?? "");
  paths[1]?.setAttribute("d", drawn?.line ?? "");
  svg.setAttribute("aria-label", label);
}
