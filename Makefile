# make demo, make test and make test-all each work as the first command in a fresh clone; they set everything up themselves.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: demo test test-all soak lab lint pictures docs clean setup chromium

demo: setup
	$(BIN)/simpo-workbench demo

PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal --disable-warnings --durations=10

# What tells that a change is right, in about five minutes on two cores.
test: setup chromium
	$(PYTEST) --ignore tests/full

# Also all model families, notebooks, faults, the browser and the benchmarks: about a quarter of an hour.
test-all: setup chromium
	$(PYTEST)

# All faults, and fifty runs killed at random moments and resumed, each compared bit for bit: about half an hour.
soak: setup
	SIMPO_WORKBENCH_SOAK=1 $(BIN)/python -m pytest tests/full/faults -s

lab: setup
	$(BIN)/simpo-workbench lab

lint: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The README's pictures, from the newest finished run.
pictures: setup chromium
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python docs/pictures.py

# docs/metrics.md and docs/settings.md, which are made from code, and the reference of all public names:
# build/docs/index.html.
docs: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python docs/generate.py
	@echo "The reference of all public names: build/docs/index.html"

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "SimPO Workbench needs Python 3.11 or newer; none was found. Install it, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: apt install python3-venv)."; exit 1; }
	@echo "Setting up $(VENV): about 2 GB, one to three minutes …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

# The browser tests need a Chromium. Where it may not be installed they skip, loudly; in CI they must run.
chromium:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	{ command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && { echo "Installing chromium for the browser tests …"; \
	  apt-get update -qq >/dev/null 2>&1; apt-get install -y -qq chromium >/dev/null 2>&1; } && command -v chromium >/dev/null; } || \
	echo "No chromium, and it may not be installed here: the browser tests will be SKIPPED."

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
