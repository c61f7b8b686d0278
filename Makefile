# Two commands do everything, environment included:  make demo  and  make test.
#   PYTHON=python3.12   which Python makes the environment (default: the first of 3.11 to 3.13 that is found)
#   TORCH=cpu           on Linux without a GPU: PyTorch without its 5 GB of CUDA libraries
#   DATA=folder:PATH    another data set for the demo (also cifar10, stl10, fashion-mnist, digits)

.DEFAULT_GOAL := help
.PHONY: help setup demo lab site test test-devices test-browser test-mutants test-weights lint bench exercises normalise lock clean distclean again
.DELETE_ON_ERROR:

unexport PYTHONPATH PYTHONHOME
export DATA LESSON PYTHON TORCH

PY := .venv/bin/python
READY := .venv/ready
# An environment whose Python is gone, that was made in another place or with another TORCH is made again.
STALE := $(shell TORCH='$(TORCH)' sh tools/environment.sh --is-stale && echo again)

help:
	@echo 'make demo        the main job: pretrain without labels, measure with few (DATA=folder:PATH for your own)'
	@echo 'make lab         open your copy of the course in JupyterLab (LESSON=02 for one lesson)'
	@echo 'make test        every test: style, unit tests, lessons, exercises'
	@echo 'make test-devices  every lesson as where there is a GPU, which is pretended'
	@echo 'make test-browser  JupyterLab and the site in Chromium, which must be installed'
	@echo 'make site        the course as static pages, in build/site'
	@echo 'make test-mutants  every small mistake in every exercise, refused by its check: 2 minutes'
	@echo 'make test-weights  real trained weights, 90 MB that are fetched for it, and files in other runtimes'
	@echo 'make lint        style, notebooks, exercises and claims only'
	@echo 'make bench       speed, as ratios of two things timed side by side'
	@echo 'make exercises   make exercises/ from solutions/ again'
	@echo 'make normalise   bring executed notebooks into the form that is committed'
	@echo 'make lock        pin every package again, in the newest versions that fit'
	@echo 'make setup       only the environment, .venv (TORCH=cpu: without CUDA libraries)'
	@echo 'make clean       remove caches; make distclean removes .venv as well'

setup: $(READY)

$(READY): requirements.lock pyproject.toml tools/environment.sh $(STALE)
	@sh tools/environment.sh

again:

demo: $(READY)
	@$(PY) -m sslcourse demo --data "$${DATA:-world}"

lab: $(READY)
	@$(PY) -m sslcourse lab $${LESSON:+"$$LESSON"}

test: .venv/ready-bench
	@$(PY) tools/test.py

test-devices: .venv/ready-bench
	@$(PY) tools/test.py devices

test-browser: .venv/ready-site
	@$(PY) tools/test.py browser

test-mutants: $(READY)
	@$(PY) tools/test.py mutants

# The course to read, without a network and without running anything.
site: .venv/ready-site
	@$(PY) tools/make_site.py

test-weights: .venv/ready-bench
	@$(PY) tools/test.py weights

lint: $(READY)
	@$(PY) tools/test.py style

bench: .venv/ready-bench
	@$(PY) -m sslcourse bench

# What `make bench` and the tests compare with: other implementations of the same losses and transforms.
.venv/ready-bench: $(READY) benchmarks/requirements.lock
	@sh tools/environment.sh benchmarks/requirements.lock
	@touch $@

# What makes the site, and what tests it in a browser.
.venv/ready-site: $(READY) docs/requirements.lock
	@sh tools/environment.sh docs/requirements.lock
	@touch $@

exercises: $(READY)
	@$(PY) tools/make_exercises.py

normalise: $(READY)
	@$(PY) tools/nbnormalise.py

lock: $(READY)
	@$(PY) tools/lock.py

clean:
	@find . -path ./.git -prune -o -path ./.venv -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \
	    -o -name .pytest_cache -o -name .ruff_cache -o -name .hypothesis -o -name '*.egg-info' \) \
	    -prune -exec rm -rf {} +

distclean: clean
	@rm -rf .venv
