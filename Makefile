# Six commands, each one line. Everything lives in .venv; .venv/.ready is written last, so a set-up that was cut short starts again.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c "" 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: setup demo test lint bench docs
setup: .venv/.ready
demo: setup ; $(BIN)/pyro-dgm reproduce digits --jobs 2
test: setup ; OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
lint: setup ; $(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports
bench: setup ; $(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[bench]' && $(BIN)/python -m benchmarks
docs: setup ; $(BIN)/python -m tests.test_house && OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 pyro_dgm

.venv/.ready: setup.cfg pyproject.toml constraints.txt
	@if [ -e .venv/.begun ] && [ ! -e $@ ]; then rm -rf .venv; fi
	$(PYTHON) -m venv .venv
	touch .venv/.begun
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	mv .venv/.begun $@
