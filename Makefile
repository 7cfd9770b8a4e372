# make demo and make test do everything on a fresh machine with Python 3.11 and make.
PYTHON ?= python3.11
VENV ?= .venv
SEED ?= 0
OUT ?= demo
BIN := $(VENV)/bin

.PHONY: help install demo test lint types check
help:
	@echo "make demo    install, then go the whole way on synthetic radiographs (demo/report.html)"
	@echo "make test    install, then run the tests"
	@echo "make check   lint, types and tests"

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[yolo,dev]'
	@touch $@

install: $(VENV)/installed

demo: install
	$(BIN)/zoo demo --out $(OUT) --seed $(SEED)

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

check: lint types test
