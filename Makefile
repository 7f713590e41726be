# Two commands do all the set-up on a fresh machine with Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test test-real check format bench soak docs clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Guard needs Python 3.11 or newer; try make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@echo "setting up $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "installing Guard and scikit-learn into $(VENV)" >&2
	@$(PIP) install -e '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo "installing Guard and the test packages into $(VENV)" >&2
	@$(PIP) install -e '.[demo,test]'
	@touch $@

$(VENV)/.lint: pyproject.toml | $(VENV)/.test
	@echo "installing the linters into $(VENV)" >&2
	@$(PIP) install -e '.[demo,test,lint]'
	@touch $@

demo: $(VENV)/.demo ## guard a real model, ask it with and without Guard, steal it with and without Guard (ONCE=1 stops there)
	@$(BIN)/guard demo $(if $(ONCE),--once)

test: $(VENV)/.test ## unit, contract, property, scenario, statistical and integration tests (COVERAGE=1: branch coverage, as in CI)
	@rm -f .coverage .coverage.*
	@$(BIN)/$(if $(COVERAGE),coverage run,python) -m pytest -n 2 --dist loadfile -m "not real and not lab" $(ARGS)
	@$(if $(COVERAGE),$(BIN)/coverage combine --quiet && $(BIN)/coverage report,true)

test-real: $(VENV)/.test ## real model servers and their own clients through Guard, each in a venv of its own; the attack lab
	@$(BIN)/python -m pytest -m "real or lab" $(ARGS)

check: $(VENV)/.lint ## format, lint, types, imports, generated docs
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports
	@$(BIN)/guard schema --format markdown | diff -u docs/policy.md - || { echo "docs/policy.md is stale: guard schema --format markdown > docs/policy.md"; exit 1; }

format: $(VENV)/.lint ## format and fix what can be fixed
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

bench: $(VENV)/.test ## compare with nginx, aiohttp, LiteLLM and mitmproxy in one run; needs Debian's nginx and wrk
	@$(PIP) install aiohttp
	@$(BIN)/python -m tests.benchmarks.bench $(ARGS)
	@$(BIN)/python -m tests.benchmarks.streams
	@$(BIN)/python -m tests.benchmarks.grpc

soak: $(VENV)/.test ## mixed load and faults on a real guard: does anything grow? (MINUTES=30, ARGS="--seed 2")
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30) $(ARGS)

DOCS := .venvs/docs
$(DOCS)/.ready: pyproject.toml
	@echo "installing mkdocs-material into $(DOCS)" >&2
	@$(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/pip --disable-pip-version-check --quiet install $$($(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	@touch $@

docs: $(DOCS)/.ready ## the documentation as a site, in site/; a broken link or a page that is in no menu fails
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --clean

clean: ## remove what make made
	rm -rf $(VENV) .venvs .bench site .coverage* .pytest_cache .ruff_cache .hypothesis dist build
