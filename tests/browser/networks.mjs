// Watches a stream by WHEP (WebRTC) on a network that others make bad, and tells all the time what it sees.
//
//   node networks.mjs ORIGIN STREAM
//
// Events: shown (the first picture); sample (every SAMPLE_MS: what was counted since the beginning); it goes on until it is
// ended, or its session is.

import { run, tell, visit } from "./page.mjs";

const SAMPLE_MS = 200;

const [origin, stream] = process.argv.slice(2);

await run(scenario);

async function scenario(browser) {
  const { page, goto } = await visit(browser, `${origin}/`);
  await goto();
  await page.exposeFunction("tellSample", (sample) => tell("sample", sample));
  tell("shown", await page.evaluate(watch, { url: `${origin}/whep/${stream}?wait`, interval: SAMPLE_MS }));
  await page.waitForFunction(() => window.isOver(), null, { timeout: 0 });
  tell("over", {});
}

/** Runs inside the page: begins to watch, and returns once a picture is shown. */
async function watch({ url, interval }) {
  const start = performance.now();
  const peer = new RTCPeerConnection();
  const media = new MediaStream();
  peer.ontrack = ({ track }) => media.addTrack(track);
  peer.addTransceiver("video", { direction: "recvonly" });
  peer.addTransceiver("audio", { direction: "recvonly" });
  await peer.setLocalDescription(await peer.createOffer());
  const headers = { "Content-Type": "application/sdp" };
  const answer = await fetch(url, { method: "POST", headers, body: peer.localDescription.sdp });
  const text = await answer.text();
  if (answer.status !== 201) throw new Error(`${answer.status}: ${text}`);
  const video = document.createElement("video");
  video.autoplay = true;
  video.srcObject = media;
  document.body.replaceChildren(video);

  // Of the pictures that were put on the screen: when the last one was, and the longest time between two since the last sample.
  let [last, stood] = [null, 0];
  const shown = new Promise((resolve) => {
    const onFrame = (now) => {
      stood = Math.max(stood, now - (last ?? now));
      last = now;
      resolve(now);
      video.requestVideoFrameCallback(onFrame);
    };
    video.requestVideoFrameCallback(onFrame);
  });
  await peer.setRemoteDescription({ type: "answer", sdp: text });
  window.isOver = () => ["failed", "closed"].includes(peer.connectionState);

  const sample = async () => {
    const all = [...(await peer.getStats()).values()];
    const inbound = (kind) => all.find((stat) => stat.type === "inbound-rtp" && stat.kind === kind) ?? {};
    const [picture, sound] = [inbound("video"), inbound("audio")];
    const transport = all.find((stat) => stat.type === "transport");
    const pair = all.find((stat) => stat.id === transport?.selectedCandidatePairId);
    const epoch = (at) => performance.timeOrigin + at;
    window.tellSample({
      at_ms: epoch(performance.now()),
      shown_ms: last === null ? null : epoch(last),
      stood_ms: stood,
      width: video.videoWidth,
      frames: picture.framesDecoded ?? 0,
      keyframes: picture.keyFramesDecoded ?? 0,
      frozen_s: picture.totalFreezesDuration ?? 0,
      freezes: picture.freezeCount ?? 0,
      plis: picture.pliCount ?? 0,
      nacks: picture.nackCount ?? 0,
      packets: picture.packetsReceived ?? 0,
      lost: picture.packetsLost ?? 0,
      resent: picture.retransmittedPacketsReceived ?? 0,
      bytes: picture.bytesReceived ?? 0,
      held_s: (picture.jitterBufferDelay ?? 0) / Math.max(1, picture.jitterBufferEmittedCount ?? 0),
      concealed: sound.concealedSamples ?? 0,
      samples: sound.totalSamplesReceived ?? 0,
      protocol: all.find((stat) => stat.id === pair?.localCandidateId)?.protocol ?? "",
      state: peer.iceConnectionState,
    });
    stood = 0;
  };
  setInterval(sample, interval);
  return { after_ms: (await shown) - start };
}
