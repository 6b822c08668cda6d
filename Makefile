# Two commands for users: `make demo` and `make test`. The rest is for developers.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint docs soak clean

demo: .venv/installed
	$(BIN)/pcsim run models/digits.toml --order sequential --order simultaneous --engine event --force
	$(BIN)/pcsim plot traces/digits-sequential.h5 traces/digits-simultaneous.h5 -o traces/digits-error-flow.png --force

test: .venv/developing
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

lint: .venv/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/developing
	$(BIN)/zensical build --strict

# Two hours of kills, resumes and sweeps: docs/reliability.md. SOAK=folder for what it writes, new each time.
SOAK ?= runs/soak
soak: .venv/developing
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python tests/hostile/soak.py --hours 2 -o $(SOAK)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/developing: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist site .cache *.egg-info
