// The numbers of a broadcast, out of the browser's statistics (webrtc-stats). Pure.

/** One look: totals since the beginning. */
export interface Totals {
  /** Milliseconds, by any clock that only goes on. */
  at: number;
  bytes: number;
  packets: number;
  packetsLost: number;
  frames: number;
  /** Seconds; null until the server has reported. */
  roundTrip: number | null;
  width: number;
  height: number;
  /** `none`, `cpu`, `bandwidth` or `other`. */
  limitation: string;
  codec: string;
}

/** Between two looks. */
export interface Figures {
  /** Milliseconds. */
  span: number;
  /** Bits per second, picture and sound. */
  bitrate: number;
  frameRate: number;
  /** Share of 1 of what was sent; null if nothing was. */
  loss: number | null;
  roundTrip: number | null;
}

/** What `getStats()` gives, with the members that are read here. */
export interface Stat {
  id: string;
  type: string;
  kind?: string;
  timestamp: number;
  bytesSent?: number;
  packetsSent?: number;
  packetsLost?: number;
  framesSent?: number;
  frameWidth?: number;
  frameHeight?: number;
  qualityLimitationReason?: string;
  roundTripTime?: number;
  currentRoundTripTime?: number;
  codecId?: string;
  mimeType?: string;
  nominated?: boolean;
  state?: string;
}

export function totals(stats: Iterable<Stat>, at: number): Totals {
  const all = [...stats];
  const sent = all.filter(({ type }) => type === "outbound-rtp");
  const heard = all.filter(({ type }) => type === "remote-inbound-rtp");
  const layers = sent.filter(({ kind }) => kind === "video");
  const most = (member: "frameWidth" | "framesSent") => Math.max(0, ...layers.map((layer) => layer[member] ?? 0));
  // Of several sizes the largest that is sent is what viewers see first.
  const video = layers.find(({ frameWidth }) => (frameWidth ?? 0) === most("frameWidth")) ?? layers[0];
  const pair = all.find(({ type, nominated, state }) => type === "candidate-pair" && nominated && state === "succeeded");
  const codec = all.find(({ id }) => id === video?.codecId);
  const sum = (list: Stat[], member: "bytesSent" | "packetsSent" | "packetsLost") =>
    list.reduce((total, stat) => total + (stat[member] ?? 0), 0);
  return {
    at,
    bytes: sum(sent, "bytesSent"),
    packets: sum(sent, "packetsSent"),
    packetsLost: sum(heard, "packetsLost"),
    // Of the one that has sent most, so that it never goes back.
    frames: most("framesSent"),
    // ICE asks all the time; RTCP only where the server reports.
    roundTrip: pair?.currentRoundTripTime ?? heard.find(({ roundTripTime }) => roundTripTime !== undefined)?.roundTripTime ?? null,
    width: video?.frameWidth ?? 0,
    height: video?.frameHeight ?? 0,
    limitation: video?.qualityLimitationReason ?? "none",
    codec: codec?.mimeType?.replace(/^video\//, "") ?? "",
  };
}

/** Null for looks at two connections, or at one in the same moment: totals never go back. */
export function between(before: Totals, now: Totals): Figures | null {
  const span = now.at - before.at;
  if (span <= 0 || now.bytes < before.bytes || now.frames < before.frames) return null;
  const rate = (amount: number) => (amount * 1000) / span;
  const packets = now.packets - before.packets;
  // What was thought lost may come late, and is then counted back.
  const lost = Math.max(0, now.packetsLost - before.packetsLost);
  return {
    span,
    bitrate: rate((now.bytes - before.bytes) * 8),
    frameRate: rate(now.frames - before.frames),
    loss: packets > 0 ? Math.min(1, lost / packets) : null,
    roundTrip: now.roundTrip,
  };
}
