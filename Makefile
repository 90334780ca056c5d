# The two commands of the README, and their parts. PYTHON names the interpreter that the environment is made with.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test report install lint types contracts tests format clean

demo: install
	$(BIN)/retrofit train experiment=embedded

test: install lint types contracts tests

# Every figure of the findings, and the page that has them all, from the results in experiments/.
report: install
	$(BIN)/retrofit report

install: $(INSTALLED)

$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo 'retrofit needs Python 3.11 to 3.13: make PYTHON=python3.11 $(MAKECMDGOALS)'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(INSTALLED)

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

# A file's tests stay in one process: they share what is dear to make.
tests: install
	$(BIN)/pytest --numprocesses 2 --dist loadfile

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
