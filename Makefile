# Two commands: `make run` runs the whole workbook in its quick profile, `make test` checks everything.
# Both first make .venv from pyproject.toml with the versions of constraints.txt, and do nothing twice.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Real datasets beside the checkout are used where they are; without them the workbook falls back to stand-ins.
KPM_MIRROR ?= $(wildcard ../shared/data)
export KPM_MIRROR
# What the checks run side by side, one thread each; whole files, so that what a file shares is made once.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

.PHONY: run test

run: $(VENV)/.installed
	$(BIN)/kpm run --profile quick

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST)
	$(BIN)/kpm run --profile quick --jobs $(JOBS) --out out/test
	$(PYTEST) --nbval-lax --nbval-cell-timeout 900 notebooks

# The stamp is written last, so an installation that was cut short is done again.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "kpm needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,baselines,topology,postgresql]'
	@touch $@
