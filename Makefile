# Everything runs in .venv, which is made on first use and again when its ingredients change.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
REPOSITORY ?= model_repository
MINUTES ?= 60
PLOT ?= build/soak.png
BIN := .venv/bin
INSTALLED := .venv/installed
# The demo models have a repository of their own, so that they never mix with yours.
DEMO := build/demo
SERVED := $(if $(wildcard $(REPOSITORY)/*/*/model.onnx),$(REPOSITORY),$(DEMO))
ENSEMBLE := car_analyzer/config.pbtxt

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-fast docs soak bench lint format clean fuzz publish-trial faults overload replicas deploy-check containers

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

demo: $(INSTALLED) $(DEMO)/$(ENSEMBLE) ## Export the demo models, start Triton, analyse the sample photos, print JSON
	@$(BIN)/python examples/demo.py $(DEMO)

serve: $(INSTALLED) $(filter $(DEMO)/%,$(SERVED)/$(ENSEMBLE)) ## Serve REPOSITORY (model_repository; the demo models if it has none): Triton and the gateway
	@test $(SERVED) = $(REPOSITORY) || echo "$(REPOSITORY) has no exported models; serving the demo models in $(SERVED)." >&2
	@exec $(BIN)/car-analyzer gateway --repository $(SERVED)

# An export adds a whole version or nothing, so an interrupted one leaves nothing to delete.
.PRECIOUS: $(DEMO)/$(ENSEMBLE)
$(DEMO)/$(ENSEMBLE): examples/demo.toml examples/demo_network.py $(wildcard examples/*.pth export/car_analyzer_export/preprocess/*.py) | $(INSTALLED)
	@echo "Exporting the demo models ..." >&2
	@$(BIN)/car-analyzer export examples/demo.toml --repository $(DEMO) >&2

# Where PYTHONDONTWRITEBYTECODE is set, as in many containers, each of hundreds of commands would compile the packages.
test: lint docs ## Check style and types, then run every test on a real Triton
	@$(BIN)/python -m compileall -q client export gateway server reliability
	@$(BIN)/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder

test-fast: lint ## Check style and types, then run the tests that need neither Triton nor an export (about a minute)
	@$(BIN)/python -m pytest -n 2 -m 'not slow and not triton'

docs: $(INSTALLED) ## Build the documentation into build/site
	@$(BIN)/zensical build --strict

soak: $(INSTALLED) ## Send photos for MINUTES (60) and plot memory, latency and losses into PLOT (build/soak.png)
	@mkdir -p $(dir $(PLOT))
	@$(BIN)/python -m reliability.soak --minutes $(MINUTES) --plot $(PLOT)

bench: $(INSTALLED) ## Measure beside rivals and the machine's limit: tables, build/bench/*.png (20 minutes)
	@$(BIN)/python -m benchmarks --out build/bench
	@$(BIN)/python -m benchmarks.growth --out build/bench
	@$(BIN)/python -m benchmarks.call --out build/bench
	@$(BIN)/python -m benchmarks.cost --out build/bench

fuzz: $(INSTALLED) ## Send hostile photos (COUNT=10000, SEED=) and requests to a real Triton and gateway
	@$(BIN)/python -m reliability.fuzz $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED))

lint: $(INSTALLED) ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache

faults: $(INSTALLED) ## Inject faults under load; no photo may be lost (FAULTS="--only NAME" for one)
	@$(BIN)/python -m reliability.faults $(FAULTS)

overload: $(INSTALLED) ## Offer ten times the capacity for SECONDS (60), over gRPC and through the gateway
	@$(BIN)/python -m reliability.overload --seconds $(or $(SECONDS),60)

replicas: $(INSTALLED) ## Kill, add and replace Tritons behind one name, a gateway and Envoy; no photo may be lost (ONLY="--only name")
	@$(BIN)/python -m reliability.replicas $(ONLY)

format: $(INSTALLED) ## Mend the style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

publish-trial: $(INSTALLED) ## Publish and roll back ten times under load; no request may fail, no answer may mix versions
	@$(BIN)/python -m reliability.publishing

deploy-check: $(INSTALLED) ## Check images, compose, chart and rules with the real tools (ALLOW_MISSING=1: with those that can be had)
	@$(BIN)/python deploy/check.py $(if $(ALLOW_MISSING),--allow-missing)

containers: $(INSTALLED) ## With Docker: start the containers, kill processes in them under load (BUILD=1: build them first)
	@$(BIN)/python -m reliability.containers $(if $(BUILD),--build)

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
