#!/bin/sh
# Puts what the console's test needs into target/tools/browser: playwright-core, pinned and hash-checked by
# package-lock.json. Node comes from PATH; a Chromium from TIDEGATE_TEST_CHROMIUM, from PATH, or as Debian's package.
# Exit codes: 0 all there (the last line is the browser's path), 3 this machine cannot run the test (the last line says
# why), 1 something broke.
set -eu

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
TOOLS="$ROOT/target/tools/browser"

cannot() { echo "$1"; exit 3; }

for TOOL in node npm; do command -v "$TOOL" >/dev/null 2>&1 || cannot "there is no $TOOL"; done
CHROMIUM=${TIDEGATE_TEST_CHROMIUM:-}
for NAME in chromium chromium-browser google-chrome; do
  [ -n "$CHROMIUM" ] || CHROMIUM=$(command -v "$NAME" || true)
done
if [ -z "$CHROMIUM" ] && command -v apt-get >/dev/null 2>&1; then
  (apt-get update -q && apt-get install -y -q --no-install-recommends chromium) >/dev/null 2>&1 || true
  CHROMIUM=$(command -v chromium || true)
fi
[ -n "$CHROMIUM" ] || cannot "there is no Chromium"

if ! cmp -s "$ROOT/tests/console/package-lock.json" "$TOOLS/package-lock.json" || [ ! -d "$TOOLS/node_modules" ]; then
  rm -rf "$TOOLS"
  mkdir -p "$TOOLS"
  cp "$ROOT/tests/console/package.json" "$TOOLS/"
  cp "$ROOT/tests/console/package-lock.json" "$TOOLS/package-lock.json.new"
  mv "$TOOLS/package-lock.json.new" "$TOOLS/package-lock.json"
  (cd "$TOOLS" && npm ci --ignore-scripts --no-audit --no-fund >/dev/null 2>"$TOOLS/npm.log") || {
    cat "$TOOLS/npm.log" >&2
    rm -rf "$TOOLS"
    cannot "playwright-core could not be fetched"
  }
fi
echo "$CHROMIUM"
