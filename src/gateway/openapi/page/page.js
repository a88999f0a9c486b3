// Shows openapi.json. Reads only; everything that it shows goes through text nodes, so that nothing in it is markup.
"use strict";

const VERBS = ["get", "head", "post", "put", "patch", "delete"];
const at = (id) => document.getElementById(id);
let api = {};
let operations = [];

/** An element with attributes and children; a child that is no element is text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  fill(element, children);
  return element;
}

/** Puts children into an element, in place of those that it has. */
function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== undefined && child !== ""));
}

/** Text whose pieces in backticks are code. */
function prose(text) {
  return (text || "").split(/`([^`\n]+)`/).map((part, index) => (index % 2 ? make("code", {}, part) : part));
}

const resolve = (value) => (value && value.$ref ? value.$ref.slice(2).split("/").reduce((here, key) => here?.[key], api) : value);
const nameOf = (schema) => (schema && schema.$ref ? schema.$ref.split("/").pop() : "");
const mark = (text) => make("span", { class: "mark" }, text);

function collect() {
  for (const [path, item] of Object.entries(api.paths || {})) {
    for (const verb of VERBS) {
      if (item[verb]) operations.push({ verb, path, ...item[verb] });
    }
    for (const more of item["x-tidegate-more"] || []) {
      operations.push({ verb: more.verb.toLowerCase(), path: more.template, ...more.operation });
    }
  }
}

/** The type of a schema in a few words. */
function typeOf(schema) {
  if (!schema) return "any";
  if (schema.$ref) return nameOf(schema);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.oneOf || schema.anyOf) return "one of";
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  if (schema.type === "object" && schema.additionalProperties && !schema.properties) {
    return schema.additionalProperties === true ? "object" : `map of ${typeOf(schema.additionalProperties)}`;
  }
  const name = [schema.type].flat().filter(Boolean).join(" or ") || "any";
  return schema.format ? `${name} (${schema.format})` : schema.contentEncoding ? `${name} (${schema.contentEncoding})` : name;
}

/** The schema below lists and maps: what has members or values of its own. */
function inner(schema) {
  const below = schema?.items || (typeof schema?.additionalProperties === "object" && schema.additionalProperties);
  return below ? inner(below) : schema;
}

function hasDetail(schema) {
  const below = resolve(inner(schema)) || {};
  return Boolean(below.properties || below.enum || below.oneOf || below.anyOf || below.contentSchema || below.items);
}

/** What a schema has inside. What it refers to is drawn when it is opened: messages may hold themselves. */
function body(schema) {
  const below = resolve(inner(schema)) || {};
  const parts = [];
  if (below.description && below !== schema) parts.push(make("p", { class: "text soft" }, prose(below.description)));
  if (below.enum) parts.push(make("p", {}, below.enum.flatMap((value, index) => [index ? " " : "", make("code", {}, String(value))])));
  if (below.contentSchema) parts.push(body(below.contentSchema));
  for (const choice of below.oneOf || below.anyOf || []) {
    parts.push(make("details", {}, make("summary", {}, typeOf(choice)), body(choice)));
  }
  const required = below.required || [];
  const rows = Object.entries(below.properties || {}).map(([name, member]) => property(name, member, required.includes(name)));
  if (rows.length) parts.push(make("dl", { class: "members" }, rows));
  if (!parts.length) parts.push(make("p", { class: "soft" }, typeOf(below)));
  return make("div", {}, parts);
}

function property(name, member, isRequired) {
  const about = make(
    "dd",
    {},
    make("span", { class: "soft" }, typeOf(member)),
    isRequired ? [" ", mark("required")] : "",
    member.readOnly ? [" ", mark("answers only")] : "",
    member.writeOnly ? [" ", mark("requests only")] : "",
    member.deprecated ? [" ", mark("deprecated")] : "",
    member.description ? make("p", {}, prose(member.description)) : "",
  );
  if (hasDetail(member)) {
    const more = make("details", {}, make("summary", {}, "members"));
    more.addEventListener("toggle", () => more.open && more.children.length === 1 && more.append(body(member)));
    about.append(more);
  }
  return [make("dt", {}, make("code", {}, name)), about];
}

function media(content) {
  return Object.entries(content || {}).map(([type, value]) => {
    const schema = value["x-itemSchema"] || value.schema;
    const head = make("p", {}, make("code", {}, type), " ", make("span", { class: "soft" }, value["x-itemSchema"] ? "each event:" : typeOf(schema)));
    return make("div", {}, head, schema ? body(schema) : "");
  });
}

function parameters(list) {
  const rows = list.map(resolve).map((parameter) => {
    const schema = parameter.schema || parameter.content?.["application/json"]?.schema;
    return make(
      "tr",
      {},
      make("td", {}, make("code", {}, parameter.name), parameter.required ? [" ", mark("required")] : ""),
      make("td", {}, parameter.in),
      make("td", {}, typeOf(schema)),
      make("td", {}, make("p", {}, prose(parameter.description)), schema && resolve(schema).enum ? body(schema) : ""),
    );
  });
  const head = make("tr", {}, ["Name", "In", "Type", "Meaning"].map((title) => make("th", { scope: "col" }, title)));
  return make("div", { class: "wide" }, make("table", {}, make("thead", {}, head), make("tbody", {}, rows)));
}

function answer(status, value) {
  const response = resolve(value);
  const [first] = (response.description || "").split("\n");
  const headers = Object.entries(response.headers || {}).map(([name, header]) => [
    make("dt", {}, make("code", {}, name)),
    make("dd", { class: "soft" }, prose(resolve(header).description)),
  ]);
  const title = status[0] === "2" || status === "default" ? prose(first) : prose(first.replace(/^- (`[^`]*`).*/, "$1"));
  return make(
    "details",
    { class: "answer", open: status === "200" },
    make("summary", {}, make("strong", {}, status), " ", title),
    make("p", { class: "text" }, prose(response.description)),
    headers.length ? make("dl", { class: "members" }, headers) : "",
    media(response.content),
  );
}

/** A command to begin with: a placeholder for each part that must be there. */
function curl(operation) {
  const server = api.servers?.[0]?.url || "http://127.0.0.1:8080";
  const forms = operation.responses?.["200"]?.content || {};
  // `--json` alone would ask for what a route that only streams does not have.
  const onlyStreams = forms["text/event-stream"] && !forms["application/json"];
  const parts = [`curl -s${onlyStreams ? "N" : ""} '${server}${operation.path}'`];
  if (onlyStreams) parts.push("-H 'Accept: text/event-stream'");
  if (!["get", "post"].includes(operation.verb)) parts.push(`-X ${operation.verb.toUpperCase()}`);
  if (operation.security && !operation.security.some((row) => !Object.keys(row).length)) parts.push("-H 'Authorization: Bearer TOKEN'");
  if (operation.requestBody?.content?.["application/json"]) parts.push("--json '{}'");
  return parts.join(" \\\n  ");
}

function show() {
  const id = decodeURIComponent(location.hash.replace(/^#\/?/, ""));
  const operation = operations.find((one) => one.operationId === id);
  for (const link of document.querySelectorAll("nav li a")) {
    const isCurrent = link.hash === `#/${id}`;
    if (isCurrent) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (isCurrent) link.scrollIntoView({ block: "nearest" });
  }
  const main = at("operation");
  if (!operation) {
    fill(main, make("h2", {}, api.info?.title || "API"), make("p", { class: "text" }, prose(api.info?.description)));
    return;
  }
  const security = operation.security || [];
  const isOptional = security.some((row) => !Object.keys(row).length);
  fill(
    main,
    make("h2", {}, prose(operation.summary || operation.operationId)),
    make("p", { class: "path" }, make("span", { class: `verb ${operation.verb}` }, operation.verb.toUpperCase()), " ", operation.path),
    operation.deprecated ? make("p", {}, mark("deprecated")) : "",
    make("p", { class: "text" }, prose(operation.description)),
    security.length ? make("p", { class: "soft" }, isOptional ? "A bearer token is taken, not needed." : "Needs a bearer token.") : "",
    make("pre", {}, make("code", {}, curl(operation))),
    make("h3", {}, "Parameters"),
    parameters(operation.parameters || []),
    operation.requestBody ? [make("h3", {}, "Body"), make("p", { class: "soft" }, operation.requestBody.description), media(operation.requestBody.content)] : "",
    make("h3", {}, "Answers"),
    Object.entries(operation.responses).map(([status, value]) => answer(status, value)),
  );
  main.scrollTop = 0;
  document.title = `${operation.summary || operation.operationId} · API reference`;
}

function list() {
  const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (one) => `${one.verb} ${one.path} ${one.operationId} ${one.summary || ""}`.toLowerCase();
  const found = operations.filter((one) => words.every((word) => text(one).includes(word)));
  const tags = [...new Set(found.flatMap((one) => one.tags))].sort();
  const row = (one) => {
    const path = make("span", one.deprecated ? { class: "gone" } : {}, one.path);
    return make("li", {}, make("a", { href: `#/${one.operationId}` }, make("span", { class: `verb ${one.verb}` }, one.verb.toUpperCase()), path));
  };
  fill(
    at("list"),
    tags.map((tag) => make("section", {}, make("h2", {}, tag), make("ul", {}, found.filter((one) => one.tags.includes(tag)).map(row)))),
  );
  at("count").textContent = `${found.length} of ${operations.length} operations`;
  show();
}

/** The description; with the token that the console keeps in this tab, where it has one. */
async function read() {
  const token = sessionStorage.getItem("token");
  const answer = await fetch("openapi.json", token ? { headers: { authorization: `Bearer ${token}` } } : {});
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail);
  // A link cannot show a token.
  if (token) at("file").href = URL.createObjectURL(new Blob([JSON.stringify(found)], { type: "application/json" }));
  return found;
}

async function start() {
  try {
    api = await read();
  } catch (error) {
    const login = make("p", {}, "Where it wants a token: give it to the ", make("a", { href: "console" }, "console"), ", and come back in this tab.");
    fill(at("operation"), make("p", {}, `openapi.json cannot be read: ${error.message}`), login);
    return;
  }
  at("title").textContent = api.info.title;
  at("version").textContent = api.info.version === "unversioned" ? "" : `version ${api.info.version}`;
  collect();
  at("search").addEventListener("input", list);
  addEventListener("hashchange", () => { show(); at("operation").focus(); });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== at("search")) {
      event.preventDefault();
      at("search").focus();
    }
  });
  list();
}

start();
