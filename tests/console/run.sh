#!/bin/sh
# The console and the API reference in a real browser: `sh tests/console/run.sh [FOLDER FOR SCREENSHOTS]`. Runs target/debug/tidegate.
# Where the machine has no browser this says so and ends well; with CI set it fails there instead.
set -eu

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
FOUND=$(sh "$ROOT/tests/console/fetch-tools.sh") || {
  CODE=$?
  [ "$CODE" = 3 ] && [ -z "${CI:-}" ] || { echo "$FOUND" >&2; exit 1; }
  echo "NOT RUN: the tests of the console and the API reference, because $(echo "$FOUND" | tail -n 1)" >&2
  exit 0
}
[ -x "$ROOT/target/debug/tidegate" ] || { echo "build first: cargo build --bin tidegate" >&2; exit 1; }
CHROMIUM=$(echo "$FOUND" | tail -n 1)
export CHROMIUM
for TEST in console reference; do timeout 180 node "$ROOT/tests/console/$TEST.mjs" "$ROOT" "$@"; done
