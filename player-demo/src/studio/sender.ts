// One peer connection that sends: what it offers, and what may change while it does.

import { use as useIceServers } from "../ice-servers.ts";
import { restartFragment, restarted } from "./sdp.ts";

/** What the picture is: text stays sharp, movement stays smooth. The browser's words (MediaStreamTrack Content Hints). */
export type Hint = "motion" | "detail";

export interface Wishes {
  hint: Hint;
  /** Bits per second for the picture, at most. */
  bitrateMax: number;
  /** Send it in three sizes at once (simulcast). */
  layered: boolean;
}

/** Of each size: by what the sides are divided, and the share of the bits. Browsers want the smallest first, and leave out the
 * smallest of small pictures. */
const LAYERS = [
  { rid: "q", scale: 4, share: 1 / 12 },
  { rid: "h", scale: 2, share: 1 / 4 },
  { rid: "f", scale: 1, share: 1 },
];

/** This browser has no encoder for what can be sent. */
export class NoCodec extends Error {}

export class Sender {
  readonly peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  private offered: RTCSessionDescriptionInit | undefined;
  private readonly transceivers = new Map<string, RTCRtpTransceiver>();

  /** @throws {NoCodec} */
  constructor(media: MediaStream, wishes: Wishes) {
    for (const track of media.getTracks()) {
      const encodings = track.kind === "video" ? encodingsOf(wishes) : [{}];
      const transceiver = this.peer.addTransceiver(track, { direction: "sendonly", streams: [media], sendEncodings: encodings });
      if (track.kind === "video") prefer(transceiver);
      this.transceivers.set(track.kind, transceiver);
    }
    this.hint(wishes.hint);
  }

  /** Without candidates: the server is ICE-lite and asks nobody, so there is nothing to wait for. */
  async offer(): Promise<string> {
    this.offered = await this.peer.createOffer();
    return this.offered.sdp ?? "";
  }

  /** `link`: the server's STUN and TURN servers. */
  async begin(answer: string, link: string | null): Promise<void> {
    useIceServers(this.peer, link);
    await this.peer.setLocalDescription(this.offered);
    await this.accept(answer);
  }

  private async accept(answer: string): Promise<void> {
    await this.peer.setRemoteDescription({ type: "answer", sdp: answer });
  }

  /** `exchange` brings our fragment to the server, and back its own. */
  async restart(exchange: (fragment: string) => Promise<string>): Promise<void> {
    const answer = this.peer.remoteDescription?.sdp;
    const offer = await this.peer.createOffer({ iceRestart: true });
    if (!answer || !offer.sdp) throw new Error("no session to restart");
    await this.peer.setLocalDescription(offer);
    await this.accept(restarted(answer, await exchange(restartFragment(offer.sdp))));
  }

  sends(kind: string): boolean {
    return this.transceivers.has(kind);
  }

  /** Another camera, microphone or screen, in the same session; a picture may have another size. */
  async replace(track: MediaStreamTrack): Promise<void> {
    await this.transceivers.get(track.kind)?.sender.replaceTrack(track);
  }

  hint(hint: Hint): void {
    const track = this.transceivers.get("video")?.sender.track;
    if (track) track.contentHint = hint;
  }

  async limit(bitrateMax: number): Promise<void> {
    const sender = this.transceivers.get("video")?.sender;
    const parameters = sender?.getParameters();
    if (!sender || !parameters?.encodings[0]) return;
    for (const encoding of parameters.encodings) {
      const share = LAYERS.find(({ rid }) => rid === encoding.rid)?.share ?? 1;
      encoding.maxBitrate = Math.round(bitrateMax * share);
    }
    await sender.setParameters(parameters);
  }

  close(): void {
    this.peer.close();
  }
}

function encodingsOf({ bitrateMax, layered }: Wishes): RTCRtpEncodingParameters[] {
  if (!layered) return [{ maxBitrate: bitrateMax }];
  return LAYERS.map(({ rid, scale, share }) => ({ rid, scaleResolutionDownBy: scale, maxBitrate: Math.round(bitrateMax * share) }));
}

/** As the server likes them: everybody can be shown H.264 as it is, most VP9, and VP8 only where pictures are made anew. */
const CODECS = ["h264", "vp9", "vp8"];

/** Retransmission goes with each. */
function prefer(transceiver: RTCRtpTransceiver): void {
  const codecs = RTCRtpSender.getCapabilities("video")?.codecs ?? [];
  const named = (name: string) => codecs.filter(({ mimeType }) => mimeType.toLowerCase() === `video/${name}`);
  const known = CODECS.flatMap(named);
  if (known.length === 0) throw new NoCodec(`none of ${CODECS.join(", ")}`);
  // Firefox before 128 does not know it, and offers H.264 by itself.
  transceiver.setCodecPreferences?.([...known, ...named("rtx")]);
}
