// Publishes the browser's camera by WHIP in one codec, and watches it by WHEP and, on the watch page, by HLS.
//
//   node whip-codecs.mjs ORIGIN STREAM KEY SCREENSHOT CODEC [VIEWER]
//
// CODEC as in VP9; VIEWER: the only one that the viewer by WHEP takes, if it does not take all. Events: published (the codec
// that is sent, or "none" if this browser cannot); watched and played (what each of the two viewers sees); ended.

import { run, tell, visit } from "./page.mjs";
import { watch } from "./whep-viewer.mjs";

const STEP_TIMEOUT = 60_000;

const [origin, stream, key, screenshot, codec, viewer] = process.argv.slice(2);

await run(scenario, [
  "--use-fake-ui-for-media-stream",
  "--use-fake-device-for-media-stream=fps=15",
  "--allow-loopback-in-peer-connection",
]);

async function scenario(browser) {
  const studio = await visit(browser, `${origin}/`);
  await studio.goto();
  const published = await studio.page.evaluate(publish, { url: `${origin}/whip/${stream}`, key, codec });
  tell("published", published);
  if (published.codec === "none") return;

  const { page, goto } = await visit(browser, `${origin}/`);
  await goto();
  await page.evaluate(only, viewer);
  await page.evaluate(watch, `${origin}/whep/${stream}?wait`);
  tell("watched", { ...(await page.evaluate(moves)), codec: await page.evaluate(() => window.whep.codec()), problems: [] });

  const hls = await visit(browser, `${origin}/watch/${stream}?via=hls`);
  await hls.goto();
  await hls.page.waitForFunction(() => window.clock.frames.length > 20, null, { timeout: STEP_TIMEOUT });
  const played = await hls.page.evaluate(moves);
  await hls.page.screenshot({ path: screenshot });
  tell("played", { ...played, codec: "", problems: hls.problems });
  tell("ended", { status: await studio.page.evaluate(() => window.whip.end()) });
}

/** Runs inside the page of a viewer by WHEP, before it watches: its offer has this codec alone. */
function only(codec) {
  if (!codec) return;
  const { addTransceiver } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.addTransceiver = function (kind, more) {
    const transceiver = addTransceiver.call(this, kind, more);
    if (kind === "video") {
      const { codecs } = RTCRtpReceiver.getCapabilities("video");
      const known = [`video/${codec}`, "video/rtx"];
      transceiver.setCodecPreferences(codecs.filter(({ mimeType }) => known.includes(mimeType)));
    }
    return transceiver;
  };
}

/** Runs inside a viewer's page: waits until a good part of its pixels have changed. */
async function moves() {
  const video = window.tidecast?.video ?? document.querySelector("video");
  const [width, height] = [64, 36];
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  const look = () => {
    context.drawImage(video, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  };
  const [begun, before] = [performance.now(), look()];
  let moved = 0;
  while (moved < 20 && performance.now() - begun < 20_000) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    const now = look();
    moved = 0;
    for (let at = 1; at < now.length; at += 4) if (Math.abs(now[at] - before[at]) > 40) moved += 1;
  }
  return { moved, width: video.videoWidth, height: video.videoHeight };
}

/** Runs inside the publishing page. */
async function publish({ url, key, codec }) {
  const { codecs } = RTCRtpSender.getCapabilities("video");
  const own = codecs.filter(({ mimeType }) => mimeType === `video/${codec}`);
  if (own.length === 0) return { codec: "none" };
  const media = await navigator.mediaDevices.getUserMedia({
    video: { width: 640, height: 360, frameRate: 15 },
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  for (const track of media.getTracks()) {
    const transceiver = peer.addTransceiver(track, { direction: "sendonly", streams: [media] });
    if (track.kind === "video") {
      transceiver.setCodecPreferences([...own, ...codecs.filter(({ mimeType }) => mimeType === "video/rtx")]);
    }
  }
  const authorization = `Bearer ${key}`;
  await peer.setLocalDescription();
  const answer = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/sdp", authorization },
    body: peer.localDescription.sdp,
  });
  const sdp = await answer.text();
  if (answer.status !== 201) throw new Error(`${answer.status}: ${sdp}`);
  const session = new URL(answer.headers.get("location"), url).href;
  await peer.setRemoteDescription({ type: "answer", sdp });
  window.whip = {
    end: async () => {
      const { status } = await fetch(session, { method: "DELETE", headers: { authorization } });
      peer.close();
      return status;
    },
  };
  const sent = async () => {
    const all = await peer.getStats();
    const outbound = [...all.values()].find(({ type, kind }) => type === "outbound-rtp" && kind === "video");
    return outbound?.framesSent > 0 && all.get(outbound.codecId)?.mimeType;
  };
  const begun = performance.now();
  let mimeType = null;
  while (!mimeType && performance.now() - begun < 30_000) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    mimeType = await sent();
  }
  return { codec: mimeType || "nothing" };
}
