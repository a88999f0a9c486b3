# Tidegate: what there is to run. `make help` lists it.

CARGO ?= cargo
# Tests of one binary share two cores with a real nats-server; more threads only add waiting.
TEST_THREADS ?= 4

.PHONY: help run test fmt clippy tools compat check console-test chart-test chart-readme pictures api-test reference image image-test bench fuzz-build fuzz-seeds fuzz clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: ## gateway and services in one process, on the embedded bus: http://127.0.0.1:8080
	$(CARGO) run --release --bin tidegate -- dev

test: fmt clippy tools ## everything: format, lints, unit, contract and whole-system tests on a real nats-server
	$(CARGO) test --workspace --all-targets -- --test-threads=$(TEST_THREADS)
	CARGO=$(CARGO) TEST_THREADS=$(TEST_THREADS) sh tests/support/compatibility.sh
	$(CARGO) build --bin tidegate
	sh tests/console/run.sh
	sh tests/chart/run.sh
	sh tests/api/run.sh
	sh tests/image/run.sh --quick

fmt: ## formatting as committed
	$(CARGO) fmt --all --check

clippy: ## lints, warnings refused
	$(CARGO) clippy --workspace --all-targets -- -D warnings

tools: ## what the tests need beside Rust, pinned and hash-checked, into target/tools: nats-server, valkey-server, nats-py
	sh tests/support/fetch-nats-server.sh
	sh tests/support/fetch-redis-server.sh
	sh tests/interop/fetch-python.sh || [ $$? = 3 ]

compat: ## bus, store, events and requests on nats-server 2.10, 2.11, 2.12 and 2.14 (fetched, pinned)
	CARGO=$(CARGO) TEST_THREADS=$(TEST_THREADS) sh tests/support/compatibility.sh

check: ## the routes file of this folder
	$(CARGO) run --release --bin tidegate -- check

console-test: ## the console and the API reference in a headless Chromium (node, npm, chromium; fetches playwright-core itself)
	$(CARGO) build --bin tidegate
	sh tests/console/run.sh

chart-test: ## the helm chart, its alerts and runbooks (python3; fetches helm 3 and 4, schemas and promtool itself)
	$(CARGO) build --bin tidegate
	sh tests/chart/run.sh

chart-readme: ## the table of values in charts/tidegate/README.md, from the comments of values.yaml
	sh tests/chart/fetch-tools.sh
	target/tools/chart-python/bin/python3 -B tests/chart/readme.py charts/tidegate

pictures: ## docs/images: console and dashboard of a real system under load (what console-test and chart-test need)
	$(CARGO) build --bin tidegate
	sh tests/chart/pictures.sh

api-test: ## the API description valid, and true on all routes, for a property-based tester (python3; fetches it itself)
	$(CARGO) build --bin tidegate
	sh tests/api/run.sh --examples 30

reference: ## docs/errors.md and docs/routes-reference.md, from the code
	TIDEGATE_WRITE_REFERENCE=1 $(CARGO) test --test reference up_to_date

image: ## the container image (docker, podman or buildah)
	sh tests/image/build.sh

image-test: ## the image's last stage built and run, with a binary made by the Dockerfile's flags (buildah, podman)
	sh tests/image/run.sh

bench: tools ## ratios against yardsticks of the same run, one table at the end (docs/benchmarks.md says how to read it)
	$(CARGO) bench

# libFuzzer needs its coverage pass in the code, which stable can add, and a C++ compiler for itself. No address
# sanitizer: that takes a nightly (`cargo +nightly fuzz run TARGET` in this folder).
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing
FUZZ_TARGETS = json_to_wire wire_to_json text_to_wire canonical wire_to_rust template manifest head
FUZZ_SECONDS ?= 60
FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')

fuzz-build: ## the fuzz targets, as plain programs under fuzz/target
	@command -v c++ >/dev/null || { echo "fuzz-build needs a C++ compiler (c++) for libFuzzer; there is none"; exit 1; }
	cd fuzz && RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --release --target $(FUZZ_HOST)

fuzz-seeds: ## the corpus as seeds of the fuzz targets, into fuzz/corpus
	TIDEGATE_FUZZ_SEEDS=$(CURDIR)/fuzz/corpus $(CARGO) test --test fuzz_bodies the_corpus_harms_no_target

fuzz: fuzz-build fuzz-seeds ## every fuzz target for FUZZ_SECONDS (60)
	@mkdir -p fuzz/artifacts
	@for target in $(FUZZ_TARGETS); do \
		fuzz/target/$(FUZZ_HOST)/release/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 \
			-artifact_prefix=fuzz/artifacts/$$target- -print_final_stats=1 fuzz/corpus/$$target || exit 1; \
	done

clean: ## build products
	$(CARGO) clean
