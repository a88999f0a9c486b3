# Tidegate: what there is to run. `make help` lists it.

CARGO ?= cargo
# Tests of one binary share two cores with a real nats-server; more threads only add waiting.
TEST_THREADS ?= 4

.PHONY: help run test fmt clippy tools check chart-test chart-readme image image-test bench fuzz-build clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: ## gateway and services in one process, on the embedded bus: http://127.0.0.1:8080
	$(CARGO) run --release --bin tidegate -- dev

test: fmt clippy tools ## everything: format, lints, unit, contract and whole-system tests on a real nats-server
	$(CARGO) test --workspace --all-targets -- --test-threads=$(TEST_THREADS)
	$(CARGO) build --bin tidegate
	sh tests/chart/run.sh
	sh tests/image/run.sh --quick

fmt: ## formatting as committed
	$(CARGO) fmt --all --check

clippy: ## lints, warnings refused
	$(CARGO) clippy --workspace --all-targets -- -D warnings

tools: ## what the tests need beside Rust: a real nats-server, pinned and hash-checked, into target/tools
	sh tests/support/fetch-nats-server.sh

check: ## the routes file of this folder
	$(CARGO) run --release --bin tidegate -- check

chart-test: ## the helm chart, its alerts and runbooks (python3; fetches helm 3 and 4, schemas and promtool itself)
	$(CARGO) build --bin tidegate
	sh tests/chart/run.sh

chart-readme: ## the table of values in charts/tidegate/README.md, from the comments of values.yaml
	sh tests/chart/fetch-tools.sh
	target/tools/chart-python/bin/python3 -B tests/chart/readme.py charts/tidegate

image: ## the container image (docker, podman or buildah)
	sh tests/image/build.sh

image-test: ## the image's last stage built and run, with a binary made by the Dockerfile's flags (buildah, podman)
	sh tests/image/run.sh

bench: ## ratios against yardsticks of the same run (transcode, route, gateway, stream)
	$(CARGO) bench --workspace

clean: ## build products
	$(CARGO) clean
