#!/bin/sh
# The tests of the helm chart, its alerts and its runbooks. `sh tests/chart/run.sh [TEST…]`
#
# They need python3, and once the network for pinned tools (fetch-tools.sh). Where that is not to be had, this says what
# was not run and why, and ends well: building and testing Tidegate itself needs no more than Rust and a C compiler.
# With CI set it fails there instead, so that nobody believes in tests that never ran.
set -eu

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
if MESSAGE=$(sh "$ROOT/tests/chart/fetch-tools.sh" && sh "$ROOT/tests/support/fetch-nats-server.sh"); then
  cd "$ROOT/tests/chart"
  "$ROOT/target/tools/chart-python/bin/python3" -B run.py "$@"
  [ $# = 0 ] || exit 0
  "$ROOT/target/tools/chart-python/bin/python3" -B running.py
else
  CODE=$?
  echo "$MESSAGE" >&2
  [ "$CODE" = 3 ] && [ -z "${CI:-}" ] || exit 1
  echo "NOT RUN: the tests of charts/tidegate, its alerts and runbooks (see the line above)" >&2
  exit 0
fi
if MESSAGE=$(sh "$ROOT/tests/chart/fetch-schemas.sh"); then
  "$ROOT/target/tools/chart-python/bin/python3" -B custom_resources.py
else
  CODE=$?
  echo "$MESSAGE" >&2
  [ "$CODE" = 3 ] && [ -z "${CI:-}" ] || exit 1
  echo "NOT RUN: the check of HTTPRoute, ServiceMonitor and PrometheusRule against their schemas (see the line above)" >&2
fi
