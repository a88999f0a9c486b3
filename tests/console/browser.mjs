// What the tests in a browser share: a gateway with all services on tables of its own, a page that may ask nobody else,
// screenshots, and the walk through the steps of one test.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const [root, pictures] = process.argv.slice(2);
const { chromium } = createRequire(join(root, "target/tools/browser/package.json"))("playwright-core");
export const program = join(root, "target/debug/tidegate");
export const TOKEN = "a-token-for-the-console";
export const PATIENCE = 20_000;

/** A gateway on tables of its own, so that they can be broken. */
async function gateway(folder) {
  cpSync(join(root, "routes.yaml"), join(folder, "routes.yaml"));
  cpSync(join(root, "descriptors"), join(folder, "descriptors"), { recursive: true });
  const env = { ...process.env, TIDEGATE_ADMIN_TOKEN: TOKEN };
  const child = spawn(program, ["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], { cwd: folder, env, stdio: ["ignore", "ignore", "pipe"] });
  for await (const line of createInterface({ input: child.stderr })) {
    const log = JSON.parse(line).fields;
    if (log.message === "gateway ready") {
      child.stderr.resume();
      return { child, data: `http://${log.listen}`, admin: `http://${log.admin.match(/[\d.]+:\d+/)[0]}` };
    }
  }
  throw new Error("the gateway did not start");
}

/** Waits until a question has the wanted answer. */
export async function eventually(what, question, wanted) {
  const start = Date.now();
  for (;;) {
    const answer = await question();
    if (answer === wanted) return;
    assert(Date.now() - start < PATIENCE, `${what}: ${answer} instead of ${wanted}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Nothing on the page is nameless for who hears it read, and no heading's level is left out. */
export async function hasNamesAndLevels(page) {
  const nameless = await page.evaluate(() => [...document.querySelectorAll("input, select, textarea, button")]
    .filter((one) => !(one.labels?.length || one.textContent.trim() || one.getAttribute("aria-label"))).map((one) => one.outerHTML));
  assert.deepEqual(nameless, []);
  const levels = await page.evaluate(() => [...document.querySelectorAll("h1, h2, h3")].map((one) => Number(one.tagName[1])));
  levels.reduce((before, level) => (assert(level <= before + 1, `h${level} behind h${before}`), level), 0);
}

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

/** A page, what went wrong on it, and its pictures: light, dark, narrow. */
async function watched(browser, admin) {
  const page = await browser.newPage({ viewport: { width: 1360, height: 860 } });
  page.setDefaultTimeout(PATIENCE);
  const trouble = [];
  page.on("pageerror", (error) => trouble.push(String(error)));
  // A refused request is in the log by itself; anything else there is ours, and so is a broken policy.
  page.on("console", (line) => line.type() === "error" && !line.text().startsWith("Failed to load resource") && trouble.push(line.text()));
  page.on("request", (request) => new URL(request.url()).origin !== admin && request.url().startsWith("http") && trouble.push(`asked ${request.url()}`));
  const shot = async (name) => {
    if (!pictures) return;
    for (const [scheme, width] of [["light", 1360], ["dark", 1360], ["light", 400]]) {
      await page.emulateMedia({ colorScheme: scheme });
      await page.setViewportSize({ width, height: width < 600 ? 800 : 860 });
      await page.screenshot({ path: join(pictures, `${name}-${width < 600 ? "narrow" : scheme}.png`) });
    }
    await page.emulateMedia({ colorScheme: "light" });
    await page.setViewportSize({ width: 1360, height: 860 });
  };
  return { page, trouble, shot };
}

/** Takes the steps in their order, and ends the process: with 1 at the first one that fails. */
export async function walk(steps) {
  const folder = mkdtempSync(join(tmpdir(), "tidegate-browser-"));
  const { child, data, admin } = await gateway(folder);
  const browser = await launch();
  let code = 0;
  try {
    const { page, trouble, shot } = await watched(browser, admin);
    for (const [name, step] of Object.entries(steps)) {
      try {
        await step({ page, data, admin, folder, shot });
        assert.deepEqual(trouble, []);
        console.log(`ok   ${name}`);
      } catch (error) {
        console.log(`FAIL ${name}\n${error.stack}`);
        if (pictures) await page.screenshot({ path: join(pictures, "failed.png") });
        code = 1;
        break;
      }
    }
  } finally {
    await browser.close();
    child.kill();
    rmSync(folder, { recursive: true, force: true });
  }
  process.exit(code);
}
