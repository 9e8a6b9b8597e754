# The verbs of Lighter. CI runs `make test`; nothing here is CI's alone.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PROFILE ?= fastrel
TARGET_DIR := $(shell cargo metadata --format-version 1 --no-deps --offline 2>/dev/null | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
LIGHTER := $(TARGET_DIR)/$(HOST)/$(PROFILE)/lighter

.PHONY: help build release fmt lint deny test unit root play vm fuzz

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: ## The binary, quickly built (profile fastrel)
	cargo build --workspace --bins --profile $(PROFILE)
	@echo "built $(LIGHTER)"

release: ## The binary as it is shipped: one static file, thin LTO
	cargo build --release -p lighter
	@ls -l $(TARGET_DIR)/$(HOST)/release/lighter

fmt: ## Format
	cargo fmt --all

lint: ## Format check, clippy without warnings, licences and duplicates
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(MAKE) deny

deny: ## cargo-deny, installed when missing
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --all-features check licenses bans sources

test: ## Every test, tier by tier, each with its budget (TIERS="build unit root critest soak cluster vm")
	@e2e/tiers $(TIERS)

unit: ## The tier that needs nothing
	@e2e/tiers unit

root: ## The tier that needs root: namespaces, mounts, cgroups
	@e2e/tiers root

fuzz: ## Parsers of what strangers write, fed with damage (ROUNDS=1000000 SEED=1 ARGS=websocket)
	@LIGHTER_FUZZ_ROUNDS=$(or $(ROUNDS),1000000) LIGHTER_FUZZ_SEED=$(or $(SEED),0) \
	    cargo test --quiet --workspace --lib --profile $(PROFILE) -- fuzz::$(ARGS) --nocapture

play: build ## A pod with no cluster: needs root, no Go (make play DOWN=1 removes it)
	@command -v busybox >/dev/null || { apt-get update -qq && apt-get install -qq -y busybox-static; }
	@archive=$$(mktemp) && e2e/busybox-image $$archive docker.io/library/busybox:stable \
	    && $(LIGHTER) image import $$archive; rm -f $$archive
	$(LIGHTER) play $(if $(DOWN),--down) deploy/manifests/play.yaml

vm: build ## cgroup v2 on kernels 6.1 and 6.12 in QEMU (MACHINES="smoke-6.1"): limits, devices, user namespaces
	e2e/vm/run $(LIGHTER) $(MACHINES)

-include e2e/bed.mk
