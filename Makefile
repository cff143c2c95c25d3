# Verbs: setup demo test lint bench check, and golden test-faults test-vllm bench-gpu. CI calls the same ones.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
export PYTHONHASHSEED ?= 0

# uv does not read pip's configuration; a folder of wheels named there is handed on.
FIND_LINKS = $$( [ -n "$$UV_FIND_LINKS" ] && echo "$$UV_FIND_LINKS" || echo "$${PIP_FIND_LINKS:-$$($(BIN)/pip config get global.find-links 2>/dev/null)}" )
install = UV_FIND_LINKS="$(FIND_LINKS)" $(BIN)/uv pip install -q --python $(BIN)/python -e "$(1)" || $(BIN)/pip install -q -e "$(1)"

# A test process that dies ends the run: a replaced one can wait for ever for a share of the tests.
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadgroup --max-worker-restart 0

.PHONY: setup demo test lint bench check golden test-faults test-vllm bench-gpu clean

setup: $(VENV)/.dev

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -U pip uv

# The factory core: no torch, no Ray.
$(VENV)/.core: pyproject.toml | $(BIN)/uv
	$(call install,.[demo])
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/uv
	$(call install,.[dev])
	touch $@ $(VENV)/.core

demo: $(VENV)/.core
	$(BIN)/unifactory demo --store runs/demo

test: $(VENV)/.dev
	$(PYTEST) -m "not vllm and not faults"

# Kills processes at 20 and more random points, on both engines.
test-faults: $(VENV)/.dev
	$(BIN)/python -m pytest -m faults tests/faults

# Installs a real vLLM into an environment of its own and captions pictures through it.
test-vllm: $(VENV)/.dev
	bash tests/vllm/setup.sh
	$(BIN)/python -m pytest -m vllm tests/vllm

# Parity with the reference implementation; fails when no golden test ran.
golden: $(VENV)/.dev
	$(BIN)/python -m pytest -m golden tests/model --golden-must-run

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench --out runs/bench.json

bench-gpu: $(VENV)/.dev
	$(BIN)/python -m tests.bench --gpu --out runs/bench-gpu.json

check: lint test

clean:
	rm -rf runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
