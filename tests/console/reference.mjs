// The page of the API reference (/docs) as a client's developer uses it: all of it offline, the keyboard, light and dark.
// `CHROMIUM=/path node reference.mjs ROOT [FOLDER FOR SCREENSHOTS]`

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { eventually, hasNamesAndLevels, PATIENCE, TOKEN, walk } from "./browser.mjs";

const GENERATE = "quest_v1_QuestService_GenerateQuest";

const heading = (page) => page.locator("#operation h2").first();
const active = (page) => page.evaluate(() => document.activeElement.id || document.activeElement.textContent);

async function description(admin) {
  return (await fetch(`${admin}/openapi.json`, { headers: { authorization: `Bearer ${TOKEN}` } })).json();
}

/** The command of the page, its gap filled in. */
async function command(page, data) {
  const shown = await page.locator("#operation pre").textContent();
  assert.match(shown, /^curl .*\{player_id\}/);
  return shown.replace("{player_id}", "p1").replace("http://127.0.0.1:8080", data);
}

/** Texts whose contrast with what is behind them is below WCAG's 4.5, each once by its class. */
function faint() {
  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => {
    const [red, green, blue] = channels(colour).map((value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => {
    const colour = element ? getComputedStyle(element).backgroundColor : "rgb(255, 255, 255)";
    return element && (channels(colour)[3] ?? 1) === 0 ? behind(element.parentElement) : colour;
  };
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    const isText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) && element.checkVisibility();
    if (!isText) continue;
    const [one, other] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < 4.5) found[`${element.tagName}.${element.className}`] = contrast.toFixed(2);
  }
  return found;
}

const steps = {
  async "without the token it says where to give it, and afterwards shows the table as it runs"({ page, admin }) {
    await page.goto(`${admin}/docs`);
    await page.getByText("openapi.json cannot be read").waitFor();
    await page.getByRole("main").getByRole("link", { name: "console" }).click();
    await page.getByLabel("Admin token").fill(TOKEN);
    await page.keyboard.press("Enter");
    await page.locator("#table tbody tr").first().waitFor();
    await page.goto(`${admin}/docs`);
    await page.locator("nav li").first().waitFor();
    const { info, paths } = await description(admin);
    const operations = Object.values(paths).flatMap((item) => [...Object.keys(item).filter((key) => item[key].operationId), ...(item["x-tidegate-more"] || [])]);
    assert.equal(await page.locator("nav li").count(), operations.length);
    assert.equal(await page.locator("#count").textContent(), `${operations.length} of ${operations.length} operations`);
    assert.equal(await page.getByRole("heading", { level: 1 }).textContent(), info.title);
  },

  async "the file beside it is the description"({ page, admin }) {
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "openapi.json" }).click()]);
    assert.deepEqual(JSON.parse(readFileSync(await download.path(), "utf8")), await description(admin));
  },

  async "the keyboard finds an operation, opens it, and goes on in it"({ page, shot }) {
    await page.keyboard.press("/");
    assert.equal(await active(page), "search");
    await page.keyboard.type("post generatequest v1 players");
    assert.deepEqual(await page.locator("nav li").allTextContents(), ["generate", "streamGenerate"].map((verb) => `POST/v1/players/{player_id}/quests:${verb}`));
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.waitForFunction((id) => location.hash === `#/${id}`, GENERATE);
    assert.equal(await active(page), "operation");
    assert.equal(await heading(page).textContent(), "Generates a quest");
    assert.equal(await page.title(), "Generates a quest · API reference");
    assert.equal(await page.locator("nav a[aria-current=page]").count(), 1);
    await page.keyboard.press("/");
    assert.equal(await active(page), "search");
    await page.locator("#search").fill("");
    await shot("reference-operation");
  },

  async "parameters, body and answers are there, messages inside of messages too"({ page }) {
    const main = page.locator("#operation");
    assert.equal(await main.getByRole("row", { name: /player_id required path string/ }).count(), 1);
    const answer = (status) => main.locator("details.answer", { has: page.locator("strong", { hasText: status }) });
    assert.equal(await answer("200").getAttribute("open"), "");
    const quest = answer("200").locator("dl.members > dd", { has: page.locator("summary", { hasText: "members" }) }).first();
    await quest.locator("summary").first().focus();
    await page.keyboard.press("Enter");
    await quest.locator("dl.members dt").first().waitFor();
    await answer("503").locator("summary").first().click();
    await answer("503").getByText("Retry-After", { exact: true }).waitFor();
  },

  async "the command that it shows works, once its gap is filled in"({ page, data }) {
    const answer = JSON.parse(execFileSync("sh", ["-c", await command(page, data)], { timeout: PATIENCE }));
    assert(answer.quest, JSON.stringify(answer));
  },

  async "so does that of a stream, whose events are told"({ page, admin, data, shot }) {
    await page.goto(`${admin}/docs#/quest_v1_QuestService_GenerateQuestStream`);
    await page.getByText("text/event-stream").first().waitFor();
    await page.getByText("each event:").first().waitFor();
    const [link, list] = await Promise.all(["nav a[aria-current=page]", "nav"].map((one) => page.locator(one).boundingBox()));
    assert(link.y >= list.y && link.y + link.height <= list.y + list.height, "the list shows the operation that is open");
    await shot("reference-stream");
    const events = execFileSync("sh", ["-c", await command(page, data)], { timeout: PATIENCE, encoding: "utf8" });
    assert.match(events, /^data: \{.*"is_final":true/m);
  },

  async "it follows the table, and markup in a comment stays text"({ page, admin, folder }) {
    const file = join(folder, "descriptors/quest/v1/quest.proto");
    const words = "<img src=x onerror='window.hit=1'>";
    writeFileSync(file, readFileSync(file, "utf8").replace("// Generates a quest.", `// Generates a quest. ${words}`));
    await eventually("the description has the comment", async () => JSON.stringify(await description(admin)).includes("window.hit=1"), true);
    await page.goto(`${admin}/docs?again#/${GENERATE}`);
    await page.locator("#operation").getByText(words).first().waitFor();
    assert.equal(await page.evaluate(() => window.hit), undefined);
  },

  async "light and dark are readable, and a phone scrolls in one direction"({ page }) {
    const backs = [];
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      assert.deepEqual(await page.evaluate(faint), {}, colorScheme);
      backs.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
    }
    assert.notEqual(backs[0], backs[1]);
    await page.setViewportSize({ width: 360, height: 740 });
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  },

  async "every control has a name, and every heading its level"({ page }) {
    await hasNamesAndLevels(page);
  },
};

await walk(steps);
