// Opens a watch page in the Chromium of this machine and looks at it as a viewer would: at the pixels.
//
// Every page gets `window.clock` before its own scripts run. It reads the bars that scripts/publish.sh paints into the
// picture: row 0 is Unix time in milliseconds modulo 2^20, row 1 (with --frame-number) the number of the film's frame.

import { chromium } from "playwright-core";

const ARGUMENTS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"];

/** With more of Chromium's switches. */
export async function launchWith(more) {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  return chromium.launch({ executablePath, headless: true, args: [...ARGUMENTS, ...more] });
}

/** A new visitor on `url`; `problems` collects what no page may have. */
export async function visit(browser, url, more = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...more });
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("crash", () => problems.push("the page crashed"));
  await page.addInitScript(installClock);
  return { page, problems, goto: () => page.goto(url) };
}

/** As behind a firewall that lets nobody through but a TURN server. Whether the page's newest connection goes by it is `relayed`'s. */
export async function relayOnly(page) {
  await page.addInitScript(() => {
    const Peer = window.RTCPeerConnection;
    window.RTCPeerConnection = class extends Peer {
      constructor(settings) {
        super({ ...settings, iceTransportPolicy: "relay" });
        window.newestPeer = this;
      }
    };
  });
}

/** Of the pair of candidates that it goes by: a connection is there a moment before the statistics tell of it. */
export function relayed(page) {
  return page.evaluate(async () => {
    for (;;) {
      const stats = [...(await window.newestPeer.getStats()).values()];
      const pair = stats.find(({ type, nominated, state }) => type === "candidate-pair" && nominated && state === "succeeded");
      const candidate = stats.find(({ id }) => id === pair?.localCandidateId);
      if (candidate) return candidate.candidateType === "relay";
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  });
}

/** Runs inside the page. */
function installClock() {
  const FIELDS = 20;
  const MODULUS = 2 ** FIELDS;
  const canvas = new OffscreenCanvas(1, 1);
  const context = canvas.getContext("2d", { willReadFrequently: true });

  const clock = {
    /** One entry per presented frame: performance.now() and media time, and what the bars said (null: unreadable). */
    frames: [],
    /** Set to a frame rate divisor to read only every n-th frame: reading costs time that playing needs. */
    every: 1,
    read,
    grid,
  };
  window.clock = clock;

  // The video element appears when the page's script makes it; requestVideoFrameCallback must be there before the
  // first picture is.
  let followed = null;
  const look = () => {
    const video = window.tidecast?.video ?? document.querySelector("video");
    if (video && video !== followed) {
      followed = video;
      video.requestVideoFrameCallback(onFrame);
    }
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);

  function onFrame(now, { expectedDisplayTime, mediaTime, presentedFrames }) {
    const frame = { now, presentedFrames, mediaTime, latency: null };
    if (presentedFrames % clock.every === 0) {
      const shown = performance.timeOrigin + Math.max(now, expectedDisplayTime);
      const made = read(followed, 0);
      if (made !== null) frame.latency = (Math.floor(shown) - made + 2 * MODULUS) % MODULUS;
    }
    clock.frames.push(frame);
    followed.requestVideoFrameCallback(onFrame);
  }

  /** The number in one row of bars, or null if a field is neither black nor white: then there are no bars. */
  function read(video, row) {
    const { videoWidth: width, videoHeight: height } = video;
    if (!width) return null;
    canvas.width = width;
    canvas.height = 1;
    const y = Math.floor((height / 20) * (row + 0.5));
    context.drawImage(video, 0, y, width, 1, 0, 0, width, 1);
    const { data } = context.getImageData(0, 0, width, 1);
    let number = 0;
    for (let bit = 0; bit < FIELDS; bit++) {
      const green = data[4 * Math.floor((width / FIELDS) * (bit + 0.5)) + 1];
      if (green > 80 && green < 175) return null;
      if (green >= 175) number += 2 ** bit;
    }
    return number;
  }

  /** The frame on the screen: its number, and the mean colour of each of 16 x 9 fields, row by row. */
  function grid(video) {
    const [columns, rows] = [16, 9];
    const { videoWidth: width, videoHeight: height } = video;
    const whole = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    whole.drawImage(video, 0, 0);
    const { data } = whole.getImageData(0, 0, width, height);
    // All from one drawing: the video goes on meanwhile.
    const field = (bit) => data[4 * (width * Math.floor((height / 20) * 1.5) + Math.floor((width / FIELDS) * (bit + 0.5))) + 1];
    let number = 0;
    for (let bit = 0; bit < FIELDS; bit++) if (field(bit) > 127) number += 2 ** bit;
    const colours = [];
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const [left, right] = [column, column + 1].map((n) => Math.floor((n * width) / columns));
        const [top, bottom] = [row, row + 1].map((n) => Math.floor((n * height) / rows));
        const sum = [0, 0, 0];
        for (let y = top; y < bottom; y++) {
          for (let x = left; x < right; x++) for (let c = 0; c < 3; c++) sum[c] += data[4 * (y * width + x) + c];
        }
        colours.push(sum.map((total) => total / ((right - left) * (bottom - top))));
      }
    }
    return { number, colours };
  }
}

/** One line of JSON on stdout: how a script talks to whoever started it. */
export function tell(event, more = {}) {
  console.log(JSON.stringify({ event, ...more }));
}

/** The value at a share of a list, 0.5 being the median; null for none. */
export function quantile(values, share) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

/** Runs `main`, with more of Chromium's switches, and reports a failure as an event, so that nobody waits for the next one in vain. */
export async function run(main, more = []) {
  const browser = await launchWith(more);
  let status = 0;
  try {
    await main(browser);
  } catch (error) {
    tell("failed", { message: [error?.stack ?? error, ...(await wordsOf(browser))].join("\n") });
    status = 1;
  } finally {
    await browser.close();
  }
  process.exit(status);
}

/** What is to be read on each page, for whoever asks why it got no further. */
async function wordsOf(browser) {
  const pages = browser.contexts().flatMap((context) => context.pages());
  const words = pages.map((page) => page.evaluate(() => document.body.innerText.replace(/\s+/g, " ").slice(0, 600)));
  const said = await Promise.allSettled(words);
  return said.map((told, number) => `${pages[number].url()} says: ${told.status === "fulfilled" ? told.value : told.reason}`);
}
