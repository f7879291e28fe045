# `make` prints what there is.
PYTHON ?= python3
BIN := .venv/bin
# Tests start hundreds of processes. Where this is set, each of them would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help up env check test test-train test-cluster train-demo lint ruff eslint types mypy imports tsc page contracts fast slow generate ui chromium debian previous campaign campaign-cluster soak attack bench lock clean

help: ## Print this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.venv/installed: requirements-dev.txt pyproject.toml protos/build.py $(shell find protos/pipeline -name '*.proto')
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

generate: .venv/installed ## Build protos/gen from the contracts
	$(BIN)/python protos/build.py

up: export PIPELINE_DEV_ISSUER := 1
up: .venv/installed ui ## Run everything on this machine until Ctrl-C
	@$(BIN)/pipeline up

env: .venv/installed ## Write deploy/env.example anew from the settings
	$(BIN)/python -m deploy.env

UI := gateway/ui
NPM := $(BIN)/python $(UI)/build.py

# A changed contract changes these types, and then the page's own code no longer compiles.
$(UI)/src/api/schema.d.ts: .venv/installed gateway/api/openapi.py gateway/api/decode.py gateway/api/routes.py
	@mkdir -p .pipeline
	$(BIN)/python -m gateway openapi > .pipeline/openapi.json
	$(NPM) exec -- openapi-typescript ../../.pipeline/openapi.json -o src/api/schema.d.ts

$(UI)/dist/index.html: $(UI)/src/api/schema.d.ts $(UI)/package-lock.json $(UI)/index.html $(UI)/vite.config.ts $(shell find $(UI)/src $(UI)/public -type f)
	$(NPM) run --silent types
	$(NPM) run --silent build

ui: $(UI)/dist/index.html ## Build the page

# Debian's where there is apt, else Playwright's own.
chromium: .venv/installed
	@command -v chromium-headless-shell > /dev/null || command -v chromium > /dev/null || { command -v apt-get > /dev/null && apt-get -qq update && apt-get -qq -y -o DPkg::Lock::Timeout=300 install chromium-headless-shell > /dev/null; } || $(BIN)/playwright install --only-shell chromium

# Debian's, unpacked here and not installed: their packages would start servers. PgBouncer needs two libraries of its own.
DEBIAN := .pipeline/debian
WITH_DEBIAN := PATH="$$PATH:$(CURDIR)/$(DEBIAN)/usr/bin:$(CURDIR)/$(DEBIAN)/usr/sbin"
debian:
	@$(WITH_DEBIAN); { command -v promtool && command -v nginx && command -v pgbouncer; } > /dev/null || { command -v apt-get > /dev/null && mkdir -p $(DEBIAN) && cd $(DEBIAN) && apt-get -qq update && apt-get -qq download prometheus nginx pgbouncer $$(apt-cache depends pgbouncer | sed -nE 's/.*Depends: (libevent|libc-?ares)/\1/p') && for package in *.deb; do dpkg -x $$package .; done; } || true

# What waits for nothing else runs side by side. GNU make 4 keeps the output of each together.
SIDE_BY_SIDE := $(MAKE) --no-print-directory -j 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync)
check: ## Lint, types, import rules, contracts, fast tests: the whole contract with a contributor
	@$(SIDE_BY_SIDE) lint types contracts page
	@$(MAKE) --no-print-directory fast

lint: ruff eslint
types: mypy imports tsc

# What checks nothing but the page runs again once one of its files, or what it is built with, has changed. Folders are
# among them: they change when a file goes.
PAGE := $(UI)/src/api/schema.d.ts $(filter-out $(UI)/src/api/schema.d.ts,$(shell find $(UI)/src $(UI)/public)) $(wildcard $(UI)/*.json $(UI)/*.ts $(UI)/*.js $(UI)/build.py)
eslint tsc page: %: .pipeline/checked/%
.pipeline/checked/eslint: COMMAND := lint
.pipeline/checked/tsc: COMMAND := types
.pipeline/checked/page: COMMAND := test
.pipeline/checked/eslint .pipeline/checked/tsc .pipeline/checked/page: .venv/installed $(PAGE)
	$(NPM) run --silent $(COMMAND)
	@mkdir -p $(@D) && touch $@

ruff: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

mypy: .venv/installed
	$(BIN)/mypy

imports: .venv/installed
	$(BIN)/lint-imports

# Breaking changes are judged against the main branch; a clone without one compares with its own last commit.
contracts: .venv/installed
	$(BIN)/buf lint protos/gen/pipeline/image.binpb --config buf.yaml --path pipeline
	@rm -rf .pipeline/main && mkdir -p .pipeline/main
	@git archive $$(git rev-parse --verify --quiet origin/main || git rev-parse --verify --quiet main || echo HEAD) protos | tar -x -C .pipeline/main
	@$(BIN)/python .pipeline/main/protos/build.py
	$(BIN)/buf breaking protos/gen/pipeline/image.binpb --against $$(find .pipeline/main/protos/gen -name image.binpb) --config buf.yaml --path pipeline

# Tests wait about as long as they compute: three processes for two cores. `worksteal` gives a process neighbouring tests,
# so that what is started for a file, or for all browser tests, is seldom started twice.
fast: .venv/installed
	$(BIN)/pytest -q -n 3 --dist worksteal -m "not browser and not slow"

slow: .venv/installed ui chromium debian
	$(WITH_DEBIAN) $(BIN)/pytest -q -n 2 --dist worksteal -m "browser or slow"

test: fast page slow ## Every test

# PyTorch's CPU build where pip finds one; the lock has the rest. A tiny model is trained from the real queue.
.venv-train/installed: requirements-train.txt pyproject.toml protos/build.py $(shell find protos/pipeline -name '*.proto')
	@test -x .venv-train/bin/pip || $(PYTHON) -m venv .venv-train
	.venv-train/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-train/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-train.txt
	.venv-train/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv-cluster/installed: requirements-cluster.txt pyproject.toml protos/build.py $(shell find protos/pipeline -name '*.proto')
	@test -x .venv-cluster/bin/pip || $(PYTHON) -m venv .venv-cluster
	.venv-cluster/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-cluster.txt
	.venv-cluster/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

test-cluster: .venv-cluster/installed ## Run jobs on a real Ray cluster of this machine, in an environment with Ray
	.venv-cluster/bin/python -m pytest -q tests/trainer/dispatcher/test_ray.py

test-train: .venv-train/installed ## Train a tiny model for real, killed and resumed, in an environment with PyTorch
	.venv-train/bin/python -m pytest -q -n 2 tests/trainer/train

# The tiny model's operations are too small to be shared by threads.
train-demo: .venv-train/installed ## Beside a running `make up`: queue a small job and train it for real on this machine
	@OMP_NUM_THREADS=1 .venv-train/bin/python -m deploy.local.train_demo

# The last release's servers and tests, in an environment of its own, on this version's schema.
PREVIOUS ?= $(shell git describe --tags --abbrev=0 2> /dev/null)
OLD := .pipeline/previous
previous: ## The last release's tests on this version's schema; PREVIOUS=main for another commit's, ARGS for pytest
ifeq ($(PREVIOUS),)
	@echo "nothing was released: no tag to compare with"
else
	@rm -rf $(OLD)/tree && mkdir -p $(OLD)/tree
	git archive $(PREVIOUS) | tar -x -C $(OLD)/tree
	$(PYTHON) -m tests.previous $(OLD)/tree
	$(MAKE) -C $(OLD)/tree .venv/installed
	cd $(OLD)/tree && .venv/bin/pytest -q -n 2 -m "not browser and not slow" $(or $(ARGS),tests/jobs_service tests/estimator_service/quotes)
endif

campaign: .venv/installed ## Kill processes under load and judge what is left; ARGS="--faults 1000 --jobs 100000" for a release
	$(BIN)/python -m tests.campaign $(ARGS)

campaign-cluster: .venv/installed ## Kill dispatchers, API server and pods while jobs run on a cluster, and judge what is left
	$(BIN)/python -m tests.trainer.dispatcher.campaign $(ARGS)

soak: .venv/installed ## Mixed load for 15 minutes: memory, errors, latency and logs stay steady; ARGS="--minutes 5"
	$(BIN)/python -m tests.soak $(ARGS)

attack: .venv/installed ## Attack a stack of this machine and measure what others notice; ARGS="watches --seconds 30"
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-attack.txt
	$(BIN)/python -m tests.attack $(ARGS)
	$(BIN)/python -m tests.attack.oracle
	$(BIN)/python -m tests.attack.openapi

# h2load is Debian's; where there is no apt, it has to be there.
bench: .venv/installed ## Compare with programs that do the same work, and write BENCHMARKS.md; ARGS=list prints one row
	@command -v h2load > /dev/null || { command -v apt-get > /dev/null && apt-get -qq update && apt-get -qq -y -o DPkg::Lock::Timeout=300 install nghttp2-client > /dev/null; } || true
	$(BIN)/python -m tests.bench $(ARGS)
	$(if $(ARGS),,$(BIN)/python -m tests.bench.life)

lock: .venv/installed ## Resolve the locks anew
	$(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra local --extra otel --extra s3 --extra kubernetes pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra local --extra otel --extra s3 --extra kubernetes --group dev pyproject.toml -o requirements-dev.txt
	$(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra local --extra otel --extra s3 --extra kubernetes --group dev --group cluster pyproject.toml -o requirements-cluster.txt
	$(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group attack --constraint requirements-dev.txt -o requirements-attack.txt
	$(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra local --extra otel --extra s3 --extra kubernetes --extra train --group dev pyproject.toml -o requirements-train.txt

clean: ## Remove what is built; data in .pipeline/ stays
	rm -rf .venv .venv-train .venv-cluster protos/gen gateway/ui/node_modules gateway/ui/dist .mypy_cache .ruff_cache .pytest_cache
