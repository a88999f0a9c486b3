// Serves dashboard.html, and takes its picture: `CHROMIUM=/path node pictures.mjs ROOT PROMETHEUS START END PNG [HEIGHT]`.
// Prints the titles of panels without data as JSON.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { launch } from "../console/browser.mjs";

const [root, prometheus, start, end, picture, height] = process.argv.slice(2);
const uplot = join(root, "target/tools/browser/node_modules/uplot/dist");
const FILES = {
  "/": [join(root, "tests/chart/dashboard.html"), "text/html; charset=utf-8"],
  "/dashboard.json": [join(root, "charts/tidegate/files/dashboard.json"), "application/json"],
  "/uPlot.iife.min.js": [join(uplot, "uPlot.iife.min.js"), "text/javascript"],
  "/uPlot.min.css": [join(uplot, "uPlot.min.css"), "text/css"],
};

const server = createServer(async (request, response) => {
  const { pathname, search } = new URL(request.url, "http://127.0.0.1");
  if (FILES[pathname]) {
    const [file, kind] = FILES[pathname];
    response.setHeader("content-type", kind).end(readFileSync(file));
  } else if (pathname === "/query_range") {
    const answer = await fetch(`${prometheus}/api/v1/query_range${search}`);
    response.writeHead(answer.status, { "content-type": "application/json" }).end(await answer.text());
  } else {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const browser = await launch();
try {
  const page = await browser.newPage({ viewport: { width: 1440, height: Number(height || 900) } });
  const trouble = [];
  page.on("pageerror", (error) => trouble.push(String(error)));
  const step = Math.max(1, Math.round((end - start) / 240));
  await page.goto(`http://127.0.0.1:${server.address().port}/?${new URLSearchParams({ start, end, step })}`);
  await page.waitForFunction(() => document.title === "Drawn", null, { timeout: 30_000 }).catch((error) => trouble.push(error.message));
  if (trouble.length) throw new Error(trouble.join("\n"));
  await page.screenshot({ path: picture, fullPage: !height });
  const empty = await page.$$eval("section.panel:has(.none) h2", (titles) => titles.map((title) => title.textContent));
  console.log(JSON.stringify(empty));
} finally {
  await browser.close();
  server.close();
}
