# Everything starts from python3 and make; the environment is .venv in this folder.
#   make demo    install what is needed and see Forgemap at work on real photographs
#   make test    the fast tests
#   make check   format, lint, types and the fast tests
#   make bench   ratios to literal implementations, measured side by side
#   make clean   remove the environment and what the commands above wrote

PYTHON ?= python3
BIN := .venv/bin
# Two processes, each with one thread for the networks.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt

.PHONY: demo test check bench format clean

demo: .venv/.installed-demo
	$(BIN)/forgemap demo

test: .venv/.installed-dev
	$(TESTS)

check: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(TESTS)

bench: .venv/.installed-dev
	$(BIN)/python -m benchmarks

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A marker file for each set of requirements, so that the second run starts at once.
.venv/.installed-demo: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing Forgemap and what the demo needs (a few minutes the first time) ..."
	$(PIP) -e ".[synth]"
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing Forgemap and its development tools (a few minutes the first time) ..."
	$(PIP) -e ".[dev,all]"
	@touch $@ .venv/.installed-demo

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Forgemap needs Python 3.10 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv build dist forgemap-demo .pytest_cache .mypy_cache .ruff_cache
