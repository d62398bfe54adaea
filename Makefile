# Every target sets up .venv by itself on first use; delete .venv to start over.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
LAB_ARGS ?=
# an nbgrader course, and the assignment in it that release, collect and grade are about
CLASS ?= class
PS ?= ps1
GRADE_ARGS ?=
# in the order in which they use each other's runs
EXPERIMENTS ?= cost_curves growth_mechanics regime_scan theta_ablation ffn_blocks context_cost digits \
	top_k transfer merge device_cloud specialists
WORKERS ?= 2

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
COURSE = $(VENV)/.course-is-installed
TEST = $(VENV)/.test-is-installed
GRADER = $(VENV)/.grader-is-installed
HUB = $(VENV)/.hub-is-installed
PROXY = build/hub/node_modules/configurable-http-proxy

# lessons draw no progress bars when nobody watches
unexport PYTHONPATH
export MINITF_PROGRESS = 0
lab: export MINITF_PROGRESS = 1
# the models of lessons and tests are so small that threads would mostly wait for each other; on a machine with other
# work to do, or a slow one, that wait is long. How many threads there are changes no bit of a result
course test: export OPENBLAS_NUM_THREADS = 1
# numba (extra fast) is an option: everything is tested without it, the twins with it as well
course test: export MINITF_NUMBA = 0
course: export MINITF_NUM_THREADS = 1

.PHONY: help course test test-gpu test-hub lab figures experiments bench bench-gpu site release collect grade classroom-demo

help:  ## show this list
	@echo "make course   run every lesson, redraw the figures, write build/course/index.html"
	@echo "make test     everything CI runs: ruff, pytest with torch as the oracle, strict nbval"
	@echo "make test-gpu the tests that need an NVIDIA GPU and CuPy"
	@echo "make test-hub an assignment on a real JupyterHub; wants root, npm, node 20 and chromium"
	@echo "make bench    time a training step beside torch, about 10 minutes; writes figures/speed.json"
	@echo "make bench-gpu the same on an NVIDIA GPU, with CuPy; writes figures/speed_gpu.json"
	@echo "make lab      JupyterLab on lesson 00"
	@echo "make figures  redraw the figures from their stored data"
	@echo "make experiments  run what a figure's data lack, in full (hours; stop it at any time, it resumes)"
	@echo "make release PS=ps1, make collect PS=ps1 FROM=downloads.zip, make grade PS=ps1: see notebooks/INSTRUCTOR.md"
	@echo "make classroom-demo  the three of them for a made-up class of forty, under build/"
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
	@$(PIP) -e '.[course,test,gpu-check,classroom,cluster,fast]'
	@$(PIP) '$(TORCH)'
	@touch $@

course: $(COURSE) figures
	$(BIN)/python notebooks/build.py --check
	$(BIN)/python notebooks/site/build.py build/course-notebooks build/course

figures: $(COURSE)
	@set -e; for script in $(wildcard figures/*.py); do \
		echo "$(BIN)/python $$script --redraw"; $(BIN)/python $$script --redraw; done

# what is stored is not run again; two processes suit two cores
experiments: $(COURSE)
	@set -e; for name in $(EXPERIMENTS); do $(BIN)/python figures/$$name.py --workers $(WORKERS); done

site: $(COURSE)
	$(BIN)/python notebooks/site/build.py notebooks build/site

lab: $(COURSE)
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LAB_ARGS)

test: $(TEST)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	MINITF_REQUIRE_TORCH=1 $(BIN)/python -m pytest -n 2 --dist loadfile --ignore=tests/test_twins.py
	MINITF_NUMBA=1 $(BIN)/python -m pytest tests/test_twins.py
	MINITF_NUM_THREADS=1 $(BIN)/python -m pytest --nbval --nbval-current-env \
		--nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout=600 notebooks/*.ipynb notebooks/puzzles/*.ipynb

test-gpu: $(TEST)
	MINITF_REQUIRE_GPU=1 $(BIN)/python -m pytest -m gpu tests/test_gpu.py

$(HUB): $(COURSE)
	@echo "adding JupyterHub and the test tools to $(VENV) (once)"
	@$(PIP) -e '.[course,test,classroom,hub]'
	@touch $@

$(PROXY):
	npm install --silent --no-fund --no-audit --prefix build/hub configurable-http-proxy@5

test-hub: $(HUB) $(PROXY)
	MINITF_HUB=1 $(BIN)/python -m pytest tests/e2e/test_jupyterhub.py

bench: $(TEST)
	$(BIN)/python figures/speed.py

bench-gpu: $(TEST)
	$(BIN)/python figures/speed_gpu.py

$(GRADER): $(COURSE)
	@echo "adding nbgrader to $(VENV) (once)"
	@$(PIP) -e '.[course,classroom]'
	@touch $@

release: $(GRADER)
	$(BIN)/python notebooks/assignments/grade.py release $(PS) --course $(CLASS)

collect: $(GRADER)
	$(BIN)/python notebooks/assignments/grade.py collect $(PS) $(FROM) --course $(CLASS)

grade: $(GRADER)
	$(BIN)/python notebooks/assignments/grade.py grade $(PS) --course $(CLASS) $(GRADE_ARGS)

classroom-demo: $(GRADER)
	rm -rf build/classroom-demo
	$(BIN)/python notebooks/assignments/grade.py demo $(PS) --course build/classroom-demo
