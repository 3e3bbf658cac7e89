// Watches a stream by WHEP in which each flash of the picture comes with a beep, and says how far apart the two are for the viewer.
//
//   node lip-sync.mjs ORIGIN STREAM SECONDS
//
// Events: watched. `heard`: of each flash, by how many milliseconds its beep was heard after it was seen. `own`: how much of that the
// browser knows of, since its buffer of sound is longer than that of pictures, or its sound card has no time: the difference between
// the moments of the stream that it plays, by the sender reports. `told`: the rest, which is what it was told wrong.

import { run, tell, visit } from "./page.mjs";
import { watch } from "./whep-viewer.mjs";

const [origin, stream, seconds] = process.argv.slice(2);

await run(scenario, ["--allow-loopback-in-peer-connection"]);

async function scenario(browser) {
  // No page, and so without a script of its own.
  const { page, problems, goto } = await visit(browser, `${origin}/state`);
  await goto();
  await page.evaluate(watch, `${origin}/whep/${stream}?wait`);
  const { flashes, beeps, lags } = await page.evaluate(look, Number(seconds) * 1000);
  // They are two seconds apart.
  const pairs = beeps.map((beep) => [beep, nearest(flashes, (flash) => beep - flash)]).filter(([beep, flash]) => Math.abs(beep - flash) < 1_000);
  const heard = pairs.map(([beep, flash]) => beep - flash);
  const own = pairs.map(([beep]) => nearest(lags, ({ at }) => beep - at).lag);
  tell("watched", { heard, own, told: heard.map((late, i) => late - own[i]), flashes: flashes.length, beeps: beeps.length, problems });
}

function nearest(all, distance) {
  return [...all].sort((a, b) => Math.abs(distance(a)) - Math.abs(distance(b)))[0];
}

/** Runs inside the page: when it flashed and when it beeped, for so many milliseconds, and how far the sound lags by the browser. */
async function look(span) {
  const WHITE = 150;
  const LOUD = 0.1;
  /** Nothing loud for this long goes before a beep, in seconds. */
  const SILENCE = 0.3;
  const video = document.querySelector("video");
  const [flashes, beeps, lags] = [[], [], []];

  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  let wasWhite = true;
  const onFrame = (_, { expectedDisplayTime }) => {
    canvas.drawImage(video, 0, 0, 1, 1);
    const isWhite = canvas.getImageData(0, 0, 1, 1).data[1] > WHITE;
    if (isWhite && !wasWhite) flashes.push(expectedDisplayTime);
    wasWhite = isWhite;
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);

  const looking = setInterval(async () => {
    const { audio, video } = await window.whep.stats();
    // Neither is there before its first packet.
    const lag = video?.estimatedPlayoutTimestamp - audio?.estimatedPlayoutTimestamp;
    if (Number.isFinite(lag)) lags.push({ at: performance.now(), lag });
  }, 250);
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  // More than this script is ever kept waiting.
  analyser.fftSize = 32_768;
  context.createMediaStreamSource(/** @type {MediaStream} */ (video.srcObject)).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  let [heardUntil, loudAt] = [context.currentTime, context.currentTime];
  for (const begun = performance.now(); performance.now() - begun < span; ) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    // What was rendered last, and when that was.
    const [now, end] = [performance.now(), context.currentTime];
    analyser.getFloatTimeDomainData(samples);
    const fresh = Math.min(samples.length, Math.round((end - heardUntil) * context.sampleRate));
    for (let i = samples.length - fresh; i < samples.length; i++) {
      if (Math.abs(samples[i]) < LOUD) continue;
      const at = end - (samples.length - i) / context.sampleRate;
      if (at - loudAt > SILENCE) beeps.push(now - (end - at) * 1000);
      loudAt = at;
    }
    heardUntil = end;
  }
  clearInterval(looking);
  return { flashes, beeps, lags };
}
