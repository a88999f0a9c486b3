// Custom resources against the schemas of their projects' own Go types, as npm's @kubernetes-models has them: the limits,
// patterns and choices by their validators, fields that are unknown by their TypeScript types.
// `node custom_resources.mjs FOLDER_OF_NODE_MODULES < [MANIFEST, …]` prints [[PROBLEM, …], …]

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const folder = resolve(process.argv[2]);
const require = createRequire(join(folder, "package.json"));
const typescript = require("typescript");
const PACKAGES = {
  "gateway.networking.k8s.io": "@kubernetes-models/gateway-api",
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
};

const moduleOf = ({ apiVersion, kind }) => {
  const [group] = apiVersion.split("/");
  if (!PACKAGES[group]) throw new Error(`no package has the schemas of \`${group}\``);
  return `${PACKAGES[group]}/${apiVersion}/${kind}`;
};

async function refused(manifest) {
  const file = join(folder, "node_modules", `${moduleOf(manifest)}.js`);
  const model = (await import(pathToFileURL(file)))[manifest.kind];
  try {
    new model(structuredClone(manifest)).validate();
    return [];
  } catch (error) {
    return error.errors?.map(({ instancePath, message }) => `${instancePath} ${message}`) ?? [error.message];
  }
}

/** Problems that the compiler has with the manifests as literals of their types, by manifest. */
function unknown(manifests) {
  const root = join(folder, "manifests");
  const sources = new Map(manifests.map((manifest, index) => [
    `${root}/${index}.ts`,
    `import type { I${manifest.kind} } from "${moduleOf(manifest)}";\nexport const it: I${manifest.kind} = ${JSON.stringify(manifest, null, 1)};\n`,
  ]));
  const options = {
    noEmit: true, strict: true, skipLibCheck: true, types: [], target: typescript.ScriptTarget.ES2022,
    module: typescript.ModuleKind.NodeNext, moduleResolution: typescript.ModuleResolutionKind.NodeNext,
  };
  const host = typescript.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  host.fileExists = (name) => sources.has(name) || fileExists(name);
  host.readFile = (name) => sources.get(name) ?? readFile(name);
  host.getSourceFile = (name, ...rest) =>
    sources.has(name) ? typescript.createSourceFile(name, sources.get(name), ...rest) : getSourceFile(name, ...rest);
  const program = typescript.createProgram([...sources.keys()], options, host);
  const outside = program.getGlobalDiagnostics().concat(program.getOptionsDiagnostics());
  if (outside.length) throw new Error(typescript.formatDiagnostics(outside, host));
  return [...sources.keys()].map((name) => {
    const file = program.getSourceFile(name);
    const problems = [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)];
    return problems.map(({ messageText }) => typescript.flattenDiagnosticMessageText(messageText, ": "));
  });
}

const manifests = JSON.parse(readFileSync(0, "utf8"));
const strangers = unknown(manifests);
const problems = [];
for (const [index, manifest] of manifests.entries()) problems.push([...(await refused(manifest)), ...strangers[index]]);
console.log(JSON.stringify(problems));
