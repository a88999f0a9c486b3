#!/bin/sh
# The API description under foreign eyes: a validator, and requests made from it by a property-based tester against all
# routes of `tidegate dev`. `sh tests/api/run.sh [--examples N]`
#
# They need python3 (3.11 to 3.14) and once the network for pinned packages. Where that is not to be had, this says what
# was not run and why, and ends well; with CI set it fails there instead.
set -eu

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
TOOLS="$ROOT/target/tools"
PYTHON="$TOOLS/api-python/bin/python3"
WANTED="$ROOT/tests/api/requirements.txt"

cannot() {
  echo "NOT RUN: the tests of the API description: $1" >&2
  if [ -n "${CI:-}" ]; then exit 1; fi
  exit 0
}

command -v python3 >/dev/null 2>&1 || cannot "there is no python3"
python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || cannot "python3 is not 3.11 to 3.14"
python3 -c 'import ensurepip, venv' 2>/dev/null || cannot "python3 has no venv module (Debian: python3-venv)"
[ "$(uname -sm)" = "Linux x86_64" ] || cannot "the pinned packages are for Linux on x86_64, this is $(uname -sm)"
if ! [ -x "$PYTHON" ] || ! cmp -s "$WANTED" "$TOOLS/api-python/requirements.txt"; then
  mkdir -p "$TOOLS"
  rm -rf "$TOOLS/api-python"
  python3 -m venv "$TOOLS/api-python"
  LOG="$TOOLS/api-python/pip.log"
  if ! "$PYTHON" -m pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps --require-hashes \
    -r "$WANTED" >"$LOG" 2>&1; then
    tail -n 3 "$LOG" >&2
    if grep -q "DO NOT MATCH" "$LOG"; then exit 1; fi
    cannot "the Python packages could not be fetched"
  fi
  cp "$WANTED" "$TOOLS/api-python/requirements.txt"
fi
exec "$PYTHON" -B "$ROOT/tests/api/run.py" "$@"
