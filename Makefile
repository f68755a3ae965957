# Everything a newcomer needs is `make run` and `make test`; each sets itself up first.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: help run test check generate lock bench clean
help:            ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

run: $(STAMP)    ## start the small city on loopback: engines, a provider, the balancer, a load
	@$(BIN)/spillway city $(ARGS)

test: $(STAMP)   ## run the tests
	$(BIN)/python -m pytest -n 2 $(ARGS)

check: $(STAMP)  ## lint, types, dependency rule, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m spillway_api.generate --check

generate: $(STAMP)  ## write crds/*.yaml and docs/reference.md from the types
	$(BIN)/python -m spillway_api.generate

lock: $(STAMP)   ## pin every dependency by hash, for all supported Pythons and systems
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --extra dev --no-header --no-emit-package spillway -q -o requirements.lock pyproject.toml

bench: $(STAMP)  ## the figures that the docs quote, side by side in one run
	$(BIN)/python -m benchmarks

$(STAMP): requirements.lock pyproject.toml .ci/venv
	@./.ci/venv $(VENV)
	@touch $@

clean:           ## forget the virtual environment and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
