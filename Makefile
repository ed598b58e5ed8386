# One command per task. `make demo` and `make test` need nothing but Python 3.11 or newer.
# The environment lies in .venv, or where VENV says; downloads lie in pip's own cache.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# a worker for each core; all tests of a backend go to one, see tests/conftest.py
PYTEST := $(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder

.PHONY: help setup demo test test-fast test-db programs fmt lint types up down matrix bench build clean

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	@echo "== environment in $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$$(sed -n 's/^uv==//p' constraints.txt)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[all,testing]" --group dev --group servers
	@touch $@

setup: $(READY)  ## the environment with every driver and tool

demo: $(READY)   ## real documents: embed, store, filter, search; then the same on another database
	$(BIN)/python demo/demo.py

test: lint types  ## all tests on every backend that this machine can start; the header names the rest
	$(PYTEST) $(addprefix --backend ,$(BACKENDS))

test-fast: $(READY)  ## no servers, under a minute: for the inner loop
	$(PYTEST) -q -m "not server and not slow"

test-db: $(READY)  ## the contract and the adapter's own tests on one database: make test-db DB=qdrant
	$(BIN)/python -m pytest tests/contract $(wildcard tests/adapters/$(DB)) --backend $(DB)

programs: $(READY)  ## random programs against the memory store: make programs STORE=chroma:./data N=20000 SEED=7
	$(BIN)/python -m polyvec.testing.programs --store $(STORE) --programs $(or $(N),1000) --seed $(or $(SEED),0)

fmt: $(READY)    ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet . || true

lint: $(READY)   ## ruff
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

up:              ## start a database with Docker: make up DB=qdrant
	docker compose up --detach --wait $(DB)

down:            ## stop what `make up` started
	docker compose down

matrix: $(READY) ## write the support table in README.md anew
	$(BIN)/python docs/support_table.py

bench: $(READY)  ## compare with the native clients; takes some minutes
	$(BIN)/python -m benchmarks

build: $(READY)  ## wheel and sdist in dist/
	$(BIN)/python -m build --installer uv

clean:           ## remove what these commands made, but for the environment
	rm -rf dist build .mypy_cache .ruff_cache .hypothesis demo/data
