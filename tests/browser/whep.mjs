// Watches a stream by WHEP (WebRTC), as a page with thirty lines of script does.
//
//   node whep.mjs ORIGIN STREAM SECONDS SCREENSHOT [RENDITION]
//
// Events: watched (after SECONDS: how soon it was there, and what getStats counted); pinned (with RENDITION: after it was
// asked for); stood, returned (with RENDITION: once the picture stood still for a second, and once it moved again); ended (the
// server said goodbye).

import { launchWith, tell, visit } from "./page.mjs";

const STEP_TIMEOUT = 60_000;

const [origin, stream, seconds, screenshot, rendition] = process.argv.slice(2);

const browser = await launchWith(["--allow-loopback-in-peer-connection"]);
try {
  await scenario();
} catch (error) {
  tell("failed", { message: String(error?.stack ?? error) });
  process.exitCode = 1;
} finally {
  await browser.close();
}

async function scenario() {
  const { page, goto } = await visit(browser, `${origin}/`);
  await goto();
  const times = await page.evaluate(watch, `${origin}/whep/${stream}`);
  const before = await page.evaluate(() => window.whep.stats());
  await page.waitForFunction((until) => performance.now() > until, before.now + seconds * 1000, {
    timeout: STEP_TIMEOUT,
  });
  const after = await page.evaluate(() => window.whep.stats());
  await page.screenshot({ path: screenshot });
  tell("watched", {
    times,
    watched_s: (after.now - before.now) / 1000,
    frames: after.video.framesDecoded - before.video.framesDecoded,
    lost: after.video.packetsLost + after.audio.packetsLost,
    delay_ms: (1000 * after.video.jitterBufferDelay) / after.video.jitterBufferEmittedCount,
    energy: after.audio.totalAudioEnergy,
    width: after.width,
    profile: after.profile,
  });
  if (rendition !== undefined) {
    tell("pinned", await page.evaluate((name) => window.whep.pin(name), rendition));
    await page.evaluate(() => window.whep.stands());
    tell("stood", {});
    tell("returned", await page.evaluate(() => window.whep.moves()));
  }
  await page.waitForFunction(() => window.whep.isOver(), null, { timeout: STEP_TIMEOUT });
  tell("ended", {});
}

/** Runs inside the page: begins to watch, and returns once a picture is shown. */
async function watch(url) {
  const start = performance.now();
  const peer = new RTCPeerConnection();
  const media = new MediaStream();
  peer.ontrack = ({ track }) => media.addTrack(track);
  peer.addTransceiver("video", { direction: "recvonly" });
  peer.addTransceiver("audio", { direction: "recvonly" });
  await peer.setLocalDescription(await peer.createOffer());
  const asked = performance.now();
  const answer = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/sdp" },
    body: peer.localDescription.sdp,
  });
  const text = await answer.text();
  if (answer.status !== 201) throw new Error(`${answer.status}: ${text}`);
  const answered = performance.now();
  const session = new URL(answer.headers.get("Location"), url);
  const video = document.createElement("video");
  video.autoplay = true;
  video.srcObject = media;
  document.body.replaceChildren(video);
  const shown = new Promise((resolve) => video.requestVideoFrameCallback(() => resolve(performance.now())));
  await peer.setRemoteDescription({ type: "answer", sdp: text });

  const stats = async () => {
    const all = [...(await peer.getStats()).values()];
    const inbound = (kind) => all.find((stat) => stat.type === "inbound-rtp" && stat.kind === kind);
    const profile = all.find((stat) => stat.type === "transport")?.srtpCipher;
    return { now: performance.now(), video: inbound("video"), audio: inbound("audio"), width: video.videoWidth, profile };
  };
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  let stood = null;
  window.whep = {
    stats,
    isOver: () => peer.connectionState !== "connected",
    /** Until the picture has another width. */
    pin: async (name) => {
      const { width, video: before } = await stats();
      const asked = performance.now();
      const { status } = await fetch(session, {
        method: "PATCH",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ rendition: name }),
      });
      while (video.videoWidth === width && performance.now() - asked < 20_000) await pause(20);
      const { video: after } = await stats();
      return {
        status,
        width: video.videoWidth,
        switched_ms: performance.now() - asked,
        freezes: after.freezeCount - before.freezeCount,
        lost: after.packetsLost - before.packetsLost,
      };
    },
    /** Until the picture has stood still for a second. */
    stands: async () => {
      let [frames, moved] = [-1, performance.now()];
      while (performance.now() - moved <= 1_000) {
        const { video } = await stats();
        if (video.framesDecoded !== frames) [frames, moved] = [video.framesDecoded, performance.now()];
        await pause(50);
      }
      stood = { frames, moved };
    },
    /** Until it moves again. */
    moves: async () => {
      while ((await stats()).video.framesDecoded === stood.frames) await pause(50);
      return { stood_ms: performance.now() - stood.moved, state: peer.connectionState };
    },
  };
  return { post_ms: answered - asked, shown_ms: (await shown) - start };
}
