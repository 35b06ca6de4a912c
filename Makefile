# `make demo` and `make test` need Python >= 3.11 and a network; they make their own .venv, and leave an existing one in place.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# The peers' own tuning variables would change what is compared.
PEERS := env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE

.PHONY: demo test test-gpu-tools lint bench bench-search venv tools clean

demo: $(STAMP)
	@$(PEERS) $(BIN)/python examples/demo.py

# Two processes: what compiles thousands of kernels, and what is left.
ROOMS := tests/cache tests/cli tests/codegen tests/devices tests/ir tests/plugins tests/search
test: lint tools
	@$(BIN)/python -m pytest -q $(ROOMS)
	@$(BIN)/python -m pytest -q $(wildcard tests/test_*.py)

# What takes an hour: every program's schedules in the emulator and its sanitizers, oclgrind, all planted bugs. It goes on
# where it was stopped.
MINUTES ?= 60
test-gpu-tools: tools
	@$(BIN)/python -m tests.gpu_tools --minutes $(MINUTES)

lint: $(STAMP)
	@$(BIN)/ruff check autotune tests benchmarks examples
	@$(BIN)/mypy

bench: $(STAMP)
	@$(PEERS) $(BIN)/python benchmarks/peers.py --update-readme

# Strategies and the cost model on the recorded spaces; no device, a few minutes.
bench-search: $(STAMP)
	@$(BIN)/python -m benchmarks.search

venv: $(STAMP)

# An OpenCL device and a simulated one, compilers for AMD GPUs and for C++, for the tests of those languages, a browser for
# those of reports: Debian's where that is possible.
PACKAGES := pocl-opencl-icd ocl-icd-opencl-dev clang-19 lld-19 g++ oclgrind chromium
tools: .venv/.tools

.venv/.tools: $(STAMP)
	@{ command -v apt-get >/dev/null && test "$$(id -u)" = 0 && \
	   { dpkg -s $(PACKAGES) || { apt-get update -q && apt-get install -qy --no-install-recommends $(PACKAGES); }; } \
	   >/dev/null 2>&1; } || \
	  { $(BIN)/python -m pip install -q ziglang; \
	    echo 'not root, no apt-get, or no network: tests that need $(PACKAGES) are skipped where these are not here' >&2; }
	@touch $@

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'autotune needs Python >= 3.11: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if command -v apt-get >/dev/null && test "$$(id -u)" = 0; \
	  then apt-get update -q && apt-get install -qy python3-venv; \
	  else echo 'Python has no venv module: install it (Debian, Ubuntu: sudo apt-get install python3-venv)' >&2; exit 1; fi; }
	@test -x $(BIN)/pip || { echo 'making .venv and installing what the package needs: about a minute' && $(PYTHON) -m venv .venv; }
	@$(BIN)/python -m pip install -q -e '.[dev]'
	@$(BIN)/python -m compileall -q autotune
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find autotune tests benchmarks examples -name __pycache__ -type d -exec rm -rf {} +
