// What the page says. Pure.

import * as format from "../format.ts";
import type { Entry, Expected, Load, Rung, SettingList, Trust } from "./cluster.ts";

/** How a node's or a stream's state looks and reads. A state of a later release reads as it is. */
export function badge(state: string): [look: string, text: string] {
  const looks: Record<string, string> = {
    serving: "good", live: "good", starting: "busy", draining: "alert", interrupted: "alert", suspect: "alert", lost: "lost",
  };
  return [looks[state] ?? "quiet", state];
}

export function cpu({ cpu }: Load): string {
  return `${Math.round(cpu * 100)} %`;
}

export function egress({ egress, egress_max: max }: Load): string {
  return max > 0 ? `${format.bitrate(egress)} of ${format.bitrate(max)}` : format.bitrate(egress);
}

/** The share of the limit, 0 to 1; null without one, when nothing is a share of anything. */
export function egressShare({ egress, egress_max: max }: Load): number | null {
  return max > 0 ? Math.min(1, egress / max) : null;
}

export function heard(silent: number): string {
  return silent < 1000 ? "just now" : `${Math.round(silent / 1000)} s ago`;
}

/** From here on the server tells of a certificate's end as well (`ENDS_SOON`). In milliseconds. */
const ENDS_SOON = 14 * 24 * 3_600_000;

/** When a node's certificate ends; "" without one. Times in Unix milliseconds. */
export function certificate(ends: number | null | undefined, now: number): string {
  if (ends === null || ends === undefined) return "";
  if (ends <= now) return "certificate has ended";
  if (ends - now < ENDS_SOON) return `certificate ends in ${count(Math.floor((ends - now) / (24 * 3_600_000)), "day")}`;
  return `certificate until ${new Date(ends).toISOString().slice(0, 10)}`;
}

/** Whether an operator should look after it. */
export function isCertificateDue(ends: number | null | undefined, now: number): boolean {
  return typeof ends === "number" && ends - now < ENDS_SOON;
}

export function count(n: number, one: string): string {
  return n === 1 ? `1 ${one}` : `${n} ${one}s`;
}

/** What comes, and who watches: `1280×720 · H.264 · 30 fps · keyframe each 2.0 s · 2.6 Mb/s · 3 viewers`. */
export function facts({ facts, viewers }: Entry): string {
  const video = facts?.video ?? null;
  const picture = video ? [`${video.width}×${video.height}`, format.codecName(video.codec)] : [];
  const rate = facts?.frame_rate ?? video?.frame_rate ?? null;
  const keyframes = facts?.keyframe_interval ?? null;
  const said = [
    ...picture,
    video && rate !== null ? `${Number(rate.toFixed(1))} fps` : "",
    keyframes === null ? "" : `keyframe each ${format.seconds(keyframes)}`,
    facts && facts.bitrate !== null ? format.bitrate(facts.bitrate) : "",
    viewers === undefined ? "" : format.viewers(viewers),
  ];
  return said.filter(Boolean).join(" · ");
}

/** What is made of it: `Renditions: 480p 1.2 Mb/s, 360p 700 kb/s`; "" if nothing is. */
export function renditions({ facts }: Entry): string {
  const encoded = (facts?.ladder ?? []).filter((rung) => rung.encoded);
  const rung = ({ height, bitrate, on_demand: onDemand }: Rung) =>
    `${height}p${bitrate === null ? "" : ` ${format.bitrate(bitrate)}`}${onDemand ? " while it is watched" : ""}`;
  return encoded.length === 0 ? "" : `Renditions: ${encoded.map(rung).join(", ")}`;
}

/** `live/cam: 5000 viewers are expected from 10:12:33 on, at edge1, edge2`. Times in Unix milliseconds. */
export function expected({ stream, viewers, at_ms, edges }: Expected, now: number): string {
  return `${stream}: ${count(viewers, "viewer")} expected from ${time(at_ms, now)} on, at ${edges.join(", ") || "no edge"}`;
}

/** What all nodes have alike, a line each: `hls.profile is low for all nodes, set on a`. */
export function settings({ settings }: SettingList): string[] {
  return settings.flatMap(({ key, cluster, here, origin }) => {
    if (cluster === null) return [];
    const { value, by } = cluster;
    const other = here === value ? "" : `; here it is ${here ?? "none"} (${origin})`;
    return `${key} is ${value} for all nodes from their next start, set on ${by}${other}`;
  });
}

/** What is not as it was when the cluster was made, a line each. `now` in Unix milliseconds. */
export function trust(trust: Trust | null, now: number): string[] {
  if (trust === null) return [];
  const { roots, revoked, tokens } = trust;
  const lines = tokens.map(({ node, ends_ms }) => `A token waits for ${node ?? "any machine"} to join until ${time(ends_ms, now)}`);
  if (roots > 1) lines.push(`${roots} roots are trusted: tidecast cluster rotate --finish drops the old one`);
  if (revoked.length > 0) lines.push(`Put out of the cluster: ${revoked.join(", ")}`);
  return lines;
}

/** `10:12:33`; with the day if that is another one. Both in Unix milliseconds. */
export function time(at: number, now: number): string {
  const date = new Date(at);
  const two = (n: number) => String(n).padStart(2, "0");
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  if (date.toDateString() === new Date(now).toDateString()) return clock;
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock}`;
}
