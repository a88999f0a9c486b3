#!/bin/sh
# Sees to a C# compiler and what runs its programs: `mcs` and `mono` from PATH, or Debian's packages of them.
# Exit codes: 0 there, 3 this machine cannot have them (the last line says why).
set -eu

is_there() { command -v mcs >/dev/null 2>&1 && command -v mono >/dev/null 2>&1; }

if is_there; then exit 0; fi
if command -v apt-get >/dev/null 2>&1; then
  PACKAGES="mono-mcs mono-runtime libmono-system-net-http4.0-cil"
  # shellcheck disable=SC2086 # a word each
  { apt-get install -y -q --no-install-recommends $PACKAGES \
    || { apt-get update -q && apt-get install -y -q --no-install-recommends $PACKAGES; }
  } >/dev/null 2>&1 || true
fi
is_there || { echo "there is no mono with its compiler mcs (Debian: mono-mcs, mono-runtime, libmono-system-net-http4.0-cil)"; exit 3; }
