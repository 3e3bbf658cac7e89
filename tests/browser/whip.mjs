// Publishes the browser's camera and microphone by WHIP, as a page with twenty lines of script does, and watches the
// stream on its watch page beside it.
//
//   node whip.mjs ORIGIN STREAM KEY SCREENSHOT [MORE]
//
// Events: published (what the server answered, once connected); looked (what the watch page shows, and what the sender
// counted); restarted (with MORE = "restart": after an ICE restart); ended. With MORE = "tcp" the browser is not told of
// UDP: what is left where a firewall drops it.

import { run, tell, visit } from "./page.mjs";

/** How long the stream is watched, for a browser's bitrate to climb. */
const SECONDS = 12;
const STEP_TIMEOUT = 40_000;

const [origin, stream, key, screenshot, more] = process.argv.slice(2);

await run(scenario, [
  "--use-fake-ui-for-media-stream",
  "--use-fake-device-for-media-stream=fps=30",
  "--allow-loopback-in-peer-connection",
]);

async function scenario(browser) {
  const studio = await visit(browser, `${origin}/`);
  await studio.goto();
  const published = await studio.page.evaluate(publish, { url: `${origin}/whip/${stream}`, key, tcp: more === "tcp" });
  tell("published", published);

  const { page, problems, goto } = await visit(browser, `${origin}/watch/${stream}`);
  await goto();
  await page.waitForFunction(() => window.clock.frames.length > 0, null, { timeout: STEP_TIMEOUT });
  const before = await page.evaluate(measure);
  await page.waitForFunction((until) => performance.now() > until, before.now + SECONDS * 1000, {
    timeout: STEP_TIMEOUT,
  });
  const after = await page.evaluate(measure);
  await page.screenshot({ path: screenshot });
  tell("looked", {
    problems,
    watched_s: (after.now - before.now) / 1000,
    frames: after.frames - before.frames,
    audio_bytes: after.audioBytes - before.audioBytes,
    size: after.size,
    sender: await studio.page.evaluate(() => window.whip.stats()),
  });
  if (more === "restart") {
    tell("restarted", await studio.page.evaluate(() => window.whip.restart()));
  }
  tell("ended", await studio.page.evaluate(() => window.whip.end()));
}

/** Runs inside the watch page. */
function measure() {
  const { video } = window.tidecast;
  return {
    now: performance.now(),
    frames: window.clock.frames.length,
    audioBytes: video.webkitAudioDecodedByteCount,
    size: [video.videoWidth, video.videoHeight],
  };
}

/** Runs inside the publishing page. */
async function publish({ url, key, tcp }) {
  const media = await navigator.mediaDevices.getUserMedia({
    video: { width: 640, height: 360, frameRate: 30 },
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  for (const track of media.getTracks()) {
    const transceiver = peer.addTransceiver(track, { direction: "sendonly", streams: [media] });
    if (track.kind === "video") {
      const codecs = RTCRtpSender.getCapabilities("video").codecs;
      const known = ["video/H264", "video/rtx"];
      transceiver.setCodecPreferences(codecs.filter((codec) => known.includes(codec.mimeType)));
    }
  }
  const authorization = `Bearer ${key}`;
  await peer.setLocalDescription();
  const answer = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/sdp", authorization },
    body: peer.localDescription.sdp,
  });
  if (answer.status !== 201) throw new Error(`${answer.status}: ${await answer.text()}`);
  const session = new URL(answer.headers.get("location"), url).href;
  let etag = answer.headers.get("etag");
  const told = await answer.text();
  const sdp = tcp ? told.replace(/a=candidate:\S+ 1 udp .*\r\n/g, "") : told;
  await peer.setRemoteDescription({ type: "answer", sdp });
  const connected = () =>
    new Promise((resolve) => {
      const look = () => ["connected", "failed"].includes(peer.connectionState) && resolve(peer.connectionState);
      peer.addEventListener("connectionstatechange", look);
      look();
    });
  const state = await connected();

  // The most that it ever aimed at: on a machine with other work it goes up and down.
  let targetBitrateMax = 0;
  setInterval(async () => {
    for (const one of (await peer.getStats()).values()) targetBitrateMax = Math.max(targetBitrateMax, one.targetBitrate ?? 0);
  }, 250);

  const stats = async () => {
    const all = [...(await peer.getStats()).values()];
    const video = all.find((one) => one.type === "outbound-rtp" && one.kind === "video");
    const transport = all.find((one) => one.type === "transport");
    return {
      framesSent: video.framesSent,
      keyFramesEncoded: video.keyFramesEncoded,
      pliCount: video.pliCount,
      nackCount: video.nackCount,
      targetBitrateMax,
      srtpCipher: transport.srtpCipher,
    };
  };
  const restart = async () => {
    peer.restartIce();
    const offer = await peer.createOffer({ iceRestart: true });
    await peer.setLocalDescription(offer);
    const lines = offer.sdp.split("\r\n");
    const first = (begin) => lines.find((line) => line.startsWith(begin));
    const fragment = [first("a=ice-ufrag:"), first("a=ice-pwd:"), "m=audio 9 RTP/AVP 0", "a=mid:0", ""].join("\r\n");
    const patch = await fetch(session, {
      method: "PATCH",
      headers: { "content-type": "application/trickle-ice-sdpfrag", "if-match": "*", authorization },
      body: fragment,
    });
    if (patch.status !== 200) throw new Error(`${patch.status}: ${await patch.text()}`);
    const ours = (await patch.text()).split("\r\n");
    const value = (begin) => ours.find((line) => line.startsWith(begin));
    const sdp = peer.remoteDescription.sdp
      .replace(/a=ice-ufrag:.*\r\n/g, `${value("a=ice-ufrag:")}\r\n`)
      .replace(/a=ice-pwd:.*\r\n/g, `${value("a=ice-pwd:")}\r\n`);
    await peer.setRemoteDescription({ type: "answer", sdp });
    // What is sent from here on goes over the new pair.
    const sentBefore = (await stats()).framesSent;
    while ((await stats()).framesSent < sentBefore + 60 && peer.connectionState !== "failed") {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const changed = etag !== patch.headers.get("etag");
    etag = patch.headers.get("etag");
    return { changed, state: peer.connectionState, framesSent: (await stats()).framesSent - sentBefore };
  };
  const end = async () => {
    const gone = await fetch(session, { method: "DELETE", headers: { authorization } });
    peer.close();
    return { status: gone.status };
  };
  window.whip = { stats, restart, end };
  return { state, session, etag };
}
