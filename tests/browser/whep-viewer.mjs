// A viewer by WHEP (WebRTC), for scripts that open one in a page.

/** Runs inside the page: begins to watch, and returns once a picture is shown. */
export async function watch(url) {
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
  let longestStill = 0;
  let stood = null;
  window.whep = {
    stats,
    /** Of the picture, as it comes now. */
    codec: async () => {
      const all = await peer.getStats();
      const video = [...all.values()].find((stat) => stat.type === "inbound-rtp" && stat.kind === "video");
      return all.get(video.codecId).mimeType;
    },
    isOver: () => peer.connectionState !== "connected",
    /** Until the picture has this width, or another one than before. */
    pin: async (name, expected) => {
      const { width, video: before } = await stats();
      const isThere = () => (expected ? video.videoWidth === expected : video.videoWidth !== width);
      const asked = performance.now();
      const { status } = await fetch(session, {
        method: "PATCH",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ rendition: name }),
      });
      while (!isThere() && performance.now() - asked < 20_000) await pause(20);
      const { video: after } = await stats();
      return {
        status,
        width: video.videoWidth,
        switched_ms: performance.now() - asked,
        freezes: after.freezeCount - before.freezeCount,
        lost: after.packetsLost - before.packetsLost,
      };
    },
    /** For how long no picture came, at most, in milliseconds; the time since the last one counts. */
    longestStill: () => longestStill,
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
  const times = { post_ms: answered - asked, shown_ms: (await shown) - start };
  let [decoded, moved] = [-1, performance.now()];
  const look = async () => {
    const { framesDecoded } = (await stats()).video;
    const now = performance.now();
    longestStill = Math.max(longestStill, now - moved);
    if (framesDecoded !== decoded) [decoded, moved] = [framesDecoded, now];
    setTimeout(look, 50);
  };
  void look();
  return times;
}
