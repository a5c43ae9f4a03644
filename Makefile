SHELL := /bin/bash
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin

# $(call make_environment,FOLDER,REQUIREMENTS): with the interpreter PYTHON, by default the newest supported one on PATH
define make_environment
	@read -r _ python < <(scripts/find-pythons $(PYTHON)) && echo "$(1): $$python" && "$$python" -m venv --clear $(1)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(2)
endef

.PHONY: help setup hooks demo lint types imports gates test coverage test-fast test-pythons s3-server test-release wheel image documents
.PHONY: limits schema events commands scaling encodings fuzz simulate chaos overload sweep bench train evaluate lock

help:  ## List the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(VENV)/.ready  ## Create .venv with everything that development needs

$(VENV)/.ready: pyproject.toml requirements/dev.txt
	$(call make_environment,$(VENV),requirements/dev.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

hooks: setup  ## Check each commit with the gates
	$(BIN)/pre-commit install

demo: setup  ## Start everything, classify real micrographs, verify the log
	@$(BIN)/bioscope demo

lint: setup  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## mypy
	$(BIN)/mypy

imports: setup  ## import-linter: which package may import which
	$(BIN)/lint-imports

gates: lint types imports  ## Check formatting, lint, types and the dependency rule

TESTS := --ignore tests/release --ignore tests/system/test_overload.py -m "not long" -n 3 --dist loadfile  # three processes on two cores, because many tests wait

test: gates  ## Run the gates, and all tests except the long ones and those of the release
	$(BIN)/pytest $(TESTS)

coverage: gates  ## The same, and which lines and branches of the packages the tests execute; writes coverage.xml
	$(BIN)/pytest $(TESTS) --cov --cov-report term:skip-covered --cov-report xml

# Tests of what depends on the version of Python: the language, drivers and C extensions, processes and event loops, private names of
# Faust, and the whole system once. All others (SQL, contracts, faults, simulations) run in `make test` only.
FAST_TESTS := tests/domain tests/application tests/golden tests/infrastructure tests/api tests/images \
  tests/kafka/test_consumer_process.py tests/system/test_walkthrough.py tests/adversaries/test_decoder.py tests/adversaries/test_model.py

test-fast: gates  ## Run the gates, and the tests that depend on the version of Python
	$(BIN)/pytest $(FAST_TESTS) -n 3 --dist loadfile

test-pythons: setup  ## Run test-fast on every other supported Python of this machine, each in its own .venv-3.x
	@own=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])') && \
	found=$$(scripts/find-pythons --pyenv) && \
	while read -r version python; do \
	  [ "$$version" = "$$own" ] || $(MAKE) VENV=.venv-$$version PYTHON="$$python" test-fast </dev/null || exit; \
	done <<<"$$found"

S3_SERVER = $(shell grep -o 'github.com/versity[^"]*' tests/contracts/s3.py)

s3-server:  ## Build the S3 server of the tests, where Go is installed
	@if ! command -v go >/dev/null; then echo "Go is not installed: the tests that need an S3 server are skipped" >&2; \
	else go install $(S3_SERVER) || echo "no S3 server could be built: the tests that need one are skipped" >&2; fi

test-release: setup  ## Run the long tests; build, install and use the wheel; run the build steps of the image
	$(BIN)/pytest --ignore tests/release -m long
	$(BIN)/pytest tests/system/test_overload.py  # alone, because it loads the whole machine
	$(BIN)/pytest tests/release

wheel: setup  ## Build the wheel into dist/
	$(BIN)/hatchling build --target wheel

VERSION = $(shell $(BIN)/python -c 'from importlib.metadata import version; print(version("bioscope"))')

image: setup  ## Build the container image, where Docker runs
	@if docker info >/dev/null 2>&1; then docker build --tag bioscope:$(VERSION) .; \
	else echo "Docker does not run here: make test-release carries out the steps of the Dockerfile without it" >&2; fi

ENCODINGS ?= 2000

encodings: setup  ## Write one picture in ENCODINGS different encodings, and compare what the reader returns
	ENCODINGS=$(ENCODINGS) $(BIN)/pytest tests/images/test_every_encoding.py -n 2

SEEDS ?= 1000

simulate: setup  ## Simulate SEEDS runs with failures, and check the invariants; SEED=n replays one run
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

KILLS ?= 100

chaos: setup  ## Break real processes KILLS times while clients work; continues after an interruption; writes docs/reliability.md
	@$(BIN)/python -m tests.chaos --kills $(KILLS) $(if $(SEED),--seed $(SEED)) $(if $(STATE),--state $(STATE))

documents: limits schema events commands scaling  ## Write all generated documents but those of measurements

limits: setup  ## Write the limits in docs/api.md from the settings
	@$(BIN)/python -m scripts.limits

scaling: setup  ## Write the figures of docs/scaling.md from docs/performance.md and the last benchmark
	@$(BIN)/python -m scripts.scaling

schema: setup  ## Write docs/schema and docs/ERD.md from the migrations
	@$(BIN)/python -m scripts.schema

events: setup  ## Write docs/event-types.md, and the table in docs/events.md, from the code
	@$(BIN)/python -m scripts.event_types

commands: setup  ## Write docs/commands.md from the command line
	@$(BIN)/python -m scripts.commands

CASES ?= 10000

fuzz: setup  ## Send CASES requests that Schemathesis generates, as every role, with each of three seeds; SEED=n repeats one
	@for seed in $(or $(SEED),1 2 3); do CASES=$(CASES) SEED=$$seed $(BIN)/pytest tests/api/test_generated_requests.py || exit; done

overload: setup  ## Test the API at four times its capacity, with anonymous and slow clients, and with SIGTERM under load
	@$(BIN)/python -m tests.overload

sweep: setup  ## Compare the images in FOLDER with other decoders; CSV=file and PICTURES=folder store the details
	@$(BIN)/python -m tests.images.sweep "$(FOLDER)" $(if $(CSV),--csv "$(CSV)") $(if $(PICTURES),--pictures "$(PICTURES)")

bench: setup  ## Measure all figures and compare them with their goals; ROWS="append latency" measures some of them
	@$(BIN)/python -m benchmarks $(ROWS)
	@$(BIN)/python -m scripts.scaling

DATA ?= $(BIOSCOPE_TRAINING_DATA)
DATA_FLAG = $(if $(DATA),--data "$(DATA)")
MODELS := models/pbc8 models/bccd3
TRAIN := .venv-train

train: $(TRAIN)/.ready  ## Train the shipped models again on the pictures in DATA (or BIOSCOPE_TRAINING_DATA)
	$(TRAIN)/bin/python -W ignore -m training.pbc8 $(DATA_FLAG) --out models/pbc8
	$(TRAIN)/bin/python -W ignore -m training.bccd3 $(DATA_FLAG) --out models/bccd3
	$(TRAIN)/bin/python -m training.evaluate $(MODELS) $(DATA_FLAG) --write

$(TRAIN)/.ready: requirements/train.txt
	$(call make_environment,$(TRAIN),requirements/train.txt)
	@touch $@

evaluate: setup  ## Compare the shipped models with their goals; DATA=folder measures them again
	$(BIN)/python -m training.evaluate $(MODELS) $(DATA_FLAG)

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -q
WHEELS := uv pip compile --only-binary :all: --python-platform x86_64-manylinux_2_28 -q -o /dev/null

lock: setup  ## Update the locked requirements, and check that each package has a wheel for each Python
	$(BIN)/$(LOCK) pyproject.toml --extra embedded --extra dev -o requirements/dev.txt
	$(BIN)/$(LOCK) pyproject.toml -o requirements/production.txt
	$(BIN)/$(LOCK) pyproject.toml --extra train -o requirements/train.txt
	$(BIN)/$(LOCK) --group sdk -o requirements/sdk.txt
	$(BIN)/$(LOCK) --group kserve -o requirements/kserve.txt
	@for version in 3.11 3.12 3.13 3.14; do for lock in dev production train sdk kserve; do \
	  echo "wheels for Python $$version: $$lock"; $(BIN)/$(WHEELS) --python-version $$version requirements/$$lock.txt || exit; \
	done; done
