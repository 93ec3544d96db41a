# Everything happens in .venv; nothing needs root. `make demo` installs no PyTorch.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt hatch_build.py
ARGS ?=

MINUTES ?= 30

.PHONY: help demo test check devices soak clean

help:
	@echo "make demo    ask the bundled model a spoken question; needs no sound device"
	@echo "make test    run the tests (ARGS='-m slow' passes options to pytest)"
	@echo "make check   format, lint, types, import rules"
	@echo "make devices run the tests that need a microphone and a loudspeaker, on virtual ones"
	@echo "make soak    talk with the bundled model for MINUTES=$(MINUTES), through virtual sound devices"
	@echo "make clean   remove the environment and all caches"

demo: $(VENV)/runtime.stamp
	$(BIN)/antiphon demo

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

$(VENV)/runtime.stamp: $(INPUTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "antiphon needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "this Python cannot make environments; on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo 'installing the runtime into $(VENV)'
	@$(PIP) --editable '.[cpu]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/runtime.stamp
	@echo 'installing the export and test tools into $(VENV); PyTorch takes a while'
	@$(PIP) --editable '.[cpu,audio,export,report,dev]'
	touch $@

devices: $(VENV)/dev.stamp
	scripts/virtual_devices.sh $(BIN)/python -m pytest -q -m audio_device $(ARGS)

soak: $(VENV)/dev.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/virtual_devices.sh python -m benchmarks.soak --minutes $(MINUTES) $(ARGS)

clean:
	rm -rf $(VENV) .dev build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
