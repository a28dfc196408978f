# Two commands on a fresh machine with Python 3.11: make quickstart, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-all lint bench fetch clean

quickstart: $(VENV)/.installed fetch  ## train a worldwide CLIP from scratch on packaged pictures, and test it
	$(BIN)/worldclip quickstart

test: $(VENV)/.installed-dev fetch  ## the test suite, offline after the installs
	$(BIN)/python -m pytest -n auto --dist loadscope

test-all: $(VENV)/.installed-dev fetch  ## also the slow tests, and what of the package all of them reach
	$(BIN)/python -m pytest -m '' --cov --cov-report=term:skip-covered

lint: $(VENV)/.installed-dev  ## style, types, floors of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.installed-dev fetch  ## timed cases beside their peers, answers checked
	$(BIN)/python -m bench $(BENCH_ARGS)

fetch: $(VENV)/.installed
	$(BIN)/worldclip pairs fetch

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("worldclip needs Python 3.11 or newer; PYTHON=... make chooses one") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
