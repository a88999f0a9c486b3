#!/bin/sh
# Puts the Python environment of the interop tests into target/tools/interop-python: nats-py and protobuf, pinned and
# hash-checked. Does nothing where it is there already.
# Exit codes: 0 there, 3 this machine cannot run the interop tests (the last line says why), 1 something broke.
set -eu

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
WANTED="$ROOT/tests/interop/requirements.txt"
TARGET="$ROOT/target/tools/interop-python"

cannot() { echo "$1"; exit 3; }
is_there() { [ -x "$TARGET/bin/python3" ] && cmp -s "$WANTED" "$TARGET/requirements.txt"; }

if is_there; then exit 0; fi
command -v python3 >/dev/null 2>&1 || cannot "there is no python3"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || cannot "python3 is older than 3.10"
python3 -c 'import ensurepip, venv' 2>/dev/null || cannot "python3 has no venv module (Debian: python3-venv)"

mkdir -p "$ROOT/target/tools"
LOG=$(mktemp "$ROOT/target/tools/fetch.XXXXXX")
trap 'rm -f "$LOG"' EXIT
rm -rf "$TARGET"
python3 -m venv "$TARGET"
if ! "$TARGET/bin/python3" -m pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps \
  --require-hashes -r "$WANTED" >"$LOG" 2>&1; then
  tail -n 3 "$LOG"
  if grep -q "DO NOT MATCH" "$LOG"; then exit 1; fi
  cannot "nats-py and protobuf could not be fetched"
fi
# Last, so that an environment without it counts as unfinished.
cp "$WANTED" "$TARGET/requirements.txt"
