// The console: asks /admin/api/ and shows what it says. Everything from outside becomes text, never markup.
"use strict";

const POLL_MS = 2000;
const WINDOW_MS = 60000;
const EVENTS_MAX = 500;
const VERBS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];

const at = (id) => document.getElementById(id);

/** An element; properties that start with "on" are listeners, the rest attributes. */
function el(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const number = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 2 : value < 100 ? 1 : 0 });

/** Seconds as people read them. */
function duration(seconds) {
  if (seconds === null) return "–";
  if (seconds === Infinity) return "> 30 s";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${number(seconds * 1e3)} ms`;
  return `${number(seconds)} s`;
}

function age(ms) {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

const counted = (count, one) => `${number(count)} ${one}${count === 1 ? "" : "s"}`;
const milliseconds = (ms) => duration(ms / 1000);
const bytes = (count) => (count >= 1048576 ? `${number(count / 1048576)} MiB` : count >= 1024 ? `${number(count / 1024)} KiB` : `${count} B`);

// ---- asking -----------------------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = {};
  const token = sessionStorage.getItem("token");
  if (token) headers.authorization = `Bearer ${token}`;
  if (options.body) headers["content-type"] = "application/json";
  const answer = await fetch(`/admin/api/${path}`, { cache: "no-store", ...options, headers });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, problem.detail || `the admin port answered ${answer.status}`);
}

const json = async (path, options) => (await ask(path, options)).json();
const post = (value, signal) => ({ method: "POST", body: JSON.stringify(value), signal });

function fail(error) {
  if (error.name === "AbortError") return;
  const needsToken = error.status === 401;
  const login = at("login");
  if (needsToken && login.hidden) {
    login.hidden = false;
    for (const section of document.querySelectorAll("main > section")) section.hidden = true;
    at("token").focus();
  }
  const wasRefused = needsToken && sessionStorage.getItem("token");
  if (wasRefused) sessionStorage.removeItem("token");
  at("alert").textContent = error.status ? error.message : "The gateway does not answer. It is asked again.";
  at("alert").hidden = needsToken && !wasRefused;
  at("forget").hidden = true;
  if (!error.status || error.status >= 400) at("state").textContent = error.status ? "refused" : "no answer";
}

function fine() {
  at("alert").hidden = true;
  at("login").hidden = true;
  at("forget").hidden = !sessionStorage.getItem("token");
}

// ---- figures ----------------------------------------------------------------------------------------------------

/** Samples of the last minute, the oldest first. */
let samples = [];

function keep(figures) {
  const now = performance.now();
  const last = samples.at(-1);
  // Counts that go back belong to a process that was started anew.
  if (last && figures.uptime_ms < last.figures.uptime_ms) samples = [];
  samples.push({ at: now, figures });
  while (samples.length > 2 && now - samples[0].at > WINDOW_MS) samples.shift();
}

const NOTHING = { requests: {}, buckets: [], timed: 0, in_flight: 0, streams: 0 };

/** What a route did between the oldest and the newest sample; rates are null while there is one sample only. */
function figuresOf(name) {
  const [first, last] = [samples[0], samples.at(-1)];
  const now = last?.figures.routes[name] || NOTHING;
  const live = { in_flight: now.in_flight, streams: now.streams };
  if (samples.length < 2) return { ...live, rate: null, errors: null, ours: 0, kinds: {}, p50: null, p95: null };
  const before = first.figures.routes[name] || NOTHING;
  const seconds = (last.at - first.at) / 1000;
  const kinds = {};
  let all = 0;
  for (const [outcome, count] of Object.entries(now.requests)) {
    const more = count - (before.requests[outcome] || 0);
    if (more > 0) kinds[outcome] = more;
    all += more;
  }
  const ours = (kinds.upstream_error || 0) + (kinds.internal_error || 0);
  const buckets = now.buckets.map(([bound, count], index) => [bound, count - (before.buckets[index]?.[1] || 0)]);
  const timed = now.timed - before.timed;
  const quantile = (q) => quantileOf(buckets, timed, q);
  const errors = all ? (all - (kinds.ok || 0)) / all : null;
  return { ...live, rate: all / seconds, errors, ours, kinds, p50: quantile(0.5), p95: quantile(0.95) };
}

/** As Prometheus' histogram_quantile: a straight line inside the bucket. */
function quantileOf(buckets, total, q) {
  if (!total) return null;
  let [low, below] = [0, 0];
  for (const [bound, count] of buckets) {
    if (count >= q * total) return count === below ? bound : low + ((bound - low) * (q * total - below)) / (count - below);
    [low, below] = [bound, count];
  }
  return Infinity;
}

// ---- routes -----------------------------------------------------------------------------------------------------

const COLUMNS = [
  { name: "Route", key: (row) => `${row.facts.path} ${row.facts.verb}` },
  { name: "Method", key: (row) => row.facts.method },
  { name: "Rate", key: (row) => row.now.rate ?? 0, isNumber: true, hint: "requests a second" },
  { name: "Errors", key: (row) => row.now.errors ?? 0, isNumber: true, hint: "share of requests that were not answered well" },
  { name: "p50", key: (row) => row.now.p50 ?? 0, isNumber: true, hint: "half of the requests took no longer" },
  { name: "p95", key: (row) => row.now.p95 ?? 0, isNumber: true, hint: "19 of 20 requests took no longer" },
  { name: "In flight", key: (row) => row.now.in_flight, isNumber: true },
  { name: "Streams", key: (row) => row.now.streams, isNumber: true, hint: "open now" },
  { name: "Limits", key: (row) => row.load, isNumber: true, hint: "calls and streams taken of those allowed" },
];

let table = { generation: null, rows: [] };
let order = { column: 0, isDown: false };

async function loadRoutes() {
  const answer = await json("routes");
  at("version").textContent = answer.version;
  table = { generation: answer.generation, rows: answer.routes.map(newRow) };
  at("table").tHead.rows[0].replaceChildren(...COLUMNS.map(head));
  refresh();
  arrange();
}

function head(column, index) {
  const sort = () => {
    order = { column: index, isDown: order.column === index ? !order.isDown : Boolean(column.isNumber) };
    arrange();
  };
  const button = el("button", { type: "button", title: column.hint, onclick: sort }, column.name);
  return el("th", { scope: "col", class: column.isNumber && "number" }, button);
}

function newRow(facts) {
  const name = `${facts.verb} ${facts.path}`;
  const row = { facts, name, now: figuresOf(name), load: 0, limits: null, text: "" };
  const more = el("button", { type: "button", class: "link", "aria-expanded": "false", onclick: () => toggle(row) }, facts.path);
  row.button = more;
  const kind = facts.stream === "no" ? null : el("span", { class: "badge quiet" }, facts.stream === "yes" ? "stream" : "can stream");
  const auth = facts.auth === "required" ? el("span", { class: "badge quiet" }, "credential") : null;
  row.cells = COLUMNS.slice(2).map((column) => el("td", { class: "number", role: "cell", "data-name": column.name }));
  row.line = el("tr", { role: "row" },
    el("th", { scope: "row", role: "rowheader" }, el("span", { class: "verb" }, facts.verb), more, " ", kind, " ", auth),
    el("td", { role: "cell", "data-name": "" }, methodLink(facts.method, short(facts.method))),
    ...row.cells);
  row.text = `${name} ${facts.method} ${facts.subject}`.toLowerCase();
  return row;
}

/** A link to a method's messages; its text may break behind `/`. */
const methodLink = (method, text = method) => el("a", { href: `#method/${encodeURI(method)}`, class: "mono", title: method === text ? null : method },
  ...text.split(/(?<=\/)/).flatMap((part) => [part, el("wbr")]));
/** Without its package. */
const short = (method) => method.replace(/^.*\.(?=[^.]*\/)/, "");

function toggle(row) {
  const isOpen = Boolean(row.detail);
  row.button.setAttribute("aria-expanded", String(!isOpen));
  row.detail?.remove();
  row.detail = isOpen ? null : el("tr", { role: "row" }, el("td", { colspan: COLUMNS.length, role: "cell" }, factsOf(row.facts), el("p", { class: "actions" },
    el("button", { type: "button", onclick: () => use("explain", row.facts) }, "Explain"),
    el("button", { type: "button", onclick: () => use("call", row.facts) }, "Call"))));
  if (row.detail) row.line.after(row.detail);
}

function facts(rows) {
  const list = el("dl");
  for (const [name, value] of rows) if (value !== null && value !== undefined && value !== "") list.append(el("dt", {}, name), el("dd", {}, value));
  return list;
}

function factsOf(route) {
  const rate = route.rate && `${route.rate.requests} per ${milliseconds(route.rate.per_ms)} for each ${route.rate.key}, burst ${route.rate.burst}`;
  const credential = route.credential ? `${route.auth}, checked by ${route.credential}` : route.auth;
  return facts([
    ["Method", methodLink(route.method)],
    ["Subject", el("code", {}, route.subject)],
    ["Queue group", route.queue_group],
    ["Messages", `${route.request} → ${route.reply}`],
    ["Events", route.chunk],
    ["Stream", route.stream],
    ["House style", `${route.style}, errors ${route.errors}`],
    ["JSON", `names ${route.json[0]}, defaults ${route.json[1]}, enums ${route.json[2]}, unknown ${route.ignores_unknown ? "ignored" : "rejected"}`],
    ["Credential", credential],
    ["Deadline", `${milliseconds(route.timeout_ms)}; silence of a stream ${milliseconds(route.stream_idle_ms)}`],
    ["Body", `at most ${bytes(route.body_max_bytes)}`],
    ["Rate", rate || "unlimited"],
    ["Calls", route.calls ? `at most ${route.calls.max}` : "unlimited"],
    ["Streams", route.streams ? `at most ${route.streams.max}` : "unlimited"],
    ["Retries", String(route.retries)],
    ["Breaker", route.breaker ? `${route.breaker.failures} time-outs in a row, open for ${milliseconds(route.breaker.open_ms)}; ${route.breaker.is_open ? "open" : "closed"}` : "none"],
    ["Origins", route.cors || "the gateway's own"],
    ["Migration", route.migration || "none"],
    ["Written at", el("code", {}, route.defined_at)],
  ]);
}

/** Puts the newest figures into the rows that are there. */
function refresh() {
  const limits = new Map(samples.at(-1)?.figures.limits || []);
  for (const row of table.rows) {
    row.now = figuresOf(row.name);
    const slots = (limits.get(row.name) || [row.facts.calls, row.facts.streams]).filter(Boolean);
    row.load = Math.max(0, ...slots.map((slot) => slot.taken / slot.max));
    const [rate, errors, p50, p95, inFlight, streams, load] = row.cells;
    set(rate, row.now.rate === null ? "–" : number(row.now.rate), !row.now.rate);
    set(errors, row.now.errors === null ? "–" : `${number(row.now.errors * 100)} %`, !row.now.errors);
    errors.title = Object.entries(row.now.kinds).map(([kind, count]) => `${kind.replace("_", " ")}: ${count}`).join(", ");
    errors.classList.toggle("bad", row.now.ours > 0);
    errors.classList.toggle("warn", row.now.errors > 0 && row.now.ours === 0);
    set(p50, duration(row.now.p50), row.now.p50 === null);
    set(p95, duration(row.now.p95), row.now.p95 === null);
    set(inFlight, number(row.now.in_flight), !row.now.in_flight);
    set(streams, number(row.now.streams), !row.now.streams);
    const text = slots.map((slot) => `${slot.taken}/${slot.max}`).join(" ");
    if (load.dataset.text !== text) {
      load.dataset.text = text;
      const step = Math.min(8, Math.ceil(row.load * 8));
      load.replaceChildren(text || "–", ...(text ? [el("span", { class: `meter w${step}${row.load >= 0.9 ? " full" : ""}`, "aria-hidden": "true" }, el("i"))] : []));
      load.classList.toggle("zero", !row.load);
    }
  }
  totals();
}

function set(cell, text, isZero) {
  if (cell.textContent !== text) cell.textContent = text;
  cell.classList.toggle("zero", isZero);
}

function totals() {
  const figures = samples.at(-1)?.figures;
  if (!figures) return;
  const sum = (get) => table.rows.reduce((all, row) => all + (get(row.now) || 0), 0);
  const rate = sum((now) => now.rate);
  const ours = sum((now) => now.ours);
  const part = (value, name, mark) => el("span", { class: mark }, el("b", {}, value), ` ${name}`);
  at("totals").replaceChildren(
    part(number(rate), "requests/s"),
    part(number(ours), "failures in the last minute", ours ? "bad" : null),
    part(`${figures.stream_slots.taken} of ${number(figures.stream_slots.max)}`, "streams open"),
    part(number(figures.connections), "connections"));
  const isConnected = figures.bus === "connected";
  at("state").textContent = figures.is_draining ? "draining" : `bus ${isConnected ? "connected" : `down: ${figures.bus}`} · up ${age(figures.uptime_ms)} · tables ${figures.generation}`;
  at("state").className = `state ${figures.is_draining || !isConnected ? "bad" : ""}`;
}

/** Filters and orders the rows. */
function arrange() {
  const wanted = at("filter").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const column = COLUMNS[order.column];
  const shown = table.rows.filter((row) => wanted.every((word) => row.text.includes(word)));
  shown.sort((a, b) => {
    const [x, y] = [column.key(a), column.key(b)];
    const by = typeof x === "string" ? (x < y ? -1 : x > y ? 1 : 0) : x - y;
    return order.isDown ? -by : by;
  });
  [...at("table").tHead.rows[0].cells].forEach((cell, index) => {
    if (index === order.column) cell.setAttribute("aria-sort", order.isDown ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
  at("table").tBodies[0].replaceChildren(...shown.flatMap((row) => (row.detail ? [row.line, row.detail] : [row.line])));
  at("shown").textContent = `${shown.length} of ${table.rows.length} routes; rates, errors and latency of the last minute.${samples.at(-1)?.figures.is_counted === false ? " This process counts nothing: figures are missing." : ""}`;
}

// ---- explain ----------------------------------------------------------------------------------------------------

function requestForm(id, label, submit) {
  const form = at(`${id}-form`);
  const field = (name, text, input, hint) => el("div", { class: name === "verb" || name === "path" ? null : "wide" },
    el("label", { for: `${id}-${name}` }, text, hint && el("span", { class: "hint" }, ` ${hint}`)), input);
  const input = (tag, name, properties) => el(tag, { id: `${id}-${name}`, name, class: "mono", spellcheck: "false", autocomplete: "off", ...properties });
  const verb = el("select", { id: `${id}-verb`, name: "verb" }, ...VERBS.map((one) => el("option", {}, one)));
  form.append(
    field("verb", "Verb", verb),
    field("path", "Path and query", input("input", "path", { type: "text", required: true, placeholder: "/v1/players/p1/state" })),
    field("headers", "Headers", input("textarea", "headers", { rows: 2 }), "one a line, Name: value"),
    field("body", "Body", input("textarea", "body", { rows: 5 })),
    el("p", { class: "actions wide" }, el("button", { type: "submit", class: "main" }, label)));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(read(form)).then(fine, fail);
  });
}

function read(form) {
  const { verb, path, headers, body } = form.elements;
  const pairs = headers.value.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
    const colon = line.indexOf(":");
    return colon < 0 ? [line, ""] : [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
  });
  return { verb: verb.value, path: path.value.trim(), headers: pairs, body: verb.value === "GET" || verb.value === "HEAD" ? "" : body.value };
}

/** Fills a form with a route and goes there. */
function use(view, route) {
  const { verb, path, body } = at(`${view}-form`).elements;
  verb.value = VERBS.includes(route.verb) ? route.verb : "POST";
  path.value = route.path;
  body.value = verb.value === "GET" || verb.value === "DELETE" ? "" : "{}";
  location.hash = view;
  const from = path.value.indexOf("{");
  path.focus();
  if (from >= 0) path.setSelectionRange(from, path.value.indexOf("}", from) + 1);
}

async function explain(request) {
  const told = await json("explain", post(request));
  const refused = told.refused;
  const verdict = refused
    ? el("p", { class: "verdict" }, el("b", { class: "bad" }, String(refused.status)), ` ${refused.code} ${refused.reason}: ${refused.message}`)
    : el("p", { class: "verdict" }, el("b", { class: "good" }, told.route.method), " on ", el("code", {}, told.route.subject), told.wants_stream && ", as a stream");
  at("explain-result").replaceChildren(el("div", { class: "panel" }, ...[
    verdict,
    refused?.allow && el("p", {}, "Allow: ", el("code", {}, refused.allow)),
    routesTable("Routes that take this path, in the order in which they are tried", told.candidates),
    routesTable("No route takes this path; the nearest", told.nearest),
    told.route && el("h3", {}, "The route"),
    told.route && factsOf(told.route),
    grid("Fields of the request message", ["Field", "From", "Source", "Value"], told.bindings.map((row) => [row.field, row.from, row.source, row.value ?? ""])),
    told.message && el("h3", {}, "The message as the worker gets it"),
    told.message && el("p", { class: "quiet" }, "Ids and times are made up."),
    told.message && el("pre", { tabindex: "0", "aria-label": "Message" }, JSON.stringify(told.message, null, 2)),
  ].filter(Boolean)));
}

function routesTable(title, rows) {
  return grid(title, ["Route", "Why", "Written at"], rows.map((row) => [row.is_taken ? el("b", {}, row.route) : row.route, row.why, row.defined_at]));
}

/** A small table with a title, shown unless something else says it; nothing without rows. */
function grid(title, heads, rows, isShown = true) {
  if (!rows.length) return null;
  const body = rows.map((cells) => el("tr", {}, ...cells.map((cell, index) => el(index ? "td" : "th", { scope: index ? null : "row", class: index === 1 && heads[1] === "Why" ? null : "mono" }, cell))));
  return el("div", {}, isShown && el("h3", {}, title), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
    el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, ...body))));
}

// ---- call -------------------------------------------------------------------------------------------------------

let running = null;

async function call(request) {
  running?.abort();
  running = new AbortController();
  const mine = running;
  const started = performance.now();
  const answer = await ask("call", post(request, mine.signal));
  const status = Number(answer.headers.get("tidegate-answer-status"));
  const headers = JSON.parse(answer.headers.get("tidegate-answer-headers") || "[]");
  const kind = headers.find(([name]) => name === "content-type")?.[1] || "";
  const isStream = kind.startsWith("text/event-stream") || kind.startsWith("application/x-ndjson");
  const tell = (text) => {
    const mark = status < 400 ? "good" : "bad";
    at("answer-status").replaceChildren(el("b", { class: mark }, String(status)), ` ${text} · ${milliseconds(performance.now() - started)}`);
  };
  at("answer").hidden = false;
  at("answer-headers").querySelector("dl").replaceChildren(...facts(headers).childNodes);
  at("events").hidden = !isStream;
  at("answer-body").hidden = isStream;
  at("events").replaceChildren();
  at("stop").hidden = !isStream;
  at("answer").scrollIntoView({ block: "nearest" });
  tell(isStream ? "stream running" : kind);
  if (!isStream) {
    at("answer-body").textContent = pretty(await answer.text());
    return tell(kind);
  }
  let count = 0;
  const show = (event) => {
    const list = at("events");
    const isAtEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 4;
    list.append(el("li", {}, el("span", { class: "name" }, `${event.name}${event.id ? ` ${event.id}` : ""}`), event.data));
    if (list.childElementCount > EVENTS_MAX) list.firstElementChild.remove();
    if (isAtEnd) list.scrollTop = list.scrollHeight;
    count += 1;
    tell(`stream running, ${counted(count, "event")}`);
  };
  try {
    await follow(answer.body, kind.startsWith("text/event-stream") ? sse(show) : lines(show));
    tell(`stream ended, ${counted(count, "event")}`);
  } catch (error) {
    tell(error.name === "AbortError" ? `stopped, ${counted(count, "event")}` : `broken off, ${counted(count, "event")}`);
  } finally {
    if (running === mine) at("stop").hidden = true;
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

async function follow(body, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    take(value);
  }
}

/** Server-Sent Events as they come in pieces. */
function sse(show) {
  let rest = "";
  return (piece) => {
    const blocks = (rest + piece).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { name: "message", id: "", data: [] };
      for (const line of block.split("\n")) {
        const [, field, value] = line.match(/^([^:]*):? ?(.*)$/);
        if (field === "event") event.name = value;
        if (field === "id") event.id = value;
        if (field === "data") event.data.push(value);
      }
      if (event.data.length) show({ ...event, data: event.data.join("\n") });
    }
  };
}

function lines(show) {
  let rest = "";
  return (piece) => {
    const all = (rest + piece).split("\n");
    rest = all.pop();
    for (const data of all.filter(Boolean)) show({ name: "line", id: "", data });
  };
}

// ---- workers, reload, method ------------------------------------------------------------------------------------

async function loadWorkers() {
  at("workers-count").textContent = "asking…";
  const { services } = await json("workers");
  const names = Object.keys(services).sort();
  const count = names.reduce((all, name) => all + services[name].instances.length, 0);
  const tell = (count, one) => [el("b", {}, String(count)), ` ${one}${count === 1 ? "" : "s"}`];
  at("workers-count").replaceChildren(el("span", {}, ...tell(names.length, "service"), ", ", ...tell(count, "worker")));
  if (!names.length) at("workers").replaceChildren(el("p", { class: "panel" }, "Nobody answers the NATS services protocol on this bus. The gateway's user needs the right to publish to $SRV.STATS."));
  else at("workers").replaceChildren(...names.map((name) => service(name, services[name].instances)));
}

function service(name, instances) {
  const sum = (get) => instances.reduce((all, one) => all + one.endpoints.reduce((part, row) => part + row[get], 0), 0);
  const errors = sum("errors");
  const summary = el("summary", {}, name, el("span", { class: "quiet" }, ` · ${counted(instances.length, "worker")}, ${counted(sum("requests"), "request")}`),
    errors ? el("span", { class: "bad" }, `, ${counted(errors, "error")}`) : null);
  const rows = instances.flatMap((one) => one.endpoints.map((row) => [
    row.subject, `${one.id} · ${one.version}`, one.started.slice(0, 19).replace("T", " "), number(row.requests), number(row.errors),
    row.requests ? milliseconds(row.average_ms) : "–", row.last_error]));
  return el("details", { class: "service" }, summary, grid(`Endpoints of ${name}`, ["Subject", "Worker", "Started", "Requests", "Errors", "Average", "Last error"], rows, false));
}

async function loadReload() {
  const told = await json("reload");
  at("stale").hidden = !told.is_stale;
  const verdict = told.is_stale ? el("b", { class: "bad" }, "The last reload was refused. The tables of before are in force.")
    : el("b", { class: "good" }, told.applied ? "The last reload took effect." : "The tables are those of the start.");
  at("reload").replaceChildren(el("div", { class: "panel" }, el("p", { class: "verdict" }, verdict), facts([
    ["Generation in force", String(told.generation)], ["Reloads applied", String(told.applied)], ["Reloads refused", String(told.refused)]]),
  ...(told.report ? [el("h3", {}, "What was wrong"), el("pre", { tabindex: "0", "aria-label": "Problems" }, told.report.trim())] : [])));
}

async function loadMethod(name) {
  const told = await json(`methods/${name.split("/").map(encodeURIComponent).join("/")}`);
  const parts = [["Request", told.request], ["Reply", told.reply]];
  if (told.stream !== "no" && told.chunk !== told.reply) parts.push(["Event of the stream", told.chunk]);
  const first = parts.map(([, message]) => message);
  const rest = Object.keys(told.messages).filter((message) => !first.includes(message) && !message.startsWith("google.protobuf.") && !/\.[A-Za-z0-9]+Entry$/.test(message)).sort();
  at("h-method").textContent = told.method;
  at("method").replaceChildren(
    facts([["Subject", el("code", {}, told.subject)], ["Stream", told.stream]]),
    ...parts.map(([title, message]) => messageTable(told, message, `${title}: ${message}`)).filter(Boolean),
    ...rest.map((message) => messageTable(told, message, message)).filter(Boolean),
    ...Object.entries(told.enums).map(([name, values]) => grid(name, ["Value", "Number"], values.map(([value, number]) => [value, String(number)]))),
    ...(told.is_cut ? [el("p", { class: "quiet" }, "There are more messages than are shown.")] : []));
}

function messageTable(told, message, title) {
  const rows = told.messages[message].map((field) => {
    const marks = [field.is_repeated && "repeated", field.is_optional && "optional", field.oneof && `one of ${field.oneof}`].filter(Boolean);
    return [field.name, field.json_name === field.name ? "" : field.json_name, field.kind, marks.join(", "), String(field.number)];
  });
  return grid(title, ["Field", "JSON name", "Type", "", "Number"], rows) || el("div", {}, el("h3", {}, title), el("p", { class: "quiet" }, "no fields"));
}

// ---- going from one to the other --------------------------------------------------------------------------------

const VIEWS = { routes: loadRoutes, explain: null, call: null, workers: loadWorkers, reload: loadReload, method: loadMethod };

async function go() {
  const [view, ...rest] = decodeURI(location.hash.slice(1)).split("/");
  const name = view in VIEWS ? view : "routes";
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== `view-${name}`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = at(`h-${name}`).textContent;
  document.title = `${title} · Tidegate console`;
  try {
    await VIEWS[name]?.(rest.join("/"));
    fine();
  } catch (error) {
    fail(error);
  }
}

let isPolling = false;

async function poll() {
  if (document.hidden || isPolling || !at("login").hidden) return;
  isPolling = true;
  try {
    const figures = await json("figures");
    keep(figures);
    const isOther = table.generation !== null && figures.generation !== table.generation;
    if (isOther) await loadRoutes();
    refresh();
    // A row that is used does not run away.
    if (COLUMNS[order.column].isNumber && !at("table").contains(document.activeElement)) arrange();
    if (samples.length % 5 === 1) at("stale").hidden = !(await json("reload")).is_stale;
    if (at("state").textContent !== "refused") at("alert").hidden = true;
  } catch (error) {
    fail(error);
  } finally {
    isPolling = false;
  }
}

function start() {
  requestForm("explain", "Explain", explain);
  requestForm("call", "Send", call);
  at("filter").addEventListener("input", arrange);
  at("ask-workers").addEventListener("click", () => loadWorkers().catch(fail));
  at("stop").addEventListener("click", () => running?.abort());
  at("forget").addEventListener("click", () => {
    sessionStorage.removeItem("token");
    location.reload();
  });
  at("login").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", at("token").value.trim());
    at("token").value = "";
    at("login").hidden = true;
    go().then(poll);
  });
  addEventListener("hashchange", go);
  addEventListener("visibilitychange", poll);
  go().then(poll);
  setInterval(poll, POLL_MS);
}

start();
