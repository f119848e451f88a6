# Each target is enough on its own in a fresh clone: it makes .venv first, once.

SHELL := /bin/sh
VENV := .venv
STAMP := $(VENV)/.installed
TORCH := $(shell grep '^torch==' constraints.txt)
DATA ?=
OUT ?= $(if $(DATA),demo-real,demo)
PYTHON ?=
# A file of tests stays in one process, which makes its fixtures once; the flows come last.
CORES ?= logical
PYTEST = $(VENV)/bin/python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder

MINUTES ?= 10
SEED ?= 1

.PHONY: help demo test test-slow torture lint clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo                  the whole experiment, on simulated recordings, into demo/'
	@echo 'make demo DATA=PATH        the same on the real recordings in PATH, into demo-real/'
	@echo 'make demo OUT=PATH         the same, into another folder'
	@echo 'make test                  style, types, and the tests that are quick, on all cores'
	@echo 'make test-slow             the tests that are slow, on all cores'
	@echo 'make test CORES=2          the same on two cores'
	@echo 'make torture MINUTES=10 SEED=1  damage files and kill commands at random, count what is silent'
	@echo 'make lint                  style and types alone'
	@echo 'make clean                 remove .venv and the caches; results stay'
	@echo 'make ... PYTHON=python3.12 make .venv with that Python, 3.11 or newer'

demo: $(STAMP)
	$(VENV)/bin/python -m flows.reproduce --out '$(OUT)' \
		$(if $(DATA),--preset real --data '$(DATA)',--preset demo)

test: lint
	$(PYTEST) -m 'not slow'

test-slow: $(STAMP)
	$(PYTEST) -m slow

torture: $(STAMP)
	$(VENV)/bin/python tests/torture/torture.py --minutes $(MINUTES) --seed $(SEED)

lint: $(STAMP)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find benchmarks ecgpipe flows tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The first Python that runs and is new enough: a name on the PATH may be a shim that only fails.
FIND_PYTHON := for python in $(or $(PYTHON),python3.11 python3.12 python3); do \
	version=$$($$python -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) \
		|| { found="$$found; $$python does not run"; continue; }; \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' && break; \
	found="$$found; $$python is $$version"; version=; done; \
	test -n "$$version" || { \
		echo "ecgpipe needs Python 3.11 or newer, but$${found\#;}." >&2; \
		echo "Install one, then name it: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }

# While .installing is there, or pip does not run, what the folder holds is not to be trusted: it is
# made anew. Else it keeps its Python: two of them mixed in one folder do not work.
$(STAMP): pyproject.toml constraints.txt
	@if test -e $(VENV)/.installing || ! $(VENV)/bin/python -m pip --version >/dev/null 2>&1; then \
		$(FIND_PYTHON); \
		echo "Installing into $(VENV) with Python $$version; this takes some minutes."; \
		rm -rf $(VENV) && mkdir $(VENV) && touch $(VENV)/.installing && $$python -m venv $(VENV); \
	fi
	@touch $(VENV)/.installing
	$(VENV)/bin/python -m pip install --quiet --progress-bar on --disable-pip-version-check \
		-c constraints.txt '$(TORCH)'
	$(VENV)/bin/python -m pip install --quiet --progress-bar on --disable-pip-version-check \
		-c constraints.txt -e '.[flows,dev]'
	@$(VENV)/bin/python -m pip check
	@rm $(VENV)/.installing && touch $@
