# rqemu: what a developer runs. Every target that needs Debian packages installs them first (scripts/setup.sh).
#
#   make demo          boot a guest from a qcow2 disk, show its console, talk QMP to it, power it off
#   make test          unit tests, then the side-by-side comparison with QEMU 7.2
#   make lint          rustfmt, clippy, cargo deny, dependency arrows
#   make bench         ratios to QEMU, written to docs/performance.md
#   make scoreboard    all comparisons, written to compat-tests/scoreboard.md
#   make fuzz          fuzz targets, FUZZ_SECONDS (60) each, from FUZZ_SEED (1)
#   make check-images  the block layer's images under qemu-img check
#
# The binary under test is $RQEMU (default: built here), the reference $QEMU (default: qemu-system-x86_64).

CARGO ?= cargo
QEMU ?= qemu-system-x86_64
export QEMU

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BIN := rqemu-system-x86_64

# `fast`: optimised, but without link-time optimisation, so that two cores build it in reasonable time.
FAST := --config 'profile.fast.inherits="release"' --config 'profile.fast.lto="off"' \
        --config 'profile.fast.codegen-units=16' --profile fast

.DEFAULT_GOAL := help
.PHONY: help setup build build-fast test unit compat lint bench demo scoreboard ratchet check-images fuzz

help:
	@sed -n 's/^#   //p' Makefile

setup:
	@scripts/setup.sh

build:
	$(CARGO) build --release -p rqemu-frontend --bin $(BIN)

build-fast:
	$(CARGO) build $(FAST) -p rqemu-frontend --bin $(BIN)

# Unit tests run unoptimised; the binary that guests run on is built with the fast profile.
test: setup unit compat

unit: setup
	$(CARGO) nextest run --workspace --exclude rqemu-compat --no-tests=pass

compat: setup build-fast
	@echo "the areas cmdlines and boot take long: make scoreboard runs them"
	RQEMU="$${RQEMU:-$(abspath $(TARGET_DIR))/fast/$(BIN)}" $(CARGO) nextest run -p rqemu-compat -E 'not test(=cmdlines) and not test(=boot)'

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) deny --log-level error check licenses bans sources
	$(CARGO) nextest run -p rqemu-compat --test arrows

scoreboard: setup build-fast
	RQEMU="$${RQEMU:-$(abspath $(TARGET_DIR))/fast/$(BIN)}" $(CARGO) run -q -p rqemu-compat --bin scoreboard

# As scoreboard, and raises the committed floor (compat-tests/ratchet.json) to what was reached.
ratchet: setup build-fast
	RQEMU="$${RQEMU:-$(abspath $(TARGET_DIR))/fast/$(BIN)}" $(CARGO) run -q -p rqemu-compat --bin scoreboard -- --ratchet

bench: setup build
	RQEMU="$${RQEMU:-$(abspath $(TARGET_DIR))/release/$(BIN)}" $(CARGO) run -q --release -p rqemu-compat --bin bench

demo: setup build
	RQEMU="$${RQEMU:-$(abspath $(TARGET_DIR))/release/$(BIN)}" $(CARGO) run -q -p rqemu-compat --bin demo

FUZZ_SECONDS ?= 60
FUZZ_SEED ?= 1
FUZZ_TARGETS := wire arguments qcow2 chains loaders fw_cfg devices
FUZZ_DIR := $(abspath $(TARGET_DIR))/fuzz

fuzz:
	cd fuzz && $(CARGO) build --release --target-dir $(FUZZ_DIR)
	@set -e; for t in $(FUZZ_TARGETS); do echo "fuzz: $$t"; \
	  n=100000000; [ $$t = devices ] && n=20000; \
	  $(FUZZ_DIR)/release/$$t --seed $(FUZZ_SEED) --runs $$n --seconds $(FUZZ_SECONDS) 2>$(FUZZ_DIR)/$$t.log \
	    || { grep -v 'virtio:' $(FUZZ_DIR)/$$t.log | tail -20; exit 1; }; done

check-images: setup
	$(CARGO) nextest run --workspace --no-tests=pass -E 'test(qemu_img) | test(image)'
