# make quickstart   from nothing to an evaluated small model (about 5 minutes after installation)
# make test         the plain tests, the layer contracts, ruff and mypy (about 5 minutes; the first time llama.cpp is built, 6 more)
# make test-slow    minutes-long tests: random kills, the chain on real files where they are present

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
# of llama.cpp only the library is built, not what reads pictures
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF

.PHONY: quickstart test test-slow lint clean

quickstart: $(VENV)/installed
	$(BIN)/rinsho all --recipe recipes/quickstart.yaml

test: $(VENV)/installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadscope

test-slow: $(VENV)/installed-dev
	$(BIN)/pytest -m slow

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# torch comes first and by its tested version: a later package must not choose another build of it
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[all]" -c constraints.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[all,dev]" -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
