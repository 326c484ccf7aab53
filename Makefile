# Every target makes the environment it needs in .venv; only Python 3.11+, pip and make are assumed.
# PYTHON names the interpreter to make it from; WORKERS the number of test processes.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help demo explorer numbers real-case test test-slow test-versions docs pictures check lint types wheel bench bench-compare clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(RUN):
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d; run: make PYTHON=python3.12 ..." % v[:2])'
	$(PYTHON) -m venv $(VENV)

# A stamp is younger than pyproject.toml when its extras are installed.
$(VENV)/.installed-run: pyproject.toml | $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[experiments,data]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed-run

$(VENV)/.installed-docs: pyproject.toml | $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

demo: $(VENV)/.installed-run ## run the main example; tables and pictures go to results/
	$(RUN) -m experiments.demo

real-case: $(VENV)/.installed-run ## from logged conversations to a bill, and how sure it is (two or three minutes)
	$(RUN) -m experiments.real_case

pictures: $(VENV)/.installed-run ## draw the pictures of the README again
	$(RUN) -m experiments.demo --market cars
	mkdir -p experiments/pictures && cp results/cars/policy_tree.png results/cars/incentives.png experiments/pictures/

numbers: $(VENV)/.installed-run ## make the recorded numbers of README and book again, and say which moved; SECONDS=300: by short commands
	$(RUN) -m experiments.rebuild $(if $(SECONDS),--seconds $(SECONDS))

# Of the whole project only this needs node.
explorer: ## build the script of `dm.report` again from dynmech/explorer/source
	cd dynmech/explorer/source && npm ci --ignore-scripts --no-audit --no-fund && npm run --silent build

bench: $(VENV)/.installed-run ## measure speed; results/benchmarks/COMMIT.json is kept
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(RUN) -m experiments.benchmarks

bench-compare: $(VENV)/.installed-run ## make bench-compare OLD.json NEW.json: what became slower
	$(RUN) -m experiments.benchmarks.compare $(filter %.json,$(MAKECMDGOALS))

%.json: ;

test: $(VENV)/.installed-dev ## run the tests, the doctests and the notebooks
	$(RUN) -m pytest -n $(WORKERS) --dist worksteal

test-slow: $(VENV)/.installed-dev ## run the slow tests, too long for every change; PART=2/4: one part of them
	PART=$(PART) JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(RUN) -m pytest -n $(WORKERS) --dist worksteal -m 'slow and not gpu' || [ $$? -eq 5 ] # 5: none is marked slow

# Every page is run anew and a warning fails the build; what JAX compiled is kept from one to the next.
docs: $(VENV)/.installed-docs ## build the book, its pages executed, into build/book
	TF_CPP_MIN_LOG_LEVEL=3 JAX_COMPILATION_CACHE_DIR=$(CURDIR)/build/compiled JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.1 $(RUN) -m sphinx -E -W --keep-going -q -j $(WORKERS) -d build/pages -b html notebooks build/book
	@echo build/book/index.html

test-versions: ## try the wheel and a core of the tests on the oldest and the newest Python and JAX
	$(PYTHON) tests/versions.py $(WORKERS)

check: lint types wheel ## check style and types, and try the built wheel from another folder

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(RUN)

# The wheel is unpacked into an empty folder and run from there; the script itself hides the
# source tree and every package that is no core dependency of the wheel.
wheel: $(VENV)/.installed-dev
	@set -eu; root=$$PWD; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(RUN) -m build --wheel --no-isolation --outdir "$$folder/dist" . > "$$folder/log" 2>&1 || { cat "$$folder/log"; exit 1; }; \
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --target "$$folder/site" "$$folder"/dist/*.whl; \
	cd "$$folder"; PYTHONPATH="$$folder/site" "$$root/$(RUN)" -P -W error "$$root/tests/smoke_wheel.py" "$$root"

clean: ## delete the environment, caches and builds; results/ stays
	rm -rf $(VENV) .venv-* build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
