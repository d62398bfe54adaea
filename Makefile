# Every target sets up .venv by itself on first use; delete .venv to start over.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
LAB_ARGS ?=

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
COURSE = $(VENV)/.course-is-installed
TEST = $(VENV)/.test-is-installed

# lessons draw no progress bars when nobody watches
unexport PYTHONPATH
export MINITF_PROGRESS = 0
lab: export MINITF_PROGRESS = 1
# the models of lessons and tests are so small that BLAS threads would mostly wait for each other; on a machine
# with other work to do that wait is long
course test: export OPENBLAS_NUM_THREADS = 1

.PHONY: help course test test-gpu lab figures bench site

help:  ## show this list
	@echo "make course   run every lesson, redraw the figures, write build/course/index.html"
	@echo "make test     everything CI runs: ruff, pytest with torch as the oracle, strict nbval"
	@echo "make test-gpu the tests that need an NVIDIA GPU and CuPy"
	@echo "make bench    time a training step beside torch, about 10 minutes; writes figures/speed.json"
	@echo "make lab      JupyterLab on lesson 00"
	@echo "make figures  redraw the figures from their stored data"
	@echo "make site     browsable HTML of the stored notebooks, without running them: build/site/index.html"
	@echo "Another Python: make PYTHON=python3.12 VENV=.venv312 course"

$(COURSE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("minitf needs Python 3.11 or newer, this is %d.%d: try make PYTHON=python3.12 ..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "setting up $(VENV) for the course (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -e '.[course]'
	@touch $@

# torch is the oracle of the tests and nothing else, so only they install it
$(TEST): $(COURSE)
	@echo "adding the test tools and $(TORCH) to $(VENV) (once)"
	@$(PIP) -e '.[course,test,gpu-check]'
	@$(PIP) '$(TORCH)'
	@touch $@

course: $(COURSE) figures
	$(BIN)/python notebooks/build.py --check
	$(BIN)/python notebooks/site/build.py build/course-notebooks build/course

figures: $(COURSE)
	@set -e; for script in $(wildcard figures/*.py); do \
		echo "$(BIN)/python $$script --redraw"; $(BIN)/python $$script --redraw; done

site: $(COURSE)
	$(BIN)/python notebooks/site/build.py notebooks build/site

lab: $(COURSE)
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LAB_ARGS)

test: $(TEST)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	MINITF_REQUIRE_TORCH=1 $(BIN)/python -m pytest
	$(BIN)/python -m pytest --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg \
		--nbval-cell-timeout=120 notebooks/*.ipynb

test-gpu: $(TEST)
	MINITF_REQUIRE_GPU=1 $(BIN)/python -m pytest -m gpu tests/test_gpu.py

bench: $(TEST)
	$(BIN)/python figures/speed.py
