# make run     serve on this machine and print the address
# make test    what CI runs: format, lint, types, tests
# make lint    the first three of these
# make bench   measure this machine and rewrite the tables of README.md
#
# Each works in a fresh clone: it makes .venv, installs into it, and a second call does not do so again.
#   PORT=9000               another port for `make run`
#   ARGS='--fps 60'         more arguments for the server, or for pytest
#   TESTS=tests/realtime    only these tests
#   PYTHON=python3.12       another interpreter for .venv

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test lint bench browser clean

VENV := .venv
PY := $(VENV)/bin/python
# pip says nothing while it unpacks, which is the longest part: a line every 15 s shows that it lives.
# Kernels are tested without a GPU too: interpreted, and compiled ahead of time. A CUDA build of torch brings
# its own Triton; beside a CPU build comes the one that the recorded figures were made with.
TRITON := triton==3.6.0
PIP_INSTALL = (while sleep 15 >/dev/null 2>&1; do echo "      ... still installing, $$SECONDS s"; done) & beat=$$!; \
	trap "kill $$beat 2>/dev/null || true" EXIT; \
	$(PY) -m pip install --disable-pip-version-check -c constraints.txt
MANIFEST := pyproject.toml constraints.txt
PORT ?=
ARGS ?=
TESTS ?= tests

help:
	@awk '/^#/ {sub(/^# ?/, ""); print; next} {exit}' Makefile

# The first interpreter that is new enough; PYTHON= decides where it is given.
$(PY):
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "[1/2] making $(VENV) with $$("$$python" --version)"; \
	        "$$python" -m venv $(VENV) && exit 0; \
	        rm -rf $(VENV); \
	        echo "$$python could not make a virtual environment; on Debian: apt-get install python3-venv" >&2; \
	        exit 1; \
	    fi; \
	done; \
	echo "Stylewire needs Python 3.11 or newer, and found none as: $(or $(PYTHON),python3)." \
	     "Install one, or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1

$(VENV)/installed-run: $(MANIFEST) | $(PY)
	@echo "[2/2] installing Stylewire (PyTorch is the large part; one to five minutes, once)"
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/installed-dev: $(MANIFEST) | $(PY)
	@echo "[2/2] installing Stylewire and what its tests need (PyTorch is the large part; one to five minutes, once)"
	@$(PIP_INSTALL) -e '.[dev]'
	@if ! $(PY) -c 'import triton' 2>/dev/null; then $(PIP_INSTALL) $(TRITON); fi
	@touch $(VENV)/installed-run $@

run: $(VENV)/installed-run
	@exec $(PY) -m realtime serve $(if $(PORT),--port $(PORT)) $(ARGS)

lint: $(VENV)/installed-dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

# One thread per test: torch's threads wait by spinning, and beside a browser on two cores they would
# mostly wait for each other.
test: lint browser
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest $(ARGS) $(TESTS)

# The browser tests drive the Chromium or Chrome of this machine; nothing is downloaded from elsewhere.
browser:
	@for name in chromium google-chrome google-chrome-stable chromium-browser; do \
	    if command -v "$$name" >/dev/null; then echo "browser: $$(command -v "$$name")"; exit 0; fi; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "browser: none found; installing Debian's chromium"; \
	    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; \
	    exit; \
	fi; \
	echo "browser: the page is tested in Chromium or Chrome, and neither is on the PATH. Install one" \
	     "(Debian: sudo apt-get install chromium) and run this again." >&2; \
	exit 1

bench: $(VENV)/installed-dev browser
	$(PY) bench/fps.py --json bench/results/fps.json
	$(PY) bench/kernels.py --json bench/results/kernels.json
	$(PY) bench/pipeline.py --json bench/results/pipeline.json
	$(PY) bench/latency.py --json bench/results/latency-testcard.json
	$(PY) bench/latency.py --model default --json bench/results/latency-default.json
	$(PY) bench/report.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
