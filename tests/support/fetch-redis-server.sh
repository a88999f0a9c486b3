#!/bin/sh
# Provides a real redis-server or valkey-server for the tests of the cache. Does nothing where one is there already.
#
# In this order: TIDEGATE_TEST_REDIS_SERVER, PATH, Debian's package.
set -eu

works() { command -v "$1" >/dev/null 2>&1 && "$1" --version; }

if works "${TIDEGATE_TEST_REDIS_SERVER:-redis-server}" || works redis-server || works valkey-server; then exit 0; fi
if command -v apt-get >/dev/null 2>&1 && (apt-get update -q && apt-get install -y -q redis-server) >/dev/null 2>&1; then
  works redis-server
  exit 0
fi
echo "no redis-server could be fetched: install one, or set TIDEGATE_TEST_REDIS_SERVER to its path" >&2
exit 1
