// The operator's page of a node. tests/tests/operator.rs kills another node in between.
//
//   node operator.mjs URL SCREENSHOT_FOLDER NAME OTHER [WATCH]
//
// NAME is for the screenshots, OTHER the node that will be killed ("" if there is none).
// Events: shown (what the page says); suspect; lost; end.
//
// With WATCH, a page that shows a stream at OTHER, it looks at that stream's way through the nodes instead.
// Events: way; moved (OTHER reads it from another node); gone (the node from which it read is lost); end.

import axe from "axe-core";
import { run, tell, visit } from "./page.mjs";

const STEP_TIMEOUT = 60_000;
const LOOKS = [
  ["dark", 1280],
  ["light", 1280],
  ["dark", 360],
  ["light", 360],
];

const [url, folder, name, other, watch] = process.argv.slice(2);

await run(async (browser) => {
  const { page, problems, goto } = await visit(browser, url);
  page.on("console", (message) => {
    if (/Content Security Policy/.test(message.text())) problems.push(message.text());
  });
  await goto();
  await page.locator(".stream .badge", { hasText: "live" }).waitFor({ timeout: STEP_TIMEOUT });
  await page.locator(".stream .stream-facts", { hasText: "viewer" }).waitFor({ timeout: STEP_TIMEOUT });
  if (watch) return wayOf(page, problems);
  // A node tells how many it has with its next heartbeat.
  await page.locator(".node-counts", { hasText: "1 stream" }).waitFor({ timeout: STEP_TIMEOUT });
  await page.waitForSelector('html[data-events="following"]', { state: "attached", timeout: STEP_TIMEOUT });
  await page.locator('.event[data-kind="stream-started"]').waitFor({ timeout: STEP_TIMEOUT });
  if (other) await page.locator(`.node[data-node="${other}"]`).waitFor({ timeout: STEP_TIMEOUT });
  if (other) await page.locator(".cluster li").waitFor({ timeout: STEP_TIMEOUT });
  const texts = (selector) => page.locator(selector).allInnerTexts();
  const shown = async () => ({
    nodes: await texts(".node"),
    streams: await texts(".stream"),
    events: await texts(".event"),
    cluster: await texts(".cluster li"),
    links: await page.locator(".stream-links a").evaluateAll((links) => links.map(({ href }) => href)),
    problems,
  });

  // By keyboard alone, once the filter is reached.
  await page.getByLabel("Has the words").focus();
  await page.keyboard.type("no event has these words");
  await page.getByText("No event is like that.").waitFor({ timeout: STEP_TIMEOUT });
  await page.keyboard.press("Control+A");
  await page.keyboard.press("Delete");
  await page.getByLabel("Kind").selectOption("stream-started");
  const filtered = await page.locator(".event").evaluateAll((rows) => rows.map(({ dataset }) => dataset.kind));
  await page.getByLabel("Kind").selectOption("");
  await page.locator("body").click({ position: { x: 1, y: 1 } });
  tell("shown", { ...(await shown()), filtered, axe: await inspect("shown", page) });

  if (other) {
    await page.locator(`.node[data-node="${other}"][data-look="suspect"]`).waitFor({ timeout: STEP_TIMEOUT });
    tell("suspect", { axe: await inspect("suspect", page) });
    await page.locator(`.node[data-node="${other}"][data-look="lost"]`).waitFor({ timeout: STEP_TIMEOUT });
    const row = page.locator('.event[data-kind="node-lost"]').first();
    await row.waitFor({ timeout: STEP_TIMEOUT });
    const red = await row.evaluate((element) => getComputedStyle(element).color);
    const alarm = await page.textContent("#alarm");
    tell("lost", { ...(await shown()), row: await row.innerText(), red, alarm, axe: await inspect("lost", page) });
  }

  async function wayOf(page, problems) {
    const viewer = await visit(browser, watch);
    await viewer.goto();
    await page.locator(`.hop-box[data-node="${other}"]`, { hasText: "1 viewer" }).waitFor({ timeout: STEP_TIMEOUT });
    await page.locator('.hop-box[data-kind="worker"]').waitFor({ timeout: STEP_TIMEOUT });
    await page.locator(".stream .stream-facts", { hasText: "keyframe each" }).waitFor({ timeout: STEP_TIMEOUT });
    // Each box, and the one that it hangs on.
    const hops = () =>
      page.locator(".hop").evaluateAll((hops) =>
        hops.map((hop) => {
          const box = hop.querySelector(".hop-box");
          const { node, kind, look } = box.dataset;
          const under = hop.parentElement.closest(".hop")?.querySelector(".hop-box").dataset.node ?? "";
          return { node, kind, look, under, text: box.innerText };
        }),
      );
    const upstream = async () => (await hops()).find(({ node }) => node === other)?.under;
    const told = async (step) => ({
      hops: await hops(),
      facts: await page.locator(".stream-facts").innerText(),
      renditions: await page.locator(".stream-renditions").innerText(),
      problems,
      axe: await inspect(step, page),
    });
    // A node may answer late once.
    await page.waitForFunction(() => !document.querySelector('.hop-box:not([data-look="good"])'), null, { timeout: STEP_TIMEOUT });
    const before = await upstream();
    tell("way", await told("way"));
    const isOther = ([other, before]) => {
      const box = document.querySelector(`.hop-box[data-node="${other}"]`);
      const under = box?.closest(".hop").parentElement.closest(".hop")?.querySelector(".hop-box").dataset.node;
      return under !== undefined && under !== before;
    };
    await page.waitForFunction(isOther, [other, before], { timeout: STEP_TIMEOUT });
    tell("moved", await told("moved"));
    await page.locator(`.hop-box[data-node="${before}"][data-look="lost"]`).waitFor({ timeout: STEP_TIMEOUT });
    tell("gone", await told("gone"));
  }

  /** What people look at, and what axe says is serious or worse: wide and narrow, dark and light. */
  async function inspect(step, page) {
    const found = [];
    for (const [scheme, width] of LOOKS) {
      await page.emulateMedia({ colorScheme: scheme });
      await page.setViewportSize({ width, height: 800 });
      await page.screenshot({ path: `${folder}/operator-${name}-${step}-${scheme}-${width}.png`, fullPage: true });
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      if (overflow > 0) found.push(`${overflow} px wider than a window of ${width} px`);
      await page.evaluate(axe.source);
      const { violations } = await page.evaluate(() => window.axe.run());
      const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
      found.push(...serious.map(({ id, nodes }) => `${scheme} ${width}: ${id}: ${nodes.map(({ html }) => html).join(" ")}`));
    }
    await page.emulateMedia({ colorScheme: "dark" });
    await page.setViewportSize({ width: 1280, height: 800 });
    return found;
  }
});
