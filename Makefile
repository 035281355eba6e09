# make book, make test: everything else is made on the way. Needs python 3.11+, make and git.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/installed
REFERENCES := tests/notebooks
PAGES ?=
# of make gpu: minutes; --jobs, --list and other options of tools/gpu.py
BUDGET ?= 10
GPU ?=
# of make lab: options of Jupyter
LAB ?=

# A fixed number, not the machine's: sums in another order change the last digits of a page
export OMP_NUM_THREADS ?= 2
export OPENBLAS_NUM_THREADS ?= $(OMP_NUM_THREADS)
export MKL_NUM_THREADS ?= $(OMP_NUM_THREADS)
export NUMBA_NUM_THREADS ?= $(OMP_NUM_THREADS)
# Every kernel would otherwise print debugpy's and jupyter_core's advice
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export JUPYTER_PLATFORM_DIRS := 1

.PHONY: help book course lab test site-test lint notebooks lock doctor gpu clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1@\2/p' $(MAKEFILE_LIST) | column -t -s @

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name one with make PYTHON=python3.12")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked versions into $(VENV) (minutes, the first time)"
	@$(PY) -m pip install -qq -r requirements.lock
	@$(PY) -m pip install -qq --no-deps --no-build-isolation -e .
# Otherwise the first figure of the first page waits for it and says so
	@$(PY) -c 'import matplotlib.font_manager'
	@touch $@

book: $(INSTALLED) ## build the book: _build/html/index.html
	$(PY) -m tools.freshen
# --all reads every page again, so that a warning of an earlier build cannot hide; executed
# notebooks still come from the cache. A stale .glue.json would hide a missing glue key
	rm -rf _build/html _build/jupyter_execute
	$(VENV)/bin/jupyter-book build . --all -n -W --keep-going
	@echo "the book: _build/html/index.html"

course: $(INSTALLED) ## notebooks for a class: course/student without solutions, course/teacher with them
	@$(PY) -m tools.course

# Not among the locked packages: nothing else needs it. The lock's versions stay as they are
lab: course ## open Jupyter on course/student, installed the first time (LAB="--no-browser")
	@$(PY) -c 'import jupyterlab' 2>/dev/null || $(PY) -m pip install -qq -c requirements.lock jupyterlab
	$(PY) -m jupyterlab $(LAB) course/student

# a process a core, each with one thread: two threads each would wait for each other
test: export OMP_NUM_THREADS = 1
test: $(INSTALLED) ## unit tests, record checks, nbval over the reference notebooks
	$(PY) -m pytest -q -n auto --dist worksteal
	$(PY) -m pytest -q -n auto --dist loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout 300 --nbval-kernel-startup-timeout 120 --nbval-sanitize-with $(REFERENCES)/sanitize.cfg -p no:cacheprovider $(REFERENCES)

site-test: $(INSTALLED) ## links, mathematics and console of the built book, in a real browser
	REPROLIB_REQUIRE_BROWSER=1 $(PY) -m pytest -q tests/test_site.py

lint: $(INSTALLED) ## ruff
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

notebooks: $(INSTALLED) ## execute the pages into their nbval references (PAGES="book/jule/method.md")
	$(PY) -m tools.notebooks $(PAGES)

lock: $(INSTALLED) ## write requirements.lock from what is installed in .venv
	$(PY) -m tools.lock

doctor: $(INSTALLED) ## device, versions, data found, what will run where
	$(PY) -m reprolib doctor

# with the machine's own python: a GPU box may have torch and no jupyter
gpu: ## GPU tests, bench and missing runs within BUDGET minutes, packed into $OUT or gpu-out (GPU="--jobs 3")
	$(PYTHON) -m tools.gpu --budget $(BUDGET) $(GPU)

clean: ## remove what was built; the installed environment stays
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
