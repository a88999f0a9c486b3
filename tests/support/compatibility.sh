#!/bin/sh
# The rules of bus and store, events and whole requests, on every line of nats-server that we promise to work with
# (docs/compatibility.md); the newest is what all other tests run on.
set -eu
cd "$(dirname "$0")/../.."

for VERSION in 2.10.26 2.11.11 2.12.8 2.14.6; do
  sh tests/support/fetch-nats-server.sh "$VERSION"
  TIDEGATE_TEST_NATS_SERVER="$PWD/target/tools/nats-server-$VERSION" \
    "${CARGO:-cargo}" test --quiet --test bus_contract --test store_contract --test provisioning --test records \
    --test events --test system -- --test-threads="${TEST_THREADS:-4}"
done
