# Two commands matter: `make demo` and `make test`. Both make the environment they need.

NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p $(NEW_ENOUGH) 2>/dev/null && echo $$p && break; done)
endif
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST_ARGS ?=
# Tests share the cores, but for those that measure and need the machine to themselves.
WORKERS ?= 2
FAILED := .pytest_cache/failed
INTEGRATION = $(BIN)/python -m pytest tests/integration --failed-to=$(FAILED)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export HARNESS_REQUIRE_INTEGRATION

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo examples test check venv bench clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: venv ## run a small TP=2 x PP=2 model on the CPU and print where its time went
	@$(BIN)/harness run examples/quickstart.toml
	@echo "the command is $(BIN)/harness; on PATH after: . $(BIN)/activate" >&2

examples: venv ## run the scaling studies of docs/examples (about 8 minutes) and write their pages
	@for study in strong weak batch; do \
		$(BIN)/harness sweep examples/$$study.toml --quiet > /dev/null && \
		$(BIN)/harness report latest -o docs/examples/$$study.md || exit; \
	done

test: check ## check the source, then run the tests (PYTEST_ARGS="-k name" for some of them)
ifeq ($(PYTEST_ARGS),)
	@rm -f $(FAILED); status=0; \
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --ignore tests/integration || status=1; \
	$(INTEGRATION) -m alone || test $$? = 1 -a -s $(FAILED) || status=1; \
	$(INTEGRATION) -n $(WORKERS) -m "not alone" \
		|| test $$? = 1 -a -s $(FAILED) || status=1; \
	if test -s $(FAILED); then \
		echo "failed; once more, each alone:"; sort -u $(FAILED); \
		sort -u $(FAILED) | tr '\n' '\0' | xargs -0 $(BIN)/python -m pytest || status=1; \
	fi; \
	exit $$status
else
	@$(BIN)/python -m pytest $(PYTEST_ARGS)
endif

check: venv ## ruff, mypy and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: venv ## measure the recorder against an OpenTelemetry span
	@$(BIN)/python benchmarks/recorder.py

venv: $(READY) ## make .venv with the pinned versions of constraints.txt
	@:

# The stamp comes last: an interrupted installation is taken up again, a complete one skipped.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) $(NEW_ENOUGH) 2>/dev/null || { \
		echo "harness needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV); the first time this takes minutes" >&2
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[run,dev]'
	@touch $@

clean: ## remove .venv, built files and caches; runs stay
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
