# Everything here also runs by hand: each target is the command it prints.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
CODE := $(wildcard schemas capture transport apply ops bench tests)

.PHONY: help venv demo test check fmt faults bench performance native services-up services-down

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BIN)/.demo ## two embedded databases, changes flowing between them, a full comparison
	$(BIN)/headwater demo

test: $(BIN)/.dev $(BIN)/.native ## every test on real servers (installed if missing); a sample of the crash matrix
	$(BIN)/python -m tests.services run $(BIN)/pytest tests -n 3 --dist loadfile --no-loadscope-reorder --durations=60

check: $(BIN)/.dev $(BIN)/.native ## linter, formatter, types and unit tests: no servers, below a minute
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/pytest tests/unit

fmt: $(BIN)/.dev ## format the code and fix what the linter can
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

faults: $(BIN)/.dev $(BIN)/.native ## the whole crash matrix: every fault point, hit number and log
	$(BIN)/python -m tests.services run $(BIN)/pytest tests/faults -n 3 -m "full or not full"

bench: $(BIN)/.dev $(BIN)/.native ## measure rows per second and latency: all of it, or make bench B=NAME
	$(BIN)/python -m bench $(B)

performance: $(BIN)/.dev ## write docs/performance.md and its plot from the stored figures
	$(BIN)/python -m bench.report

services-up: $(BIN)/.dev ## start the test servers and leave them up: eval "$(make -s services-up)"
	@$(BIN)/python -m tests.services up

services-down: $(BIN)/.dev ## stop the servers that services-up started
	@$(BIN)/python -m tests.services down

native: $(BIN)/.native ## build the compiled hot path, where cargo is; everything works without it

venv: $(BIN)/.dev ## make .venv with everything that development needs

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python lacks ensurepip: run 'sudo apt-get install python3-venv', then make again" >&2; exit 1; }
	@echo "making .venv" >&2
	@$(PYTHON) -m venv .venv

$(BIN)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing headwater for the demo" >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[demo]' >&2
	@touch $@

$(BIN)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing headwater for development" >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]' >&2
	@touch $@

$(BIN)/.native: $(BIN)/.dev native/build.py native/Cargo.toml native/pyproject.toml $(wildcard native/src/*.rs)
	@if $(BIN)/python native/build.py; then touch $@; \
	else echo "the compiled part could not be built: Headwater works without it, only slower" >&2; fi
