# Every target sets up what it needs; nothing has to be installed by hand but Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
# Pins torch to the build of CI. A GPU may want another: make gpu-check VENV=.venv-gpu CONSTRAINTS= makes an environment
# with the newest torch. VENV may also be an environment of yours: without the pins it keeps the torch that it has.
CONSTRAINTS ?= constraints.txt
EXTRAS ?= all,dev,docs,launchers,sweepers
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two processes: each test process computes with one thread of its own.
TEST_PROCESSES ?= 2
# Folders or files of tests; empty: all. make test TESTS=tests/ncut
TESTS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow guides lowest newest pythons coverage lint types docs package bench gpu-check clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

$(READY): pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix --constraint ,$(CONSTRAINTS)) \
		--editable '.[$(EXTRAS)]'
	@touch $@

setup: $(READY)  ## make the environment, with what the other targets need

demo: $(READY)  ## segment and score real photographs, sweep tau and alpha; report under outputs/
	$(BIN)/diffcut-bench run visualise=11
	$(BIN)/diffcut-bench run -m segmenter.tau=0.3,0.4,0.5,0.6,0.7 segmenter.alpha=2,5,10
	$(BIN)/diffcut-bench report outputs

test: $(READY)  ## run the tests, but those that are slow
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m "not slow" -n $(TEST_PROCESSES) --dist worksteal $(TESTS)

slow: $(READY)  ## run the slow tests: kills, launchers, runs at once
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m slow -n $(TEST_PROCESSES) --dist worksteal $(TESTS)

guides: $(READY)  ## run the commands of tutorial, README and the pages for one's own parts
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m slow -n $(TEST_PROCESSES) tests/test_guides.py tests/outside

lowest:  ## run the tests on the lowest versions of all dependencies that pyproject.toml allows
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt EXTRAS=$(EXTRAS),openvocab

newest:  ## run the tests on the newest versions that pip finds
	$(MAKE) test VENV=.venv-newest CONSTRAINTS= EXTRAS=$(EXTRAS),openvocab

pythons:  ## run some of the tests on each Python that the project supports and that is at hand
	.ci/pythons

coverage: $(READY)  ## measure which lines the tests run, but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m "not slow" -n $(TEST_PROCESSES) --dist worksteal --cov $(TESTS)

lint: $(READY)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## check types, strictly
	$(BIN)/mypy

docs: $(READY)  ## build the documentation site into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Each part has an environment of its own below build/: the wheel gets its dependencies as a user does, and cffconvert wants
# an older jsonschema than Ray.
package: $(READY)  ## build sdist and wheel into dist/, check them and CITATION.cff, try the wheel in a fresh environment
	rm -rf dist build
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/citation && build/citation/bin/pip install --quiet --disable-pip-version-check cffconvert==2.0.0
	build/citation/bin/cffconvert --validate --infile CITATION.cff
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/pip install --quiet --disable-pip-version-check $(addprefix --constraint ,$(CONSTRAINTS)) dist/*.whl
	cd build && wheel/bin/diffcut-bench --version
	rm -rf build

bench: $(READY)  ## measure speed against the textbook version, as ratios; flags: make bench ARGS="--help"
	$(BIN)/python -m benchmarks $(ARGS)

gpu-check: $(READY)  ## on a machine with a CUDA GPU: its tests, cut, encoder, end to end, in ten minutes; in small: ARGS=--small
	$(BIN)/python -m benchmarks.gpu_check $(ARGS)

clean:  ## remove environments and caches; outputs/ stays
	rm -rf $(VENV) .venv-lowest .venv-newest .venv-3.* build dist site .mypy_cache .ruff_cache .hypothesis
