# On a bare machine with Python 3.11 and make: `make demo` shows everything in about five minutes on two cores,
# `make test` checks everything.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements/lock.txt
TORCH ?= $(shell cat requirements/torch.txt)
UV := .tools/bin/uv
OUT ?= runs/demo
REQUESTS ?= runs/requests
JOBS ?= 2
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

CUDA_ARGS := --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 \
	--build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128

# Without bytecode every start of Python compiles anew: a third of what collecting the tests takes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: image install smol lock check test test-fast test-slow test-matrix demo requests docs clean

install: $(STAMP)

$(STAMP): pyproject.toml $(LOCK) requirements/torch.txt
	@test -n "$(PYTHON)" || { echo "unsee needs Python 3.11 or newer, and no such python3 is on the PATH." \
		"Install one, or name it: make install PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment." \
		"On Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 2; }
	$(BIN)/python -m pip install -q --no-compile "$(TORCH)" -r $(LOCK) || { echo "Could not install $(TORCH) and $(LOCK)." \
		"If there is no $(TORCH) for this machine, name another: make install TORCH=torch==2.12.1" >&2; exit 2; }
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $(STAMP)

smol: install
	$(BIN)/python -m pip install -q --no-deps -r requirements/smol.txt

lock:
	@test -x $(UV) || { $(PYTHON) -m venv .tools && .tools/bin/python -m pip install -q uv; }
	$(PYTHON) scripts/lock.py $(UV)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache pyproject.toml
	$(BIN)/lint-imports --no-cache importlinter-torch.toml
	$(BIN)/codespell src tests docs examples scripts perf configs README.md CHANGELOG.md CONTRIBUTING.md

test: install check
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-fast: install
	$(BIN)/python -m pytest -m fast

test-slow: install
	$(BIN)/python -m pytest -m slow

test-matrix:
	$(PYTHON) scripts/matrix.py

demo: install
	$(BIN)/unsee demo --out $(OUT)
	@echo "The report: $(CURDIR)/$(OUT)/report.html"

requests: install
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/deletion_requests.sh $(REQUESTS)
	@echo "The page: $(CURDIR)/$(REQUESTS)/index.html"

docs: install
	$(BIN)/python -m pip install -q --no-compile -r requirements/docs.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "The site: $(CURDIR)/build/site/index.html"

image:
	docker build -t unsee$(if $(CUDA),:cuda) $(if $(CUDA),$(CUDA_ARGS)) .

clean:
	rm -rf $(VENV) .venvs .tools build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
