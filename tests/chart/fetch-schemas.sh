#!/bin/sh
# Puts the schemas of custom resources into target/tools/custom-resources: npm's @kubernetes-models, made from the Go
# types of Gateway API and Prometheus operator, and the compiler that reads its types. Pinned and hash-checked by
# package-lock.json; does nothing where they are there already.
# Exit codes: 0 all there, 3 this machine cannot have them (the last line says why), 1 something broke.
set -eu

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
TOOLS="$ROOT/target/tools/custom-resources"

cannot() { echo "$1"; exit 3; }

for TOOL in node npm; do command -v "$TOOL" >/dev/null 2>&1 || cannot "there is no $TOOL"; done
node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' || cannot "node is older than 20"
if cmp -s "$ROOT/tests/chart/package-lock.json" "$TOOLS/complete"; then exit 0; fi
rm -rf "$TOOLS"
mkdir -p "$TOOLS"
cp "$ROOT/tests/chart/package.json" "$ROOT/tests/chart/package-lock.json" "$TOOLS/"
(cd "$TOOLS" && npm ci --ignore-scripts --no-audit --no-fund >npm.log 2>&1) || {
  tail -n 5 "$TOOLS/npm.log" >&2
  if grep -q EINTEGRITY "$TOOLS/npm.log"; then exit 1; fi
  cannot "the packages of tests/chart/package.json could not be fetched"
}
cp "$ROOT/tests/chart/package-lock.json" "$TOOLS/complete"
