# The one entry point; CI calls the same targets.
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-up demo-down lab lab-down lab-packages test stress real chaos lint lint-rust lint-tls lint-proto lint-deny lint-shell bench \
  mutants openapi package

BUF_VERSION := 1.75.0
CARGO_DENY_VERSION := 0.20.2
CARGO_MUTANTS_VERSION := 27.1.0
BUF := target/tools/node_modules/.bin/buf
SHELL_SCRIPTS := .ci/run packaging/package.sh $(wildcard packaging/scriptlets/*.sh) \
  tests/demo/demo.sh tests/demo/processes.sh tests/demo/setup.sh tests/lab/lab.sh tests/lab/previous.sh \
  tests/real/real.sh tests/mutants/mutants.sh tests/stress/stress.sh

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "%-10s %s\n", $$1, $$2 }'

setup: ## install what the demo and the tests need, or say what is missing
	@tests/demo/setup.sh

demo: ## start two hosts, install an OBProxy on each, verify, then tear down
	@tests/demo/demo.sh run

demo-up: ## the same, but keep it running
	@tests/demo/demo.sh up

demo-down: ## stop what demo-up started
	@tests/demo/demo.sh down

lab: setup lab-packages ## start systemd hosts with agents from packages and print a shell command for each: HOSTS=3; needs root
	@tests/lab/lab.sh up $(or $(HOSTS),3)

lab-down: ## stop the lab and remove its files
	@tests/lab/lab.sh down

# Two releases of each package and the programs of the version before: what the lab installs and upgrades.
lab-packages:
	@PACKAGE_PROFILE=fast PACKAGE_RELEASE=1 packaging/package.sh >/dev/null
	@PACKAGE_PROFILE=fast PACKAGE_RELEASE=2 packaging/package.sh >/dev/null

# Tests that cannot run here note it in this file; with CI set they fail.
SKIPPED := target/tmp/skipped

# Tests and programs are built together: built apart, they need most libraries twice, with other features.
test: export BUILD_FLAGS := --bins --tests
test: setup ## run all tests; the last line is the runner's count, or says what was not run and why
	@cargo build --quiet --workspace $$BUILD_FLAGS
	@rm -f $(SKIPPED); mkdir -p $(dir $(SKIPPED))
	@skip() { echo "SKIPPED: $$1" | tee -a $(SKIPPED) >&2; [[ -z "$(CI)" ]]; }; \
	if ((EUID != 0)); then \
	  skip 'tests named root_ and lab_ need root'; \
	elif ! { $(MAKE) lab-packages && tests/lab/previous.sh >/dev/null; }; then \
	  skip 'tests named lab_ need packages and the programs of the version before'; \
	fi
	@if command -v cargo-nextest >/dev/null; then \
	  run=(cargo nextest run --workspace --test-threads $$((3 * $$(nproc))) $(if $(CI),--profile ci)); \
	  ((EUID == 0)) || run+=(--filterset 'not test(/(^|::)(root|lab)_/)'); \
	else \
	  run=(cargo test --workspace); \
	  ((EUID == 0)) || run+=(-- --skip root_ --skip lab_); \
	fi; \
	"$${run[@]}" && ended=0 || ended=$$?; \
	[[ ! -s $(SKIPPED) ]] || sort -u $(SKIPPED) >&2; \
	exit $$ended

stress: setup ## run all tests RUNS=10 times while the processors are busy with something else: BUSY=n
	@RUNS="$(RUNS)" BUSY="$(BUSY)" tests/stress/stress.sh

# ROUNDS=1 SEED=s FIRST=r plays round r alone.
# LIBS=directory, SQL_PORT=, EXPORTER_PORT=, RPC_PORT=; LAB=1 on a systemd host of the lab.
real: setup $(if $(LAB),lab-packages) ## check that oblet manages an obproxy: OBPROXY_RPM=path, LAB=1
	@[[ -n "$(OBPROXY_RPM)" ]] || { echo 'real: name the package: make real OBPROXY_RPM=path' >&2; exit 64; }
	@LIBS="$(LIBS)" SQL_PORT="$(SQL_PORT)" EXPORTER_PORT="$(EXPORTER_PORT)" RPC_PORT="$(RPC_PORT)" KEEP="$(KEEP)" \
	  tests/real/real.sh $(if $(LAB),--lab) "$(OBPROXY_RPM)"

chaos: setup ## kill real programs at random moments; ROUNDS=n, SEED=s
	@cargo build --quiet --workspace --bins --tests
	@OBLET_CHAOS_ROUNDS=$(or $(ROUNDS),100) OBLET_CHAOS_SEED=$(SEED) OBLET_CHAOS_FIRST=$(FIRST) \
	  cargo test --quiet --test end_to_end chaos:: -- --nocapture

# One is a build of a minute and a run of the unit tests: an hour for some fifty of them, so choose.
mutants: setup ## plant defects and count those that tests notice: SHARD=k/n, DIFF=revision, FILE=glob
	@command -v cargo-mutants >/dev/null || cargo install --quiet --locked cargo-mutants@$(CARGO_MUTANTS_VERSION)
	@SHARD="$(SHARD)" DIFF="$(DIFF)" FILE="$(FILE)" tests/mutants/mutants.sh

lint: lint-rust lint-tls lint-proto lint-deny lint-shell ## check formatting, clippy, contract, licences, scripts

lint-rust:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

# One cryptography library is enough: everything is configured for ring.
lint-tls:
	@if [[ -n $$(cargo tree --workspace --invert aws-lc-rs 2>/dev/null || true) ]]; then \
	  echo 'lint: aws-lc-rs came into the tree; `cargo tree -i aws-lc-rs` tells through whom' >&2; exit 1; \
	fi

lint-proto:
	@if command -v npm >/dev/null; then \
	  [[ -x $(BUF) ]] || npm install --silent --no-audit --no-fund --prefix target/tools @bufbuild/buf@$(BUF_VERSION); \
	  $(BUF) lint proto; \
	else \
	  echo 'SKIPPED: npm is not here, so the contract was not linted' >&2; \
	fi

# Built from source, which takes a processor two minutes, once: it stays with the user's other cargo programs.
lint-deny:
	@if ! command -v cargo-deny >/dev/null && ((EUID == 0)); then \
	  cargo install --quiet --debug --locked cargo-deny@$(CARGO_DENY_VERSION) || true; \
	fi
	@if command -v cargo-deny >/dev/null; then \
	  cargo deny check bans licenses sources; \
	else \
	  echo 'SKIPPED: cargo-deny is not here, so licences were not checked' >&2; \
	fi

lint-shell:
	@if command -v shellcheck >/dev/null; then \
	  shellcheck -x $(SHELL_SCRIPTS); \
	else \
	  echo 'SKIPPED: shellcheck is not here, so scripts were not linted' >&2; \
	fi

# Each with the profile of its package.
bench: ## measure the agent and the coordinator against baselines of the same run; HOSTS=n: the coordinator with n hosts
	@if [[ -n "$(HOSTS)" ]]; then \
	  OBLET_BENCH_HOSTS="$(HOSTS)" exec cargo bench --profile release-coordinator --bench coordinator; \
	fi; \
	cargo bench --bench agent; \
	cargo bench --profile release-coordinator --bench coordinator

openapi: ## write the OpenAPI document
	UPDATE_OPENAPI=1 cargo test --quiet openapi

package: ## build rpm and deb packages in target/packages: PACKAGE_PROFILE=fast, PACKAGE_RELEASE=n
	@PACKAGE_PROFILE=$(PACKAGE_PROFILE) PACKAGE_RELEASE=$(PACKAGE_RELEASE) packaging/package.sh
