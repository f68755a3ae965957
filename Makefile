# Everything a newcomer needs is `make run` and `make test`; each sets itself up first.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: help run test kube-assets check generate manifests lock images kind-up kind-demo kind-down bench clean
help:            ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

run: $(STAMP)    ## start the small city on loopback: engines, a provider, the balancer, a load
	@$(BIN)/spillway city $(ARGS)

# Tests that share an API server stay on one worker (loadgroup), so that it is started once. Those in which Pods run have
# the machine to themselves: some of them count failed requests under a load.
test: $(STAMP) kube-assets  ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not cluster" $(ARGS)
	$(BIN)/python -m pytest -m cluster $(ARGS) || { [ $$? = 5 ] && [ -n "$(ARGS)" ]; } # 5: none of them was asked for

kube-assets:     ## what tests with a real Kubernetes need: its programs (built once, minutes) and a few packages
	@./tests/kube/prepare.sh
	@./tests/chart/tools.sh > /dev/null || [ $$? = 3 ] # 3: no Go, which it has said

check: $(STAMP)  ## lint, types, dependency rule, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m spillway_api.generate --check

generate: $(STAMP)  ## write crds/*.yaml, their copies and docs/reference.md from the types
	$(BIN)/python -m spillway_api.generate
	$(BIN)/python deploy/generate.py

manifests: generate  ## write deploy/, the chart rendered for those without Helm
	$(BIN)/python deploy/generate.py "$$(tests/chart/tools.sh)/helm"

COMPILE = $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
  --no-emit-package spillway
lock: $(STAMP)   ## pin every dependency by hash, for all supported Pythons and systems
	$(COMPILE) --extra dev -o requirements.lock pyproject.toml
	$(COMPILE) -c requirements.lock -o balancer/requirements.lock pyproject.toml
	$(COMPILE) -c requirements.lock --extra operator -o operator/requirements.lock pyproject.toml
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' \
	  | $(COMPILE) -c requirements.lock -o balancer/build.lock -

images:          ## build both images; ENGINE=podman, BASE=python@sha256:... if you like
	@examples/kind/cluster.sh images

kind-up:         ## a cluster in Docker with both images and the chart in it (docker, kind, kubectl, helm)
	@examples/kind/cluster.sh up

kind-demo:       ## simulated engines, a pool, a policy and a client in that cluster
	@examples/kind/cluster.sh demo

kind-down:       ## delete that cluster
	@examples/kind/cluster.sh down

bench: $(STAMP)  ## the figures that the docs quote, side by side in one run
	$(BIN)/python -m benchmarks

$(STAMP): requirements.lock pyproject.toml .ci/venv
	@./.ci/venv $(VENV)
	@touch $@

clean:           ## forget the virtual environment and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
