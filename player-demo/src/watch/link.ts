// What a WebRTC session says of itself, out of the browser's counters (W3C, "Identifiers for WebRTC's Statistics API"). Pure.

/** Times in seconds; null is "not known". */
export interface Link {
  /** `UDP` or `TCP`. */
  protocol: string | null;
  roundTrip: number | null;
  /** Share of the packets of the last seconds that never came, 0 to 1. */
  loss: number | null;
  jitter: number | null;
  /** Pictures shown so far, and left out. Firefox counts none in the element of a session. */
  frames: number;
  droppedFrames: number;
  freezes: number;
  frozenFor: number;
  /** Bits per second over the last seconds, pictures and sound. */
  bitrate: number | null;
  /** Between the broadcaster's clock and what is shown, if the server has told its clock. */
  latency: number | null;
  width: number;
  height: number;
}

/** What only grows. */
export interface Counts {
  /** In milliseconds. */
  at: number;
  packets: number;
  lost: number;
  bytes: number;
  /** Pictures decoded; packets of the sound where there are no pictures. */
  shown: number;
}

/** Of so many readings the oldest is what the newest is compared to. */
const READINGS_MAX = 20;

/** From 1900, where NTP begins, to 1970, in milliseconds. */
const NTP_TO_UNIX = 2_208_988_800_000;

export class Meter {
  private readonly readings: Counts[] = [];

  /** `now` is Unix time in milliseconds. */
  read(stats: readonly RTCStats[], hasPicture: boolean, now: number): { link: Link; counts: Counts } {
    const inbound = stats.filter((stat): stat is RTCInboundRtpStreamStats => stat.type === "inbound-rtp");
    const video = inbound.find(({ kind }) => kind === "video");
    const audio = inbound.find(({ kind }) => kind === "audio");
    const total = (of: (stat: RTCInboundRtpStreamStats) => number | undefined) =>
      inbound.reduce((sum, stat) => sum + (of(stat) ?? 0), 0);
    const counts: Counts = {
      at: now,
      packets: total((stat) => stat.packetsReceived),
      lost: total((stat) => stat.packetsLost),
      bytes: total((stat) => stat.bytesReceived),
      shown: (hasPicture ? video?.framesDecoded : audio?.packetsReceived) ?? 0,
    };
    this.readings.push(counts);
    if (this.readings.length > READINGS_MAX) this.readings.shift();
    const before = this.readings[0] ?? counts;
    const [lost, came] = [Math.max(0, counts.lost - before.lost), counts.packets - before.packets];
    const pair = pairInUse(stats);
    const seconds = (counts.at - before.at) / 1000;
    const link: Link = {
      protocol: pair.protocol,
      roundTrip: pair.roundTrip,
      loss: lost + came > 0 ? lost / (lost + came) : null,
      jitter: (video ?? audio)?.jitter ?? null,
      frames: video?.framesDecoded ?? 0,
      droppedFrames: video?.framesDropped ?? 0,
      freezes: video?.freezeCount ?? 0,
      frozenFor: video?.totalFreezesDuration ?? 0,
      bitrate: seconds > 0 ? ((counts.bytes - before.bytes) * 8) / seconds : null,
      latency: behind((video ?? audio)?.estimatedPlayoutTimestamp, now),
      width: video?.frameWidth ?? 0,
      height: video?.frameHeight ?? 0,
    };
    return { link, counts };
  }
}

/** Browsers count it from 1900, as NTP does, or from 1970. */
function behind(playout: number | undefined, now: number): number | null {
  if (!playout) return null;
  const shown = playout > now + NTP_TO_UNIX / 2 ? playout - NTP_TO_UNIX : playout;
  return (now - shown) / 1000;
}

function pairInUse(stats: readonly RTCStats[]): { protocol: string | null; roundTrip: number | null } {
  const byId = (id: string | undefined) => stats.find((stat) => stat.id === id);
  const transport = stats.find((stat): stat is RTCTransportStats => stat.type === "transport");
  const pair = byId(transport?.selectedCandidatePairId) as RTCIceCandidatePairStats | undefined;
  const local = byId(pair?.localCandidateId) as { protocol?: string } | undefined;
  return { protocol: local?.protocol?.toUpperCase() ?? null, roundTrip: pair?.currentRoundTripTime ?? null };
}
