# On a bare machine with Python 3.11 and make: `make demo` shows everything, `make test` checks everything.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH ?= torch==2.13.0
OUT ?= runs/demo
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

.PHONY: install check test test-slow demo clean

install: $(STAMP)

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "unsee needs Python 3.11 or newer, and no such python3 is on the PATH." \
		"Install one, or name it: make install PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment." \
		"On Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 2; }
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install -q "$(TORCH)" \
		|| $(BIN)/python -m pip install -q "torch>=2.7"
	$(BIN)/python -m pip install -q -e ".[dev]"
	@touch $(STAMP)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell src tests docs examples scripts perf configs README.md CHANGELOG.md CONTRIBUTING.md

test: install check
	$(BIN)/python -m pytest

test-slow: install
	$(BIN)/python -m pytest -m slow

demo: install
	$(BIN)/unsee demo --out $(OUT)
	@echo "The report: $(CURDIR)/$(OUT)/report.html"

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
