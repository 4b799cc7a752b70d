# Two commands: `make run` and `make test`. Both set up .venv first, once; a second run installs nothing.
#
#   PYTHON    the interpreter that .venv is made with, 3.11 or newer        make run PYTHON=python3.12
#   VENV      where the environment lives                                   make run VENV=~/venvs/dlcv
#   PIP_ARGS  further words for pip, such as another index for torch        make run PIP_ARGS="--index-url …"
#   TESTS     what `make test` runs, instead of everything                  make test TESTS=tests/test_figures.py
#   JOBS      in how many processes, which share the CPU cores              make test JOBS=8

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
TESTS ?=
JOBS ?= 2

PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
SHARE := $(shell echo $$(( $(JOBS) && $(CORES) > $(JOBS) ? $(CORES) / $(JOBS) : 1 )))
OFFLINE := HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1

.PHONY: help run lab test lint format notebooks install
.DEFAULT_GOAL := help

help:
	@echo "make run        run every notebook from top to bottom, offline, and write the figures to figures/"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make test       style, unit, oracle, entry-point and notebook tests"
	@echo "make notebooks  run every notebook on the CPU and keep its outputs in place, for a commit"
	@echo "make lint       ruff's checks alone        make format  put the code in ruff's format"
	@echo "make install    only make the environment, in $(VENV)"

run: $(INSTALLED)
	@$(PY) tools/run_notebooks.py --figures figures

lab: $(INSTALLED)
	@PYTHONPATH=tools $(PY) -m jupyterlab --notebook-dir=notebooks --ContentsManager.pre_save_hook=saving.keep_metadata

# Browsers are slow enough without a neighbour: their tests come last, and alone.
test: $(INSTALLED) lint
	$(OFFLINE) OMP_NUM_THREADS=$(SHARE) $(PY) -m pytest -n $(JOBS) --dist loadfile $(or $(TESTS),--ignore=tests/browser)
	$(if $(TESTS),,$(OFFLINE) $(PY) -m pytest tests/browser)

lint: $(INSTALLED)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(INSTALLED)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

notebooks: $(INSTALLED)
	@$(PY) tools/run_notebooks.py --in-place --figures figures

install: $(INSTALLED)

# The stamp is newer than pyproject.toml as long as what it asks for is installed.
$(INSTALLED): pyproject.toml
	@if [ ! -x $(VENV)/bin/pip ]; then \
	  command -v $(PYTHON) >/dev/null \
	    || { echo "No '$(PYTHON)' here. Install Python 3.11 or newer, or name one: make PYTHON=python3.12"; exit 1; }; \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "$$($(PYTHON) --version) is too old: 3.11 or newer is needed. Name one: make PYTHON=python3.12"; exit 1; }; \
	  echo "Making $(VENV) (once; torch is large, so this takes some minutes) …"; \
	  $(PYTHON) -m venv $(VENV) \
	    || { echo "Python cannot make an environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }; \
	fi
	@$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[test]' \
	  || { echo "The installation did not finish; run the same command again to go on from there."; exit 1; }
	@$(PY) -c 'import matplotlib.font_manager' 2>/dev/null # makes its cache of fonts now, not in a notebook's first output
	@touch $@
