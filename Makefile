# Everything a newcomer needs. Whatever is missing on the machine is installed by scripts/setup.sh, which says so.

SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two set-ups at once would be two apt-get at once; cargo is parallel by itself.
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

# Where scripts/setup.sh puts Node.js if the distribution's is too old.
export PATH := $(CURDIR)/target/tools/node/bin:$(PATH)

PAGES := player-demo/dist/index.html
PAGE_SOURCES := $(shell find player-demo/src -type f) $(wildcard player-demo/*.mjs player-demo/*.json player-demo/*.txt)

.PHONY: help demo demo-cluster test build check fix bench soak chaos networks fuzz pages setup-build setup-check setup-demo setup-cluster setup-test setup-fuzz

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

demo: setup-demo build ## build, start a server, publish a film into it, print where to watch; Ctrl-C ends it
	@scripts/demo.sh target/release/tidecast

demo-cluster: setup-cluster build ## build, and start ten processes here: NATS thrice, a node for publishers, two origins, workers, edges; to kill them and watch
	@scripts/demo-cluster.sh target/release/tidecast

test: setup-test tests/browser/node_modules/.package-lock.json ## everything CI checks: format, lints, unit, conformance and end-to-end tests
	@scripts/test.sh

build: setup-build pages ## the release binaries, target/release/tidecast and, for renditions, tidecast-encoder
	cargo build --release --locked --package tidecast --package tidecast-encoder

check: setup-check pages tests/browser/node_modules/.package-lock.json ## fast: format, lints and types, no tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	npm --prefix player-demo run --silent check
	npm --prefix tests/browser run --silent check

fix: setup-check pages ## format, and apply what clippy can apply
	cargo fmt --all
	cargo clippy --workspace --all-targets --locked --fix --allow-dirty --allow-staged

bench: setup-test build tests/browser/node_modules/.package-lock.json ## benchmarks, release build; takes minutes
	cargo run --release --locked --package tidecast-bench

# SOAK_MINUTES=10 make soak: a first look.
soak: setup-demo build ## an hour of publishers and viewers that come and go: does memory stay flat?
	cargo run --release --locked --package tidecast-bench -- soak --minutes $${SOAK_MINUTES:-60}

chaos: setup-test pages tests/browser/node_modules/.package-lock.json ## encoders, nodes of every kind and NATS are killed and stopped at random, CHAOS_SEEDS (10) schedules from CHAOS_FIRST (1) on, against targets: an hour and a half
	cargo build --locked --package tidecast --package tidecast-encoder
	CHAOS_SEEDS=$${CHAOS_SEEDS:-10} cargo test --locked --package tidecast-tests --no-fail-fast --test ladder --test workers --test faults --test rolling -- --nocapture --test-threads 1 whatever_befalls edges_are_upgraded

# NETWORK_SEED=7 make networks: other packets are lost.
networks: setup-test pages tests/browser/node_modules/.package-lock.json ## Chromium by WebRTC on networks that lose, cut and narrow, as root: a quarter of an hour, on a quiet machine
	cargo build --locked --package tidecast --package tidecast-encoder
	NETWORKS=all cargo test --locked --package tidecast-tests --test networks -- --nocapture

fuzz: setup-fuzz pages ## libFuzzer at every parser of foreign bytes, FUZZ_SECONDS (120) each: half an hour
	@scripts/fuzz.sh

# The web pages are embedded into the binary, so they come before any cargo command.
pages: $(PAGES)

$(PAGES): player-demo/node_modules/.package-lock.json $(PAGE_SOURCES)
	npm --prefix player-demo run --silent build
	@touch $@

# npm writes this file last.
%/node_modules/.package-lock.json: %/package-lock.json %/package.json
	npm ci --prefix $* --silent
	@touch $@

setup-build setup-check setup-demo setup-cluster setup-test setup-fuzz: setup-%:
	@scripts/setup.sh $*
