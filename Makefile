# Every target sets up the environment it needs. `make help` lists the targets and variables.
# Paths are quoted and kept out of targets and prerequisites, which cannot contain spaces.

PYTHON ?= python3
VENV ?= .venv
MODEL ?= faster_rcnn
SITE ?= site
ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv demo test lint sync check docs

PY := "$(VENV)/bin/python"
# The checkout may be read-only, so caches are kept in the environment.
export RUFF_CACHE_DIR := $(VENV)/ruff_cache
export MYPY_CACHE_DIR := $(VENV)/mypy_cache
# Tests of the configuration and of each part of the networks, against literals and numpy.
QUICK := $(addprefix tests/unit/test_,$(addsuffix .py,config config_values anchor_generator assign_sample augmentation bbox_coder \
  convolution fpn_neck host_nms lr_schedule mask_targets nms paste_masks proposal_generator rcnn rcnn_mask \
  refinedet_augmentation refinedet_parts relu_sides render resampling resnet roi_align rpn transforms voc_ap))
PYTEST := $(PY) -m pytest -o cache_dir="$(VENV)/pytest_cache"

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16
	@echo
	@printf '  %s\n' \
	  'VENV=DIR    the environment (default: .venv, 3 GB)' \
	  'PYTHON=EXE  Python 3.11 or 3.12 to create it with (default: python3)' \
	  'MODEL=NAME  the model of the demo (default: faster_rcnn)' \
	  'SITE=DIR    where make docs writes the pages (default: site)' \
	  'ARGS=...    additional options of the demo or of pytest'

venv: ## create the environment and install the pinned packages, if missing
	@stamp="$(VENV)/requirements.installed"; \
	if cat requirements.txt requirements-dev.txt | cmp -s - "$$stamp"; then exit 0; fi; \
	if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  "$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; v in ((3, 11), (3, 12)) or sys.exit( \
	    "Python 3.11 or 3.12 is needed, this is %d.%d: make PYTHON=python3.11 ..." % v)'; \
	  "$(PYTHON)" -m venv "$(VENV)"; \
	fi; \
	$(PY) -m pip install --disable-pip-version-check --quiet -r requirements-dev.txt; \
	cat requirements.txt requirements-dev.txt > "$$stamp"

demo: venv ## draw a data set, train MODEL on it, evaluate, export, infer: demo_output/
	@$(PY) -m utils.demo.run --model "$(MODEL)" $(ARGS)

test: lint ## everything that CI runs
	@$(PYTEST) --numprocesses 3 --no-loadscope-reorder tests $(ARGS)

lint: venv ## ruff, mypy, shellcheck
	@$(PY) -m ruff check .
	@shopt -s nullglob; \
	"$(VENV)/bin/shellcheck" $$(grep -L '^# Same as ' .ci/run */*.sh */scripts/*.sh */test/*.sh) & shellcheck=$$!; \
	status=0; $(PY) -m mypy || status=1; wait "$$shellcheck" || status=1; exit "$$status"

sync: venv ## rewrite the copies of another model's files
	@$(PY) tests/sync_copies.py

check: lint ## the quick checks: ruff, mypy, shellcheck, copies, configuration, the parts of the networks
	@$(PY) tests/sync_copies.py --check
	@$(PYTEST) -q -m "not (slow or parity or cpp or ranks)" $(QUICK) $(ARGS)

docs: venv ## build the documentation as a site: SITE/index.html; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --site-dir "$$(realpath -m -- "$(SITE)")"
