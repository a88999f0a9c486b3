#!/bin/sh
# Builds the image `tidegate` from the Dockerfile with whatever is there: docker, podman or buildah.
set -eu
cd "$(dirname "$0")/../.."
for TOOL in docker podman buildah; do
  command -v "$TOOL" >/dev/null 2>&1 || continue
  VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
  exec "$TOOL" build -t "tidegate:$VERSION" -t tidegate --build-arg "VERSION=$VERSION" \
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" .
done
echo "there is neither docker nor podman nor buildah: install one of them" >&2
exit 1
