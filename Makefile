SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test test-release encodings simulate chaos overload sweep bench gates train evaluate lock

help:  ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.ready  ## Make .venv with all that is needed

$(VENV)/.ready: pyproject.toml requirements/dev.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## Start everything, classify real micrographs, verify the record
	@$(BIN)/bioscope demo

gates: setup  ## Lint, types, dependency rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: gates  ## All gates and all tests
	$(BIN)/pytest --ignore tests/system --ignore tests/release -n 2 --dist loadfile
	$(BIN)/pytest tests/system

test-release: setup  ## Build the wheel, install it elsewhere and use it; run the build steps of the image
	$(BIN)/pytest tests/release

ENCODINGS ?= 2000

encodings: setup  ## Write one cell in ENCODINGS different encodings and compare what is read
	ENCODINGS=$(ENCODINGS) $(BIN)/pytest tests/images/test_every_encoding.py -n 2

SEEDS ?= 1000

simulate: setup  ## Break a laboratory in SEEDS ways and look at what must hold; SEED=n tells one story again
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

KILLS ?= 100

chaos: setup  ## Break the real processes KILLS times while clients work; goes on where it was interrupted; writes docs/reliability.md
	@$(BIN)/python -m tests.chaos --kills $(KILLS) $(if $(SEED),--seed $(SEED)) $(if $(STATE),--state $(STATE))

overload: setup  ## Four times what the API can take, for 60 s; slow clients; SIGTERM under load
	@$(BIN)/python -m tests.overload

sweep: setup  ## Compare the images in FOLDER with other decoders; CSV=file and PICTURES=folder keep the details
	@$(BIN)/python -m tests.images.sweep "$(FOLDER)" $(if $(CSV),--csv "$(CSV)") $(if $(PICTURES),--pictures "$(PICTURES)")

bench: setup  ## Every figure beside its goal, and a chart; ROWS="append latency" measures some of them
	@$(BIN)/python -m benchmarks $(ROWS)

DATA ?= $(BIOSCOPE_TRAINING_DATA)
DATA_FLAG = $(if $(DATA),--data "$(DATA)")
MODELS := models/pbc8 models/bccd3
TRAIN := .venv-train

train: $(TRAIN)/.ready  ## Make the shipped models again from the pictures in DATA (or BIOSCOPE_TRAINING_DATA)
	$(TRAIN)/bin/python -W ignore -m training.pbc8 $(DATA_FLAG) --out models/pbc8
	$(TRAIN)/bin/python -W ignore -m training.bccd3 $(DATA_FLAG) --out models/bccd3
	$(TRAIN)/bin/python -m training.evaluate $(MODELS) $(DATA_FLAG) --write

$(TRAIN)/.ready: requirements/train.txt
	$(PYTHON) -m venv $(TRAIN)
	$(TRAIN)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/train.txt
	@touch $@

evaluate: setup  ## The goals of the shipped models: as committed, or measured again where DATA is named
	$(BIN)/python -m training.evaluate $(MODELS) $(DATA_FLAG)

lock: setup  ## Bring the locked requirements up to date
	$(BIN)/uv pip compile pyproject.toml --extra embedded --extra dev -p 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -q -o requirements/dev.txt
	$(BIN)/uv pip compile pyproject.toml -p 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -q -o requirements/production.txt
	$(BIN)/uv pip compile pyproject.toml --extra train -p 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -q -o requirements/train.txt
