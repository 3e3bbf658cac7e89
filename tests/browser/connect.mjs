// A broadcaster on the connect page. tests/tests/connect.rs publishes in between.
//
//   KEY=… node connect.mjs URL SCREENSHOT_FOLDER
//
// Events: wrong_key; open; refused (somebody was turned away); live (what the page shows of the stream, and of itself).

import axe from "axe-core";
import { run, tell, visit } from "./page.mjs";

const STEP_TIMEOUT = 40_000;
const WIDTHS = [1280, 360];

const [url, folder] = process.argv.slice(2);
const key = process.env.KEY;

await run(async (browser) => {
  const { page, problems, goto } = await visit(browser, url);
  page.on("console", (message) => {
    if (/Content Security Policy/.test(message.text())) problems.push(message.text());
  });
  const addresses = [];
  page.on("request", (request) => addresses.push(request.url()));
  page.on("framenavigated", (frame) => addresses.push(frame.url()));
  await goto();

  await page.getByLabel("Publish key").fill("not-the-key-not-the-key");
  await page.keyboard.press("Enter");
  await page.getByText("This is not the publish key of this server.").waitFor({ timeout: STEP_TIMEOUT });
  tell("wrong_key", await inspect("connect-wrong-key"));

  await page.getByLabel("Publish key").fill(key);
  await page.keyboard.press("Enter");
  await page.waitForSelector('html[data-view="open"]', { state: "attached", timeout: STEP_TIMEOUT });
  tell("open", { server: await page.textContent("#server"), link: await page.textContent("#link") });

  await page.locator("#banner-words", { hasText: "wrong key" }).waitFor({ timeout: STEP_TIMEOUT });
  const refused = await page.textContent("#banner-words");
  tell("refused", { ...(await inspect("connect-refused")), words: refused });

  await page.waitForSelector('html[data-state="live"]', { state: "attached", timeout: STEP_TIMEOUT });
  await page.waitForFunction(() => !/–/.test(document.querySelector("#dials").textContent), null, { timeout: STEP_TIMEOUT });
  await page.locator("#bitrate-graph path[d^=M]").first().waitFor({ state: "attached", timeout: STEP_TIMEOUT });
  const dials = await page.$$eval("#dials > div", (rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
  const live = await inspect("connect-live");
  tell("live", {
    ...live,
    dials: dials.map((cells) => cells.join(" ").trim()),
    banner: await page.isVisible("#banner"),
    problems,
    leaks: addresses.filter((address) => address.includes(key)).length,
    stored: await page.evaluate((text) => JSON.stringify({ ...localStorage }).includes(text), key),
  });

  /** What people look at, and what axe says is serious or worse, wide and narrow. */
  async function inspect(name) {
    const axed = [];
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: 800 });
      await page.screenshot({ path: `${folder}/${name}-${width}.png`, fullPage: true });
      await page.evaluate(axe.source);
      const { violations } = await page.evaluate(() => window.axe.run());
      const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
      axed.push(...serious.map(({ id, nodes }) => `${width}: ${id}: ${nodes.map(({ html }) => html).join(" ")}`));
    }
    await page.setViewportSize({ width: WIDTHS[0], height: 800 });
    return { axe: axed };
  }
});
