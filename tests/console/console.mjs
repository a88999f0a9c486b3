// The console as an operator uses it: a gateway with all services, a real browser, the keyboard.
// `CHROMIUM=/path node console.mjs ROOT [FOLDER FOR SCREENSHOTS]`

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { eventually, hasNamesAndLevels, PATIENCE, program, TOKEN, walk } from "./browser.mjs";

async function traffic(data) {
  const headers = { "content-type": "application/json" };
  const send = (verb, path, body) => fetch(data + path, { method: verb, headers, body }).then((answer) => answer.text());
  await send("PUT", "/v1/players/p1/state", JSON.stringify({ state: { money: 1 } }));
  for (let seed = 0; seed < 25; seed += 1) {
    await Promise.all([
      send("POST", "/v1/players/p1/quests:generate", JSON.stringify({ seed: String(seed) })),
      send("PUT", "/v1/players/p1/state", JSON.stringify({ state: { money: seed } })),
      send("GET", "/v1/players/p1/state"),
      send("GET", "/v1/worlds/w1/time"),
      send("GET", "/v1/worlds/w1/weather"),
      seed % 3 || send("POST", "/v1/inference", JSON.stringify({ prompt: "Who rows?" })),
      send("POST", "/v1/players/p1/quests:generate", seed % 5 ? JSON.stringify({ seed: String(1000 + seed) }) : "{"),
    ]);
  }
}

const streamsOpen = async (admin) => {
  const text = await (await fetch(`${admin}/metrics`)).text();
  return [...text.matchAll(/^tidegate_streams_open\{.*\} (\d+)/gm)].reduce((all, row) => all + Number(row[1]), 0);
};

const steps = {
  async "nothing is shown without the token, and a wrong one is told so"({ page, admin }) {
    await page.goto(`${admin}/`);
    assert.equal(new URL(page.url()).pathname, "/console");
    await page.getByLabel("Admin token").waitFor();
    assert.equal(await page.locator("#table tbody tr").count(), 0);
    await page.keyboard.type("not-the-right-token");
    await page.keyboard.press("Enter");
    await page.getByRole("alert").getByText("this is not the token of the admin port").waitFor();
    await page.getByLabel("Admin token").fill(TOKEN);
    await page.keyboard.press("Enter");
    await page.locator("#table tbody tr").first().waitFor();
  },

  async "every route is there, with live figures"({ page, data, folder }) {
    const routes = JSON.parse(execFileSync(program, ["routes", "--format", "json"], { cwd: folder, maxBuffer: 1 << 26 }));
    assert.equal(await page.locator("#table tbody tr").count(), routes.length);
    await traffic(data);
    const row = page.locator("#table tbody tr", { hasText: "quests:generate" }).first();
    const cell = (name) => row.locator(`td[data-name="${name}"]`);
    await eventually("errors of all requests", () => cell("Errors").getAttribute("title"), "client error: 5, ok: 45");
    assert.equal(await cell("Errors").textContent(), "10 %");
    assert.match(await cell("p95").textContent(), /^\d/);
    assert.match(await cell("Rate").textContent(), /^[\d.]+$/);
    assert.match(await page.locator("#totals").textContent(), /requests\/s.*0 failures in the last minute.*streams open/);
    assert.match(await page.locator("#state").textContent(), /^bus connected · up .* · tables 1$/);
  },

  async "the keyboard finds, sorts and opens"({ page, shot }) {
    await page.getByRole("button", { name: "Rate", exact: true }).focus();
    await page.keyboard.press("Enter");
    assert.match(await page.locator("#table tbody tr").first().textContent(), /quests:generate/);
    await shot("routes");
    await page.getByLabel("Filter").focus();
    await page.keyboard.type("quests generate");
    await page.waitForFunction(() => document.querySelectorAll("#table tbody tr").length < 10);
    await page.getByRole("button", { name: "p95", exact: true }).focus();
    await page.keyboard.press("Enter");
    assert.equal(await page.getByRole("columnheader", { name: "p95" }).getAttribute("aria-sort"), "descending");
    const link = page.getByRole("button", { name: "/v1/players/{player_id}/quests:generate" }).first();
    await link.focus();
    await page.keyboard.press("Enter");
    assert.equal(await link.getAttribute("aria-expanded"), "true");
    await page.getByText("svc.quest.v1.generate").waitFor();
    await shot("detail");
    await page.getByRole("button", { name: "Explain", exact: true }).focus();
    await page.keyboard.press("Enter");
  },

  async "a request is explained, and a miss as well"({ page, shot }) {
    await page.getByLabel("Path and query").first().fill("/v1/players/p7/quests:generate");
    await page.locator("#explain-form").getByRole("button").click();
    await page.locator("#explain-result").getByText("p7", { exact: true }).first().waitFor();
    assert.match(await page.locator("#explain-result .verdict").textContent(), /quest\.v1\.QuestService\/GenerateQuest on svc\.quest\.v1\.generate/);
    await shot("explain");
    await page.getByLabel("Path and query").first().fill("/v1/player/p7/quests:generate");
    await page.keyboard.press("Enter");
    await page.getByText("segment 2 is `player`, expected `players`").first().waitFor();
    assert.match(await page.locator("#explain-result .verdict").textContent(), /^404 NOT_FOUND route_not_found/);
  },

  async "a call shows its answer, and markup in it stays text"({ page }) {
    await page.getByRole("link", { name: "Call" }).click();
    const form = page.locator("#call-form");
    await form.getByLabel("Verb").selectOption("PUT");
    await form.getByLabel("Path and query").fill("/v1/players/p9/state");
    await form.getByLabel("Headers").fill("X-Custom-Note: from the console");
    await form.getByLabel("Body").fill(JSON.stringify({ state: { note: "<img src=x onerror='window.hit=1'>" } }));
    await form.getByRole("button", { name: "Send" }).click();
    await page.locator("#answer-body").getByText('"ok": true').waitFor();
    assert.match(await page.locator("#answer-status").textContent(), /^200 application\/json/);
    await form.getByLabel("Verb").selectOption("GET");
    await form.getByRole("button", { name: "Send" }).click();
    await page.locator("#answer-body").getByText("<img src=x onerror='window.hit=1'>").waitFor();
    assert.equal(await page.evaluate(() => window.hit), undefined);
    await form.getByLabel("Path and query").fill("/v1/nowhere");
    await form.getByRole("button", { name: "Send" }).click();
    await page.locator("#answer-status").getByText("404").waitFor();
  },

  async "a stream is watched to its end, and stopped before it"({ page, admin, shot }) {
    const form = page.locator("#call-form");
    await form.getByLabel("Verb").selectOption("POST");
    await form.getByLabel("Path and query").fill("/v1/inference:stream");
    await form.getByLabel("Body").fill(JSON.stringify({ prompt: "Where is the ferryman?" }));
    await form.getByRole("button", { name: "Send" }).click();
    await page.locator("#answer-status").getByText(/stream ended, \d+ events/).waitFor();
    assert(await page.locator("#events li").count() > 1);
    await shot("stream");
    await form.getByLabel("Verb").selectOption("GET");
    await form.getByLabel("Path and query").fill("/v1/worlds/w1/time:watch");
    await form.getByRole("button", { name: "Send" }).click();
    await page.locator("#answer-status").getByText("stream running").waitFor();
    await eventually("the stream is open", () => streamsOpen(admin), 1);
    await page.getByRole("button", { name: "Stop the stream" }).click();
    await page.locator("#answer-status").getByText("stopped").waitFor();
    await eventually("the stream is closed", () => streamsOpen(admin), 0);
  },

  async "workers and the messages of a method are there"({ page, shot }) {
    await page.getByRole("link", { name: "Workers" }).click();
    await page.locator("#workers details").nth(21).waitFor();
    assert.match(await page.locator("#workers-count").textContent(), /^22 services, 22 workers$/);
    await page.getByText("quest-system").first().click();
    await page.getByRole("cell", { name: "svc.quest.v1.generate" }).or(page.getByRole("rowheader", { name: "svc.quest.v1.generate" })).first().waitFor();
    await shot("workers");
    await page.goto(`${page.url().split("#")[0]}#method/quest.v1.QuestService/GenerateQuest`);
    await page.getByRole("rowheader", { name: "player_id" }).first().waitFor();
    assert.equal(await page.locator("#h-method").textContent(), "quest.v1.QuestService/GenerateQuest");
  },

  async "a refused reload is told with its problems, and a mended one ends that"({ page, folder, shot }) {
    const file = join(folder, "routes.yaml");
    const good = readFileSync(file, "utf8");
    writeFileSync(file, good.replace("timeout: 30s", "timeout: soon"));
    await page.locator("#stale").waitFor({ timeout: PATIENCE });
    await page.getByRole("link", { name: /Reload/ }).click();
    await page.locator("#reload").getByText(/expected a duration such as `500ms` or `30s`, found `soon`/).waitFor();
    await shot("reload");
    writeFileSync(file, good);
    await page.locator("#stale").waitFor({ state: "hidden", timeout: PATIENCE });
  },

  async "every control has a name, and every heading its level"({ page }) {
    await hasNamesAndLevels(page);
  },
};

await walk(steps);
