#!/bin/sh
# Renews docs/images: the console, and the dashboard over a real system that was under load for SECONDS_OF_LOAD (600).
# `sh tests/chart/pictures.sh [FOLDER FOR ALL PICTURES]`. Runs target/debug/tidegate.
set -eu

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
PICTURES=${1:-$(mktemp -d)}
mkdir -p "$PICTURES" "$ROOT/docs/images"
sh "$ROOT/tests/chart/fetch-tools.sh"
sh "$ROOT/tests/support/fetch-nats-server.sh"
CHROMIUM=$(sh "$ROOT/tests/console/fetch-tools.sh" | tail -n 1)
export CHROMIUM
timeout 180 node "$ROOT/tests/console/console.mjs" "$ROOT" "$PICTURES"
cp "$PICTURES/routes-light.png" "$ROOT/docs/images/console.png"
cd "$ROOT/tests/chart"
"$ROOT/target/tools/chart-python/bin/python3" -B pictures.py "${SECONDS_OF_LOAD:-600}" \
  "$ROOT/docs/images/dashboard.png" "$PICTURES/dashboard-whole.png"
if command -v pngquant >/dev/null 2>&1; then
  for NAME in console dashboard; do
    pngquant --force --quality 80-100 --output "$ROOT/docs/images/$NAME.png" "$ROOT/docs/images/$NAME.png"
  done
else
  echo "NOT MADE SMALLER: there is no pngquant (Debian: pngquant); a picture should have at most 200 KB" >&2
fi
