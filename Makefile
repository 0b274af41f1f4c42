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
# Further arguments of the program or of pytest: make test ARGS="-k embedded"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench bench-cache fuzz simulate clean

help: ## List what there is
	@sed -n 's/^\([a-z-]*\):.* ## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(VENV)/.installed-embedded ## Walk through client-side caching on a real server of its own
	@$(VENV)/bin/python examples/walkthrough.py $(ARGS)

test: $(VENV)/.installed-test ## Run the tests, on every real server that is found
	@$(VENV)/bin/pytest $(ARGS)

lint: $(VENV)/.installed-lint ## Check style and types
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python

# QUICK=1 measures only what has a must, and fails if one is missed by far: the form for CI.
QUICK ?=
bench: $(VENV)/.installed-bench ## Measure the codec beside its peers; write docs/benchmarks
	@$(VENV)/bin/python -m benchmarks $(if $(QUICK),--quick) $(ARGS)

bench-cache: $(VENV)/.installed-bench $(VENV)/.installed-embedded ## Measure the cache beside its peers
	@$(VENV)/bin/python -m benchmarks.cache $(ARGS)

# How long all targets together take: make fuzz SECONDS=600
SECONDS ?= 60
fuzz: $(VENV)/.installed-test ## Feed codec and client arbitrary bytes for SECONDS
	@$(VENV)/bin/python -m fuzz --seconds $(SECONDS) $(ARGS)

# make simulate SCHEDULES=1000000, or ARGS="--seed 7" for the story of one, ARGS=--mutants
SCHEDULES ?= 100000
simulate: $(VENV)/.installed-test ## Run whole clients through SCHEDULES of a simulated world
	@$(VENV)/bin/python -m tests.simulation $(if $(ARGS),$(ARGS),--schedules $(SCHEDULES))

clean: ## Remove all that the other targets made
	@rm -rf .venv build dist .benchmarks .hypothesis *.egg-info .[a-z]*_cache
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
	$$pip --disable-pip-version-check install --quiet $(EDITABLE) '.[$*]'
	@touch $@
