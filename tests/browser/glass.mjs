// Measures how late a picture is from one browser to another, through the server and straight.
//
//   node glass.mjs ORIGIN STREAM KEY SECONDS ROUNDS
//
// A page paints the clock that page.mjs reads and sends it, by WHIP, or by an RTCPeerConnection to the page that watches. Both
// take turns, so that whatever else the machine does disturbs them alike. Prints one line of JSON with "event": "measured".

import { quantile, run, tell, visit } from "./page.mjs";

const STEP_TIMEOUT = 40_000;
/** For the sender's bit rate to climb. */
const SETTLED = 5_000;

const [origin, stream, key, seconds, rounds] = process.argv.slice(2);

await run(async (browser) => {
  const [through, straight, problems] = [[], [], []];
  for (let round = 0; round < Number(rounds); round++) {
    through.push(...(await measure(browser, problems, byServer)));
    straight.push(...(await measure(browser, problems, directly)));
  }
  const of = (latencies) => ({ p50: quantile(latencies, 0.5), p95: quantile(latencies, 0.95), frames: latencies.length });
  tell("measured", { through: of(through), straight: of(straight), problems });
}, ["--allow-loopback-in-peer-connection"]);

/** Latencies of the pictures that a new viewer of a new sender sees. */
async function measure(browser, problems, connect) {
  // No page, and so without a script of its own.
  const [sender, viewer] = [await visit(browser, `${origin}/state`), await visit(browser, `${origin}/state`)];
  await sender.goto();
  await viewer.goto();
  await sender.page.evaluate(paint);
  for (const { page } of [sender, viewer]) await page.evaluate(define);
  await connect(sender.page, viewer.page);
  const { page } = viewer;
  await page.waitForFunction(() => window.clock.frames.length > 0, null, { timeout: STEP_TIMEOUT });
  const from = (await page.evaluate(() => performance.now())) + SETTLED;
  const to = from + Number(seconds) * 1000;
  await page.waitForFunction((until) => performance.now() > until, to, { timeout: to - from + SETTLED + STEP_TIMEOUT });
  const frames = await page.evaluate(() => window.clock.frames);
  await sender.page.evaluate(() => window.link.end());
  problems.push(...sender.problems, ...viewer.problems);
  for (const { page } of [sender, viewer]) await page.context().close();
  return frames.filter(({ now, latency }) => now > from && latency !== null).map(({ latency }) => latency);
}

async function byServer(sender, viewer) {
  await sender.evaluate(async ({ url, key }) => {
    const { peer, post } = window.link;
    window.link.send();
    await post(url, { authorization: `Bearer ${key}` });
    await window.link.connected(peer);
  }, { url: `${origin}/whip/${stream}`, key });
  await viewer.evaluate(async (url) => {
    window.link.receive();
    await window.link.post(`${url}?wait`, {});
  }, `${origin}/whep/${stream}`);
}

async function directly(sender, viewer) {
  await viewer.evaluate(() => window.link.receive());
  const offer = await sender.evaluate(async () => {
    window.link.send();
    return window.link.described(await window.link.peer.createOffer());
  });
  const answer = await viewer.evaluate(async (sdp) => {
    await window.link.peer.setRemoteDescription({ type: "offer", sdp });
    return window.link.described(await window.link.peer.createAnswer());
  }, offer);
  await sender.evaluate((sdp) => window.link.peer.setRemoteDescription({ type: "answer", sdp }), answer);
}

/** Runs inside the sending page: a picture that moves, with the clock in its first row. */
function paint() {
  const FIELDS = 20;
  const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 360 });
  document.body.replaceChildren(canvas);
  const context = canvas.getContext("2d");
  const row = canvas.height / FIELDS;
  const draw = () => {
    const now = performance.timeOrigin + performance.now();
    context.fillStyle = `hsl(${(now / 40) % 360} 40% 50%)`;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = "#246";
    for (let bar = 0; bar < 8; bar++) context.fillRect((bar * 97 + now / 9) % canvas.width, 60 + bar * 36, 60, 24);
    const made = Math.floor(now) % 2 ** FIELDS;
    for (let bit = 0; bit < FIELDS; bit++) {
      context.fillStyle = made & (2 ** bit) ? "#fff" : "#000";
      context.fillRect((bit * canvas.width) / FIELDS, 0, canvas.width / FIELDS, row);
    }
    requestAnimationFrame(draw);
  };
  draw();
  window.picture = canvas.captureStream(30);
}

/** Runs inside both pages. */
function define() {
  const peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  const gathered = () =>
    new Promise((resolve) => {
      const look = () => peer.iceGatheringState === "complete" && resolve(null);
      peer.addEventListener("icegatheringstatechange", look);
      look();
    });
  let session = null;
  let headers = {};
  window.link = {
    peer,
    send() {
      const [track] = window.picture.getTracks();
      const transceiver = peer.addTransceiver(track, { direction: "sendonly", streams: [window.picture] });
      const { codecs } = RTCRtpSender.getCapabilities("video");
      transceiver.setCodecPreferences(codecs.filter(({ mimeType }) => ["video/H264", "video/rtx"].includes(mimeType)));
    },
    receive() {
      const video = Object.assign(document.createElement("video"), { muted: true, autoplay: true, playsInline: true });
      document.body.replaceChildren(video);
      peer.ontrack = ({ track, receiver }) => {
        receiver.jitterBufferTarget = 0;
        video.srcObject = new MediaStream([track]);
      };
    },
    async described(description) {
      await peer.setLocalDescription(description);
      await gathered();
      return peer.localDescription.sdp;
    },
    async post(url, more) {
      headers = more;
      if (peer.getTransceivers().length === 0) peer.addTransceiver("video", { direction: "recvonly" });
      await peer.setLocalDescription();
      const answer = await fetch(url, {
        method: "POST",
        headers: { "content-type": "application/sdp", ...headers },
        body: peer.localDescription.sdp,
      });
      if (answer.status !== 201) throw new Error(`${answer.status}: ${await answer.text()}`);
      session = new URL(answer.headers.get("location"), url).href;
      await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    },
    connected(peer) {
      return new Promise((resolve, reject) => {
        const look = () => {
          if (peer.connectionState === "connected") resolve(null);
          if (peer.connectionState === "failed") reject(new Error("not connected"));
        };
        peer.addEventListener("connectionstatechange", look);
        look();
      });
    },
    async end() {
      if (session) await fetch(session, { method: "DELETE", headers });
      peer.close();
    },
  };
}
