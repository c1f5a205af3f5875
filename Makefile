# From a bare clone with only Python >= 3.11 and make:
#   make demo   a Perceiver learns real handwritten digits, is tested, predicts and draws what it attended to
#   make test   the tests, without the slow ones
# Both create .venv and install into it once; again only after pyproject.toml or constraints.txt changed.

.PHONY: setup demo test test-all coverage check golden bench small-cpu evidence docs
.DELETE_ON_ERROR:
.DEFAULT_GOAL := demo

BIN := .venv/bin
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
JOBS ?= 2# processes of the test run, one core each
DATA ?= data# folder of data sets (docs/results/index.md) for `make small-cpu` and `make evidence`
DATA_FLAG = $(if $(wildcard $(DATA))$(filter-out file,$(origin DATA)),--data $(DATA))# no folder: only data that the benchmark makes
SEEDS ?= 0# runs of each row of `make small-cpu`
CHECKED := tests/unit tests/properties tests/parity tests/kernels# with shapes checked at run time
WHOLE := tests/compiled tests/long tests/e2e tests/golden tests/contract
LOCK := pyproject.toml constraints.txt
EXACT := src/perceivers/typing.py,src/perceivers/nn/*,src/perceivers/inputs/*,src/perceivers/outputs/*
EXACT := $(EXACT),src/perceivers/cross_attention/*,src/perceivers/models/*,src/perceivers/data/*,src/perceivers/tasks/*

PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS)
# torch.compile cannot trace the shape checker, and whole runs take twice as long with it. Tests of a file share its runs.
# The long ones come first, so that none is left alone at the end.
UNCHECKED = JAXTYPING_DISABLE=1 $(PYTEST) --dist loadfile --no-loadscope-reorder -o addopts=--import-mode=importlib

unexport PYTHONDONTWRITEBYTECODE# or every process that a test starts would compile everything anew
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

setup: .venv/.dev

demo: .venv/.demo
	@$(BIN)/perceivers quickstart

test: .venv/.dev
	$(PYTEST) --dist worksteal -m "not slow" $(CHECKED)
	$(UNCHECKED) -m "not slow" $(WHOLE)

test-all: test
	$(UNCHECKED) -m slow $(WHOLE) $(CHECKED)

coverage: .venv/.dev
	@rm -f .coverage .coverage.*
	$(PYTEST) --dist worksteal --cov --cov-report= $(CHECKED)
	$(UNCHECKED) --cov --cov-append --cov-report= tests/e2e
	@echo "The layers up to data and tasks must be covered to the last line, the rest to 90 %."
	$(BIN)/coverage report --include='$(EXACT)' --fail-under=100
	$(BIN)/coverage report --omit='$(EXACT)' --fail-under=90

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell src docs benchmarks *.md
	$(BIN)/python .ci/packages.py
	$(BIN)/python .ci/prose.py

golden: .venv/.dev
	GOLDEN=rewrite OMP_NUM_THREADS=1 $(BIN)/pytest -q tests/golden
	@git --no-pager diff --stat -- tests/golden

bench: .venv/.dev
	$(BIN)/python -m benchmarks

small-cpu: .venv/.dev
	$(BIN)/python -m benchmarks small_cpu $(DATA_FLAG) --seeds $(SEEDS)
	$(BIN)/python -m benchmarks small_cpu --page

evidence: .venv/.dev
	$(BIN)/python -m benchmarks.published
	$(BIN)/python -m benchmarks.accuracy --data $(DATA)

docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Torch first and from its pin: installed together with the rest, pip may trade a CPU build for a CUDA build.
.venv/.torch: constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "perceivers needs Python 3.11 or newer; none was found on the PATH." \
		"Install one, or name it: make demo PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Creating .venv with $(PYTHON) and installing, once (about 2 minutes and 2 GB)."
	@$(PYTHON) -m venv .venv || { echo "Could not create .venv with $(PYTHON). On Debian and Ubuntu:" \
		"apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install "$$(grep '^torch==' constraints.txt)"
	@touch $@

.venv/.demo: $(LOCK) .venv/.torch
	$(BIN)/python -m pip install -e ".[all]"
	@touch $@

.venv/.dev: $(LOCK) .venv/.torch
	$(BIN)/python -m pip install -e ".[dev]"
	@touch .venv/.demo $@

.venv/.docs: $(LOCK) .venv/.torch
	$(BIN)/python -m pip install -e ".[docs]"
	@touch $@
