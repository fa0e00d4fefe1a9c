# Two commands for a fresh machine:
#   make demo   makes an environment, installs skaecm, runs the main job
#   make test   makes an environment, installs skaecm, runs every check
# `make test-lowest` runs the tests on the lowest versions that are supported, but those of the
# benchmarks, which run on the tested ones.
# `make drill` kills fits, fills disks and fuzzes fits, some minutes long.

PYTHON ?= python3
DEMO := .venv-demo
TEST := .venv-test
LOWEST := .venv-lowest
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-lowest drill clean

demo: $(DEMO)/installed
	$(DEMO)/bin/python -m skaecm compare --force

# One thread a process: the matrices are small, and the tests share the cores anyway.
test: $(TEST)/installed
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/ruff check .
	$(TEST)/bin/mypy
	OMP_NUM_THREADS=1 $(TEST)/bin/python -m pytest -n auto
	rm -rf dist
	$(TEST)/bin/python -m build --outdir dist .
	$(TEST)/bin/twine check --strict dist/*
	OMP_NUM_THREADS=1 $(TEST)/bin/sphinx-build -W --keep-going -q -b html doc doc/_build/html

test-lowest: $(LOWEST)/installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n auto tests --ignore-glob='*_smoke.py'

drill: $(TEST)/installed
	OMP_NUM_THREADS=1 $(TEST)/bin/python benchmarks/drill.py
	OMP_NUM_THREADS=1 $(TEST)/bin/python tests/fuzz_fits.py 5000

$(DEMO)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(DEMO)
	$(DEMO)/bin/python $(PIP_INSTALL) -c constraints.txt -e ".[plots]"
	touch $@

$(TEST)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(TEST)
	$(TEST)/bin/python $(PIP_INSTALL) -c constraints.txt -e ".[plots,tests,docs]"
	touch $@

$(LOWEST)/installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python $(PIP_INSTALL) -c constraints-lowest.txt -e ".[plots]" pytest pytest-xdist
	touch $@

clean:
	rm -rf $(DEMO) $(TEST) $(LOWEST) build dist doc/_build doc/auto_examples doc/generated
