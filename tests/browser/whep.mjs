// Watches a stream by WHEP in Chromium: whep.mjs BASE live/name SECONDS
// Prints one JSON object: what getStats() and the picture say at the end.
import { chromium } from 'playwright-core';

const [base, stream, seconds] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  headless: true,
  args: [
    '--no-sandbox',
    '--autoplay-policy=no-user-gesture-required',
    '--allow-loopback-in-peer-connection',
    '--disable-features=WebRtcHideLocalIpsWithMdns',
  ],
});
const page = await browser.newPage();
page.on('console', (message) => console.error(message.text()));
await page.goto(`${base}/state`);
const told = await page.evaluate(async ({ base, stream, seconds }) => {
  const began = performance.now();
  const peer = new RTCPeerConnection();
  const video = document.createElement('video');
  video.autoplay = true;
  video.muted = true;
  document.body.append(video);
  const media = new MediaStream();
  peer.ontrack = (event) => { media.addTrack(event.track); video.srcObject = media; };
  peer.addTransceiver('video', { direction: 'recvonly' });
  peer.addTransceiver('audio', { direction: 'recvonly' });
  await peer.setLocalDescription(await peer.createOffer());
  const posted = performance.now();
  const answer = await fetch(`${base}/whep/${stream}`, {
    method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: peer.localDescription.sdp,
  });
  const text = await answer.text();
  if (answer.status !== 201) return { status: answer.status, text };
  const answered = performance.now();
  const connected = new Promise((resolve) => {
    peer.onconnectionstatechange = () => {
      if (peer.connectionState === 'connected') resolve(performance.now());
    };
    setTimeout(() => resolve(null), 10_000);
  });
  const shown = new Promise((resolve) => {
    video.requestVideoFrameCallback(() => resolve(performance.now()));
    setTimeout(() => resolve(null), 10_000);
  });
  await peer.setRemoteDescription({ type: 'answer', sdp: text });
  const at = { post: answered - posted, connected: (await connected) - began, shown: (await shown) - began };
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const stats = [...(await peer.getStats()).values()].filter((stat) => stat.type === 'inbound-rtp');
  const of = (kind) => stats.find((stat) => stat.kind === kind) ?? {};
  const { framesDecoded, freezeCount, totalFreezesDuration, packetsLost, nackCount, pliCount, frameWidth, framesDropped,
    keyFramesDecoded, jitterBufferDelay, jitterBufferEmittedCount } = of('video');
  const audio = of('audio');
  return {
    at, state: peer.connectionState, width: video.videoWidth, location: answer.headers.get('location'),
    video: { framesDecoded, freezeCount, totalFreezesDuration, packetsLost, nackCount, pliCount, frameWidth, framesDropped,
      keyFramesDecoded, delay_ms: 1000 * jitterBufferDelay / jitterBufferEmittedCount },
    audio: { packets: audio.packetsReceived, lost: audio.packetsLost, energy: audio.totalAudioEnergy,
      concealed: audio.concealedSamples, total: audio.totalSamplesReceived },
  };
}, { base, stream, seconds: Number(seconds) });
await page.screenshot({ path: process.argv[5] ?? '/tmp/whep.png' });
console.log(JSON.stringify(told, null, 1));
await browser.close();
