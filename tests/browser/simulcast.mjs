// Publishes the browser's camera by WHIP in three sizes at once (simulcast), and watches it by WHEP and on the watch page.
//
//   node simulcast.mjs ORIGIN STREAM KEY SCREENSHOT RENDITION:WIDTH...
//
// Events: published (the layers as the browser sends them, once it sends all, and what was answered); watched (the viewer by WHEP
// has a picture); pinned_… (for each RENDITION that the viewer asks for, its width and what was lost on the way); played (what
// the watch page shows by HLS); chosen (what its menu offers by WebRTC, and what is shown of each); off and on (what the viewer of
// the largest sees after the browser has turned that off, as on a line that has become bad, and on again); ended.

import { run, tell, visit } from "./page.mjs";
import { watch } from "./whep-viewer.mjs";

const STEP_TIMEOUT = 60_000;

const [origin, stream, key, screenshot, ...renditions] = process.argv.slice(2);

await run(scenario, [
  "--use-fake-ui-for-media-stream",
  "--use-fake-device-for-media-stream=fps=15",
  "--allow-loopback-in-peer-connection",
]);

async function scenario(browser) {
  const studio = await visit(browser, `${origin}/`);
  await studio.goto();
  tell("published", await studio.page.evaluate(publish, { url: `${origin}/whip/${stream}`, key }));

  const { page, goto } = await visit(browser, `${origin}/`);
  await goto();
  tell("watched", await page.evaluate(watch, `${origin}/whep/${stream}?wait`));
  for (const pair of renditions) {
    const [rendition, width] = pair.split(":");
    const pinned = await page.evaluate(([name, width]) => window.whep.pin(name, width), [rendition, Number(width)]);
    tell(`pinned_${rendition}`, { ...pinned, layers: await studio.page.evaluate(() => window.whip.layers()) });
  }
  tell("played", await play(browser));
  tell("chosen", await choose(browser));
  await studio.page.evaluate(() => window.whip.turn(false));
  tell("off", await page.evaluate(show, 640));
  await studio.page.evaluate(() => window.whip.turn(true));
  tell("on", await page.evaluate(show, 1280));
  tell("ended", await studio.page.evaluate(() => window.whip.end()));
}

/** The watch page, by HLS. */
async function play(browser) {
  const { page, problems, goto } = await visit(browser, `${origin}/watch/${stream}?via=hls`);
  await goto();
  await page.waitForFunction(() => window.clock.frames.length > 20, null, { timeout: STEP_TIMEOUT });
  await page.screenshot({ path: screenshot });
  const { width, height } = await page.evaluate(() => {
    const { video } = window.tidecast;
    return { width: video.videoWidth, height: video.videoHeight };
  });
  await page.close();
  return { width, height, problems };
}

/** The watch page, by WebRTC: each size of the menu in turn, the smallest first. */
async function choose(browser) {
  const { page, problems, goto } = await visit(browser, `${origin}/watch/${stream}?via=webrtc`);
  page.setDefaultTimeout(STEP_TIMEOUT);
  await goto();
  await page.waitForFunction(() => window.clock.frames.length > 20);
  const button = page.getByRole("button", { name: /^Quality/ });
  const items = page.getByRole("menu", { name: "Quality" }).getByRole("menuitemradio");
  await button.click();
  await items.filter({ hasText: /^180p/ }).waitFor();
  const offered = (await items.locator(".quality-label").allTextContents()).filter((label) => label !== "Audio only");
  await page.screenshot({ path: screenshot.replace(/\.png$/, "-menu.png") });
  await page.keyboard.press("Escape");
  const shown = [];
  for (const label of offered.slice(1).reverse()) {
    await button.click();
    await items.filter({ hasText: label }).click();
    await page.waitForFunction((height) => window.tidecast.video.videoHeight === height, Number.parseInt(label));
    shown.push(await page.evaluate(() => window.tidecast.video.videoHeight));
  }
  const { player } = await page.evaluate(() => window.tidecast.stats());
  await page.close();
  return { offered, shown, player, problems };
}

/** Runs inside the viewer's page: until the picture has this width, and what has come until then. */
async function show(width) {
  const video = document.querySelector("video");
  const [asked, { video: before }] = [performance.now(), await window.whep.stats()];
  while (video.videoWidth !== width && performance.now() - asked < 30_000) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const { video: after } = await window.whep.stats();
  return {
    width: video.videoWidth,
    lost: after.packetsLost - before.packetsLost,
    frozen_s: after.totalFreezesDuration - before.totalFreezesDuration,
  };
}

/** Runs inside the publishing page. */
async function publish({ url, key }) {
  const media = await navigator.mediaDevices.getUserMedia({
    video: { width: 1280, height: 720, frameRate: 15 },
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  for (const track of media.getTracks()) {
    const sendEncodings = [
      { rid: "q", scaleResolutionDownBy: 4 },
      { rid: "h", scaleResolutionDownBy: 2 },
      { rid: "f", scaleResolutionDownBy: 1 },
    ];
    const more = track.kind === "video" ? { sendEncodings } : {};
    const transceiver = peer.addTransceiver(track, { direction: "sendonly", streams: [media], ...more });
    if (track.kind === "video") {
      const codecs = RTCRtpSender.getCapabilities("video").codecs;
      transceiver.setCodecPreferences(codecs.filter(({ mimeType }) => ["video/H264", "video/rtx"].includes(mimeType)));
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
  // On a machine with other work the browser finds its line to be a bad one, and turns layers off.
  const steady = "$1;x-google-start-bitrate=3000;x-google-min-bitrate=3000";
  await peer.setRemoteDescription({ type: "answer", sdp: sdp.replace(/^(a=fmtp:102 .*profile-level-id=\w+)/m, steady) });

  const layers = async () => {
    const all = [...(await peer.getStats()).values()];
    const sent = all.filter(({ type, kind, framesSent }) => type === "outbound-rtp" && kind === "video" && framesSent > 0);
    return sent.map(({ rid, frameWidth, framesPerSecond, targetBitrate, pliCount }) => ({
      rid,
      width: frameWidth,
      rate: framesPerSecond ?? 0,
      target: targetBitrate ?? 0,
      plis: pliCount,
    }));
  };
  const [begun, pause] = [performance.now(), (ms) => new Promise((resolve) => setTimeout(resolve, ms))];
  while ((await layers()).length < 3 && performance.now() - begun < 30_000) await pause(50);
  const video = peer.getSenders().find(({ track }) => track.kind === "video");
  const transport = [...(await peer.getStats()).values()].find(({ type }) => type === "transport");
  window.whip = {
    layers,
    turn: async (active) => {
      const parameters = video.getParameters();
      for (const encoding of parameters.encodings) if (encoding.rid === "f") encoding.active = active;
      await video.setParameters(parameters);
    },
    end: async () => {
      const sent = await layers();
      const { status } = await fetch(session, { method: "DELETE", headers: { authorization } });
      peer.close();
      return { status, layers: sent };
    },
  };
  return {
    all_sent_ms: performance.now() - begun,
    layers: await layers(),
    answer: sdp,
    offer: peer.localDescription.sdp,
    profile: transport.srtpCipher,
  };
}
