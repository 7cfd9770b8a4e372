# make demo and make test do everything on a fresh machine with Python 3.11 and make.
PYTHON ?= python3.11
VENV ?= .venv
SEED ?= 0
OUT ?= demo
BIN := $(VENV)/bin
# A process a core; each computes with one thread.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

.PHONY: help install demo quick test test-all lint types check
help:
	@echo "make demo    install, then go the whole way on synthetic radiographs (demo/report.html)"
	@echo "make quick   install, then run the tests that take no time (a minute)"
	@echo "make test    install, then run the tests (some minutes)"
	@echo "make test-all  also those that learn, of whole pipelines, clusters, a browser, all networks"
	@echo "make check   lint, types and all tests"

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[yolo,dev]'
	@touch $@

install: $(VENV)/installed

demo: install
	$(BIN)/zoo demo --out $(OUT) --seed $(SEED)

quick: install
	$(TEST) -m "not slow"

test: install
	$(TEST) -m "not long and not learns"

test-all: install
	$(TEST)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

check: lint types test-all
