# What one does with this project. `make` alone lists it.
#
# Everything is installed into VENV, nothing anywhere else. A stamp in it says which extra of
# pyproject.toml is installed, so only the first call (and the first after a change) runs pip.

VENV ?= .venv
# Any command that runs Python 3.11 or newer; a name on PATH may be a shim that runs nothing.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; \
	do $$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
# Empty, it installs what a user would get: the built package, not the working tree.
EDITABLE ?= --editable
# Of `dist` and `matrix`; all that are found, if none is named.
PYTHONS ?=
# What is installed: this tree, or one of dist/*.whl.
PACKAGE ?= .
# Further arguments of the program or of pytest: make test ARGS="-k embedded"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test coverage lint bench bench-codec bench-cache bench-client bench-asyncio \
	fuzz simulate soak matrix debug sanitize fallbacks dist clean

help: ## List what there is
	@sed -n 's/^\([a-z-]*\):.* ## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(VENV)/.installed-embedded ## Walk through client-side caching on a real server of its own
	@$(VENV)/bin/python examples/walkthrough.py $(ARGS)

test: $(VENV)/.installed-test ## Run the tests, on every real server that is found
	@$(VENV)/bin/pytest $(ARGS)

# On the pure twins: no line of the compiled ones is seen. What ARGS leave out is not run and not
# covered; a file of data per process is put together in .coverage, for `coverage html` or `annotate`.
coverage: export RESP_PURE_PYTHON = 1
coverage: $(VENV)/.installed-coverage ## Measure which lines and branches the tests run; 98 % at least
	@$(VENV)/bin/coverage erase
	@$(VENV)/bin/coverage run -m pytest -n 2 --dist worksteal $(ARGS); tests=$$?; \
	$(VENV)/bin/coverage combine --quiet && $(VENV)/bin/coverage report && exit $$tests

lint: $(VENV)/.installed-lint ## Check style and types
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python

# QUICK=1 measures only what of the codec has a must, and fails if one is missed by far: for CI.
QUICK ?=
bench: $(if $(QUICK),bench-codec,bench-codec bench-cache bench-client bench-asyncio) ## Measure all beside their peers, in some six minutes

bench-codec: $(VENV)/.installed-bench ## Measure the codec; write docs/benchmarks
	@$(VENV)/bin/python -m benchmarks $(if $(QUICK),--quick) $(ARGS)

bench-cache: $(VENV)/.installed-bench $(VENV)/.installed-embedded ## Measure the cache
	@$(VENV)/bin/python -m benchmarks.cache $(ARGS)

bench-client: $(VENV)/.installed-bench $(VENV)/.installed-embedded ## Measure the blocking client
	@$(VENV)/bin/python -m benchmarks.blocking $(ARGS)

bench-asyncio: $(VENV)/.installed-bench $(VENV)/.installed-embedded ## Measure the asyncio client
	@$(VENV)/bin/python -m benchmarks.aio $(ARGS)

# How long all targets together take: make fuzz SECONDS=600; with ARGS=--atheris guided by coverage.
SECONDS ?= 60
fuzz: $(VENV)/.installed-test $(if $(findstring --atheris,$(ARGS)),$(VENV)/.installed-fuzz)
fuzz: ## Feed codec and client arbitrary bytes for SECONDS
	@$(VENV)/bin/python -m fuzz --seconds $(SECONDS) $(ARGS)

# make simulate SCHEDULES=1000000, or ARGS="--seed 7" for the story of one, ARGS=--mutants
SCHEDULES ?= 100000
simulate: $(VENV)/.installed-test ## Run whole clients through SCHEDULES of a simulated world
	@$(VENV)/bin/python -m tests.simulation $(if $(ARGS),$(ARGS),--schedules $(SCHEDULES))

# make soak MINUTES=60 ARGS="--server valkey-8.1 --seed 7"
MINUTES ?= 10
soak: $(VENV)/.installed-test ## Work on real servers for MINUTES while everything happens to them
	@$(VENV)/bin/python -m tests.soak --minutes $(MINUTES) $(ARGS)

# The codec's tests on a build of the extension that watches itself. It lies beside the usual one,
# and is found first; the tests' folder is on the path, this one is not. What C writes to stderr
# before it ends the process must get by pytest, and all of it takes its time.
WATCHED = --capture=sys --timeout 900
CODEC_TESTS = $(wildcard tests/test_encoder.py tests/test_hiredis.py tests/test_memory.py \
	tests/test_par*.py tests/test_reentry.py tests/test_types.py tests/test_window.py)
SANITIZERS = -fsanitize=address,undefined -fno-sanitize-recover=undefined
# Python itself was not built with it: the library must come first. Python's own memory goes to
# malloc, or a freed object would look alive. Leaks are told by tests/test_memory.py: here the
# interpreter's would hide them. A huge allocation must fail, not end the process. hiredis-py is
# left out: on the random streams that it is compared on, it reads behind its buffer.
SANITIZED = LD_PRELOAD="$$($${CC:-cc} -print-file-name=libasan.so)" PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
define build_beside
@rm -rf build/$@
@echo 'Building the extension into build/$@ ...'
@RESP_EXTENSION=yes $(1) $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet \
	--no-deps --no-cache-dir --target build/$@ .
endef

debug: $(VENV)/.installed-test ## Run the codec's tests with assertions and counted references
	$(call build_beside,RESP_DEBUG=2)
	@$(VENV)/bin/python -m pip --disable-pip-version-check install --quiet 'cython>=3.1'
	@PYTHONPATH=build/$@ $(VENV)/bin/pytest $(WATCHED) $(CODEC_TESTS) $(ARGS)

sanitize: $(VENV)/.installed-test ## Run the codec's tests, and SECONDS of fuzzing, under ASan and UBSan
	$(call build_beside,RESP_DEBUG=1 CFLAGS="$(SANITIZERS)" LDFLAGS="$(SANITIZERS)")
	@$(SANITIZED) PYTHONPATH=build/$@ $(VENV)/bin/pytest $(WATCHED) $(CODEC_TESTS) \
		-k "not million_replies and not any_stream_that_both_take and not redis_py_runs" $(ARGS)
	@$(SANITIZED) PYTHONPATH=build/$@:. $(VENV)/bin/python -P -m fuzz --seconds $(SECONDS)

# make matrix PYTHONS="python3.11 python3.13"
matrix: | $(VENV)/bin/python ## Run the live suite on every server, codec and Python; write docs/matrix.md
	@$(VENV)/bin/python scripts/matrix.py --output docs/matrix.md $(ARGS) $(PYTHONS)

# What other machines and builds of Python compile instead.
fallbacks: $(VENV)/.installed-test ## Run the codec's tests on the code of free-threaded builds and the like
	$(call build_beside,CFLAGS="-DRESP_LIST_FIELDS=0 -DRESP_BYTES_FIELDS=0 \
		-DRESP_FREE_THREADED=1 -U__SIZEOF_INT128__")
	@PYTHONPATH=build/$@ $(VENV)/bin/pytest $(WATCHED) $(CODEC_TESTS) $(ARGS)

# make dist PYTHONS="python3.11 python3.13"
dist: $(VENV)/.installed-dist ## Build the sdist and a wheel for each Python, and try them
	@$(VENV)/bin/python scripts/make_dist.py $(PYTHONS)

clean: ## Remove all that the other targets made
	@rm -rf .venv build dist .benchmarks .coverage* .hypothesis *.egg-info .[a-z]*_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@python='$(PYTHON)'; \
	if ! $${python:-false} -c '$(NEW_ENOUGH)'; then \
		echo >&2 'Python 3.11 or newer is needed; make PYTHON=/path/to/python names one.'; exit 1; \
	elif $$python -c 'import ensurepip' 2>/dev/null; then \
		$$python -m venv $(VENV); \
	elif $$python -m pip --python $$python --version >/dev/null 2>&1; then \
		$$python -m venv --without-pip $(VENV); \
	else \
		echo >&2 'This Python can make no virtual environment: apt install python3-venv.'; exit 1; \
	fi

# Without a pip in it (Debian without python3-venv), the one that made it installs into it.
$(VENV)/.installed-%: pyproject.toml | $(VENV)/bin/python
	@echo 'Installing resp-client[$*] into $(VENV) ...'
	@pip='$(VENV)/bin/python -m pip'; \
	$$pip --version >/dev/null 2>&1 || pip='$(PYTHON) -m pip --python $(VENV)/bin/python'; \
	$$pip --disable-pip-version-check install --quiet $(EDITABLE) '$(PACKAGE)[$*]'
	@touch $@
