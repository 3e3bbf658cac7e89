// A broadcaster in the studio, with Chromium's pretended camera and microphone, and a viewer beside. tests/tests/studio.rs acts
// on the server in between.
//
//   KEY=… node studio.mjs live ORIGIN SCREENSHOT_FOLDER
//   Events: wrong_key; live (what viewer and broadcaster see); turned (the phone is upright now); moved (to another network);
//   taken (somebody else wants the same name); reconnected (after the server was started again); ended.
//
//   KEY=… node studio.mjs taken_over ORIGIN SCREENSHOT_FOLDER
//   Events: yielded (the newer publisher of a name stays).
//
//   KEY=… node studio.mjs layers ORIGIN SCREENSHOT_FOLDER
//   Events: layered (three sizes are sent, and offered to the viewer).
//
//   KEY=… node studio.mjs sound ORIGIN SCREENSHOT_FOLDER
//   Events: shared (the screen's sound and the microphone's are sent as one); without_voice, without_both, without_screen (how loud
//   what is sent is then); given_none (the browser shares no sound).
//
//   KEY=… node studio.mjs words ORIGIN SCREENSHOT_FOLDER
//   Events: denied (no permission); insecure (no https); no_udp (HTTP works, and nothing else).

import axe from "axe-core";
import { launchWith, quantile, tell, visit } from "./page.mjs";

const STEP_TIMEOUT = 60_000;
const WIDTHS = [1280, 390];
const DEVICE = "--use-fake-device-for-media-stream=fps=20";
const ARGUMENTS = ["--allow-loopback-in-peer-connection"];
const STREAM = "live/tab";

const [scenario, origin, folder] = process.argv.slice(2);
const key = process.env.KEY;

try {
  await { live, taken_over: takenOver, layers, sound, words }[scenario]();
} catch (error) {
  tell("failed", { message: String(error?.stack ?? error) });
  process.exitCode = 1;
}

async function live() {
  const browser = await launchWith([...ARGUMENTS, DEVICE, "--use-fake-ui-for-media-stream"]);
  const studio = await open(browser, `${origin}/studio#key=not-the-key-not-the-key&stream=${STREAM}`);
  const { page } = studio;
  const carried = page.url();
  await turnOn(page);
  await page.getByRole("button", { name: "Go live" }).click();
  await page.getByText("This is not the publish key of this server.").waitFor({ timeout: STEP_TIMEOUT });
  tell("wrong_key", { ...(await inspect(page, "studio-wrong-key")), url: carried });

  await page.getByLabel("Publish key").fill(key);
  await page.keyboard.press("Enter");
  await inPhase(page, "live");
  const viewer = await visit(browser, `${origin}/watch/${STREAM}`);
  await viewer.goto();
  await viewer.page.evaluate(() => (window.clock.every = Number.POSITIVE_INFINITY));
  await viewer.page.waitForFunction(() => window.clock.frames.length > 20, null, { timeout: STEP_TIMEOUT });
  await page.getByText("1 viewer", { exact: true }).waitFor({ timeout: STEP_TIMEOUT });
  await page.locator("#loss-graph path[d^=M]").first().waitFor({ state: "attached", timeout: STEP_TIMEOUT });
  await page.waitForFunction(() => !/–/.test(document.querySelector("#dials").textContent), null, { timeout: STEP_TIMEOUT });
  const sent = await page.evaluate(grid);
  const shown = await viewer.page.evaluate(grid);
  tell("live", {
    ...(await inspect(page, "studio-live")),
    // Of most fields: something moves in a few, and the viewer is a second behind.
    distance: quantile(distances(sent.colours, shown.colours), 0.5),
    contrast: Math.max(...shown.colours.flatMap((one) => distances(shown.colours, shown.colours.map(() => one)))),
    size: shown.size,
    sound: await viewer.page.evaluate(() => window.tidecast.video.webkitAudioDecodedByteCount),
    dials: await page.$$eval("#dials > div", (rows) => rows.map((row) => row.textContent)),
    link: await page.textContent("#link"),
    codec: await page.evaluate(() => window.peers.at(-1).getSenders().find(({ track }) => track.kind === "video").getParameters().codecs[0].mimeType),
  });

  // A phone that is turned: the same track has another shape from one picture to the next.
  await page.evaluate(async () => {
    const [track] = document.querySelector("#preview").srcObject.getVideoTracks();
    await track.applyConstraints({ width: { exact: 360 }, height: { exact: 480 } });
  });
  const upright = () => window.tidecast.video.videoWidth < window.tidecast.video.videoHeight;
  await viewer.page.waitForFunction(upright, null, { timeout: STEP_TIMEOUT });
  await page.setViewportSize({ width: 390, height: 800 });
  await page.screenshot({ path: `${folder}/studio-upright-390.png`, fullPage: true });
  tell("turned", await viewer.page.evaluate(() => ({ size: [window.tidecast.video.videoWidth, window.tidecast.video.videoHeight] })));

  const patched = page.waitForResponse((response) => response.request().method() === "PATCH", { timeout: STEP_TIMEOUT });
  await page.evaluate(() => window.dispatchEvent(new Event("online")));
  const patch = await patched;
  await page.waitForFunction(() => document.documentElement.dataset.phase === "live", null, { timeout: STEP_TIMEOUT });
  await framesGoOn(viewer.page);
  tell("moved", {
    status: patch.status(),
    condition: (await patch.request().allHeaders())["if-match"],
    sessions: studio.posts(),
    peer: await page.evaluate(() => window.peers.at(-1).connectionState),
  });

  const other = await open(browser, `${origin}/studio#key=${key}&stream=${STREAM}`);
  await turnOn(other.page);
  await other.page.getByRole("button", { name: "Go live" }).click();
  await other.page.locator("#air-fault", { hasText: "Somebody else is live under this name." }).waitFor({ timeout: STEP_TIMEOUT });
  const looked = await inspect(other.page, "studio-taken");
  await other.page.context().close();

  // From before the server ends: it may be back within a second.
  const sessions = studio.posts();
  const waits = page.waitForFunction(() => document.documentElement.dataset.phase === "waiting", null, { timeout: STEP_TIMEOUT, polling: 50 });
  tell("taken", looked);
  await waits;
  await page.screenshot({ path: `${folder}/studio-reconnecting.png`, fullPage: true });
  await inPhase(page, "live");
  await framesGoOn(viewer.page);
  tell("reconnected", { sessions: studio.posts() - sessions });

  await page.getByRole("button", { name: "Stop" }).click();
  await inPhase(page, "idle");
  await page.waitForFunction(() => window.peers.every(({ connectionState }) => connectionState === "closed"));
  await page.getByRole("button", { name: "Go live" }).waitFor();
  tell("ended", {
    problems: [...studio.problems, ...viewer.problems],
    leaks: studio.addresses.filter((address) => address.includes(key)),
    logged: studio.logged.filter((line) => line.includes(key)),
    stored: await page.evaluate((text) => JSON.stringify({ ...localStorage }).includes(text), key),
  });
  await browser.close();
}

async function takenOver() {
  const browser = await launchWith([...ARGUMENTS, DEVICE, "--use-fake-ui-for-media-stream"]);
  const studios = [];
  for (let i = 0; i < 2; i++) {
    const studio = await open(browser, `${origin}/studio#key=${key}&stream=${STREAM}`);
    studios.push(studio);
    await turnOn(studio.page);
    await studio.page.getByRole("button", { name: "Go live" }).click();
    await inPhase(studio.page, "live");
    // Its pictures have come: before that there is nobody to give way to.
    await studio.page.locator("#viewers", { hasText: /viewers$/ }).waitFor({ timeout: STEP_TIMEOUT });
  }
  const [older, newer] = studios;
  await older.page.locator("#state-words", { hasText: "Somebody else is live under this name." }).waitFor({ timeout: STEP_TIMEOUT });
  tell("yielded", { older: older.posts(), newer: newer.posts(), phase: await newer.page.evaluate(() => document.documentElement.dataset.phase) });
  await browser.close();
}

async function layers() {
  const browser = await launchWith([...ARGUMENTS, DEVICE, "--use-fake-ui-for-media-stream"]);
  const { page, problems } = await open(browser, `${origin}/studio#key=${key}&stream=${STREAM}`);
  await turnOn(page);
  // Of a smaller picture browsers make two.
  await page.getByLabel("Quality").selectOption("high");
  await page.waitForFunction(() => document.querySelector("#preview").videoHeight === 720, null, { timeout: STEP_TIMEOUT });
  await page.getByLabel("Sent in").selectOption("three");
  await page.getByRole("button", { name: "Go live" }).click();
  await inPhase(page, "live");
  const sent = async () => {
    const all = [...(await window.peers.at(-1).getStats()).values()];
    const video = all.filter(({ type, kind, framesSent }) => type === "outbound-rtp" && kind === "video" && framesSent > 0);
    return video.map(({ frameWidth }) => frameWidth).sort((a, b) => a - b);
  };
  const begun = performance.now();
  while ((await page.evaluate(sent)).length < 3 && performance.now() - begun < STEP_TIMEOUT) await page.waitForTimeout(100);
  tell("layered", {
    ...(await inspect(page, "studio-layers")),
    problems,
    widths: await page.evaluate(sent),
    limits: await page.evaluate(() => {
      const sender = window.peers.at(-1).getSenders().find(({ track }) => track.kind === "video");
      return sender.getParameters().encodings.map(({ maxBitrate }) => maxBitrate);
    }),
    locked: await page.getByLabel("Sent in").isDisabled(),
  });
  await page.getByRole("button", { name: "Stop" }).click();
  await inPhase(page, "idle");
  await browser.close();
}

/** The pretended microphone beeps, and so does the pretended screen. */
async function sound() {
  const browser = await launchWith([...ARGUMENTS, DEVICE, "--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required"]);
  const { page, problems } = await open(browser, `${origin}/studio#key=${key}&stream=${STREAM}`);
  await turnOn(page);
  await page.getByRole("button", { name: "Go live" }).click();
  await inPhase(page, "live");
  await page.getByRole("button", { name: "Share screen" }).click();
  await page.locator("#screen-meter").waitFor({ timeout: STEP_TIMEOUT });
  await page.waitForFunction(() => !/ 100(\.0)?%/.test(document.querySelector("#screen-meter-bar").style.clipPath), null, { timeout: STEP_TIMEOUT });
  tell("shared", { ...(await inspect(page, "studio-sound")), problems, words: await page.textContent("#meter-words"), peak: await page.evaluate(loudness) });
  const mute = page.getByRole("button", { name: "Mute", exact: true });
  const muteScreen = page.getByRole("button", { name: "Mute the screen" });
  /** The page says it with its next look at the meter. */
  const heard = async (words) => {
    await page.locator("#meter-words", { hasText: words }).waitFor({ timeout: STEP_TIMEOUT });
    return { words: await page.textContent("#meter-words"), peak: await page.evaluate(loudness) };
  };
  await mute.click();
  tell("without_voice", await heard(/^Muted/));
  await muteScreen.click();
  tell("without_both", await heard(/^Muted.*muted/));
  await mute.click();
  tell("without_screen", await heard(/^The screen.*muted/));

  // As Firefox and Safari do, and as whoever leaves the box unticked.
  await page.evaluate(() => {
    const { mediaDevices } = navigator;
    const share = mediaDevices.getDisplayMedia.bind(mediaDevices);
    mediaDevices.getDisplayMedia = async (wishes) => new MediaStream((await share(wishes)).getVideoTracks());
  });
  await page.getByRole("button", { name: "Share screen" }).click();
  await page.locator("#meter-words", { hasText: /without its sound/ }).waitFor({ timeout: STEP_TIMEOUT });
  tell("given_none", {
    ...(await inspect(page, "studio-no-sound")),
    words: await page.textContent("#meter-words"),
    peak: await page.evaluate(loudness),
    meters: await page.locator(".meter:visible").count(),
  });
  await page.getByRole("button", { name: "Stop" }).click();
  await inPhase(page, "idle");
  await browser.close();
}

/** Runs inside the studio: the peak of what is sent, over two seconds; the pretended devices beep once in each. */
async function loudness() {
  const { track } = window.peers.at(-1).getSenders().find((sender) => sender.track?.kind === "audio");
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 8_192;
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  let peak = 0;
  for (const begun = performance.now(); performance.now() - begun < 2_000; ) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    analyser.getFloatTimeDomainData(samples);
    peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), peak);
  }
  await context.close();
  return peak;
}

async function words() {
  const denying = await launchWith([...ARGUMENTS, DEVICE, "--deny-permission-prompts", "--host-resolver-rules=MAP tidecast.test 127.0.0.1"]);
  const denied = await open(denying, `${origin}/studio`);
  await denied.page.getByRole("button", { name: "Turn on camera and microphone" }).click();
  await denied.page.locator("#capture-fault", { hasText: /./ }).waitFor({ timeout: STEP_TIMEOUT });
  tell("denied", { ...(await inspect(denied.page, "studio-denied")), words: await denied.page.textContent("#capture-fault") });

  const insecure = await open(denying, `${origin.replace("127.0.0.1", "tidecast.test")}/studio`);
  await insecure.page.locator("#unfit", { hasText: /./ }).waitFor({ timeout: STEP_TIMEOUT });
  tell("insecure", { ...(await inspect(insecure.page, "studio-insecure")), words: await insecure.page.textContent("#unfit") });
  await denying.close();

  const browser = await launchWith([...ARGUMENTS, DEVICE, "--use-fake-ui-for-media-stream"]);
  const { page } = await open(browser, `${origin}/studio#key=${key}&stream=live/cut-off`);
  // The server as it would be behind a firewall: its answer leads to where nobody listens.
  await page.route("**/whip/**", async (route) => {
    if (route.request().method() !== "POST") return route.continue();
    const response = await route.fetch();
    const body = (await response.text()).replace(/^(a=candidate:\S+ \d+ udp \d+ \S+) \d+ /gim, "$1 9 ");
    await route.fulfill({ response, body: body.replace(/^a=candidate:\S+ \d+ tcp .*\r\n/gim, "") });
  });
  const ended = page.waitForRequest((request) => request.method() === "DELETE", { timeout: STEP_TIMEOUT });
  await turnOn(page);
  await page.getByRole("button", { name: "Go live" }).click();
  await page.locator("#air-fault", { hasText: /./ }).waitFor({ timeout: STEP_TIMEOUT });
  const session = await (await ended).response();
  tell("no_udp", { ...(await inspect(page, "studio-no-udp")), words: await page.textContent("#air-fault"), deleted: session?.status() ?? 0 });
  await browser.close();
}

/** A studio that is looked into: what it asks for, logs and does. */
async function open(browser, url) {
  const context = await browser.newContext({ viewport: { width: WIDTHS[0], height: 800 } });
  const page = await context.newPage();
  const [problems, addresses, logged] = [[], [], []];
  let posts = 0;
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("crash", () => problems.push("the page crashed"));
  page.on("console", (message) => {
    logged.push(message.text());
    if (/Content Security Policy/.test(message.text())) problems.push(message.text());
  });
  page.on("request", (request) => {
    addresses.push(request.url());
    if (request.method() === "POST") posts += 1;
  });
  await page.addInitScript(() => {
    window.peers = [];
    const Peer = window.RTCPeerConnection;
    window.RTCPeerConnection = class extends Peer {
      constructor(...settings) {
        super(...settings);
        window.peers.push(this);
      }
    };
  });
  await page.goto(url);
  return { page, problems, addresses, logged, posts: () => posts };
}

async function turnOn(page) {
  // Small: the test runs on machines with other work.
  await page.getByLabel("Quality").selectOption("low");
  await page.getByRole("button", { name: "Turn on camera and microphone" }).click();
  await page.waitForFunction(() => document.querySelector("#preview").videoWidth > 0, null, { timeout: STEP_TIMEOUT });
  await page.waitForFunction(() => document.querySelector("#camera").options.length > 0 && !document.querySelector("#camera").disabled);
}

async function inPhase(page, phase) {
  await page.waitForSelector(`html[data-phase="${phase}"]`, { state: "attached", timeout: STEP_TIMEOUT });
}

/** Another second of pictures. */
async function framesGoOn(page) {
  const frames = await page.evaluate(() => window.clock.frames.length);
  await page.waitForFunction((until) => window.clock.frames.length > until, frames + 20, { timeout: STEP_TIMEOUT });
}

/** Runs inside a page: the mean colours of 8 x 6 fields of what is sent, or of what is watched. */
function grid() {
  const source = window.tidecast?.video ?? document.querySelector("#preview");
  const canvas = new OffscreenCanvas(8, 6).getContext("2d", { willReadFrequently: true });
  canvas.imageSmoothingQuality = "high";
  canvas.drawImage(source, 0, 0, 8, 6);
  const { data } = canvas.getImageData(0, 0, 8, 6);
  const colours = Array.from({ length: 48 }, (_, i) => [...data.slice(4 * i, 4 * i + 3)]);
  return { colours, size: [source.videoWidth, source.videoHeight] };
}

/** Of each field, in steps of 255. */
function distances(one, other) {
  return one.map((colour, i) => colour.reduce((sum, value, c) => sum + Math.abs(value - other[i][c]), 0) / colour.length);
}

/** What people look at, and what axe says is serious or worse, wide and narrow; and what sticks out. */
async function inspect(page, name) {
  const axed = [];
  for (const width of WIDTHS) {
    await page.setViewportSize({ width, height: 800 });
    await page.screenshot({ path: `${folder}/${name}-${width}.png`, fullPage: true });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    if (overflow > 0) axed.push(`${width}: ${overflow} px too wide`);
    await page.evaluate(axe.source);
    const { violations } = await page.evaluate(() => window.axe.run());
    const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
    axed.push(...serious.map(({ id, nodes }) => `${width}: ${id}: ${nodes.map(({ html }) => html).join(" ")}`));
  }
  await page.setViewportSize({ width: WIDTHS[0], height: 800 });
  return { axe: axed };
}
