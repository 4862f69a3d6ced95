# Everything runs in .venv, which is made on first use and again when its ingredients change.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
REPOSITORY ?= model_repository
BIN := .venv/bin
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test lint format faults overload clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

demo: $(INSTALLED) ## Export the demo models, start Triton, analyse the sample photos, print JSON
	@$(BIN)/python examples/demo.py

serve: $(INSTALLED) ## Serve REPOSITORY (model_repository; the demo models if it has none): Triton and the gateway
	@ls $(REPOSITORY)/*/*/model.onnx >/dev/null 2>&1 || $(BIN)/car-analyzer export examples/demo.toml --repository $(REPOSITORY)
	@exec $(BIN)/car-analyzer gateway --repository $(REPOSITORY)

test: lint ## Check style and types, then run every test on a real Triton
	@$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(INSTALLED) ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

faults: $(INSTALLED) ## Kill, stop, fill and cut things under load; no photo may be lost (FAULTS="--only NAME" for one)
	@$(BIN)/python -m reliability.faults $(FAULTS)

overload: $(INSTALLED) ## Offer ten times what the service can take, for SECONDS (60) over each protocol
	@$(BIN)/python -m reliability.overload --seconds $(or $(SECONDS),60)

format: $(INSTALLED) ## Mend the style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

setup: $(INSTALLED) ## Only make .venv

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' || \
		{ echo "Python 3.10, 3.11 or 3.12 is needed, and $(PYTHON) is not; name one with: make PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (a few minutes the first time) ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean: ## Remove .venv and everything built
	@rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache
