# `make help` explains the targets. Nothing has to be installed first but Python (3.11 or newer) and make.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
PORT ?= 9092
SEEDS ?= 10000
BOOTSTRAP ?=
ARGS ?=
# Processes that run tests side by side: one more than there are cores, because some wait.
WORKERS ?= $(shell expr 1 + "$$(getconf _NPROCESSORS_ONLN)")

RUN := $(VENV)/bin/python
STAMP := $(VENV)/.stamp
COMPILE := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

WHEEL := $(RUN) -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation
COMPILED_WHEEL := HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(WHEEL)

.PHONY: help env demo compiled test-compiled test test-fast simulate mutants chaos faults fuzz check format kafka bench bench-quick dist lock clean

help: ## Show this.
	@echo "make [target], and what it does:"
	@sed -n -E 's/^([a-z-]+):[^#]*## (.*)/  \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14
	@echo
	@echo "Settings: PYTHON=$(PYTHON) (what makes the environment), VENV=$(VENV) (where it is),"
	@echo "ARGS='…' (more arguments for demo, test, test-fast, chaos and bench)."

env: $(STAMP) ## Make the environment in .venv, from locked requirements. Every other target does so by itself.

$(STAMP): requirements/dev.txt requirements/flights.txt requirements/install.py pyproject.toml
	@command -v $(PYTHON) > /dev/null || \
		{ echo "$(PYTHON) is not in PATH: install Python 3.11 or newer, or name another: make PYTHON=…" >&2; exit 1; }
	@$(PYTHON) requirements/install.py $(VENV)

demo: $(STAMP) ## Run the flights job on the embedded broker; on a real Kafka with BOOTSTRAP=host:port.
	@$(RUN) examples/flights/demo.py $(if $(BOOTSTRAP),--bootstrap-servers $(BOOTSTRAP)) $(ARGS)

# What needs no server runs on all cores, and then the rest, one by one: its tests share a Kafka. Where the first part fails
# the second is not run, so that the last lines tell of it. pytest's exit code 5: of these ARGS, the part has no tests.
test: $(STAMP) ## Run every test, on the embedded broker and on a real Kafka and schema registry: fetched, started and stopped.
	@remedy=$$($(RUN) -m tests.kafka_server prepare && $(RUN) -m tests.registry_server) && kafka=ours || kafka=none; \
	if [ $$kafka = none ] && [ -n "$${PAPERBOY_TEST_BOOTSTRAP:-}" ]; then \
		kafka=theirs; \
		echo "Tests that start a Kafka of their own will fail. $$remedy" >&2; \
	fi; \
	if [ $$kafka = none ]; then rest="compiled and not kafka"; else rest="compiled or kafka"; fi; \
	$(RUN) -m pytest -n $(WORKERS) --dist worksteal -m "not kafka and not compiled" $(ARGS) && end=0 || end=$$?; \
	if [ $$end = 0 ] || [ $$end = 5 ]; then \
		$(RUN) -m pytest -m "$$rest" $(ARGS) && end=0 || { second=$$?; [ $$second = 5 ] || end=$$second; }; \
	fi; \
	if [ $$kafka = none ]; then \
		echo "The tests above are those that need no Kafka. $$remedy" >&2; \
		exit 1; \
	fi; \
	exit $$end

test-fast: $(STAMP) ## Run the tests that need nothing but Python, without the flights, on all cores.
	@$(RUN) -m pytest -n $(WORKERS) --dist worksteal -m "not kafka and not compiled" --ignore-glob='*/test_flights.py' $(ARGS)

simulate: $(STAMP) ## Run SEEDS (10000) seeds of the simulation on all cores, up to the first that breaks a promise; FIRST=… begins there.
	@$(RUN) -m tests.simulation seeds --seeds $(SEEDS) --first $(or $(FIRST),0)

mutants: $(STAMP) ## Let the simulation find deliberate mistakes in the engine: a table of which seed finds which.
	@$(RUN) -m tests.simulation mutants $(ARGS)

chaos: $(STAMP) ## Kill, freeze and change workers on a real Kafka, more often than make test does: PAPERBOY_CHAOS_SEED=… again.
	@PAPERBOY_CHAOS_KILLS=$${PAPERBOY_CHAOS_KILLS:-200} PAPERBOY_CHAOS_CHANGES=$${PAPERBOY_CHAOS_CHANGES:-60} \
		PAPERBOY_CHAOS_SHARE=$${PAPERBOY_CHAOS_SHARE:-1} \
		$(RUN) -m pytest -s tests/chaos $(ARGS)

faults: $(STAMP) ## Try every failing message and every fault on the wire on a real Kafka; make test tries a part of them.
	@PAPERBOY_ERROR_POLICIES=all PAPERBOY_WIRE_FAULTS=all $(RUN) -m pytest $(ARGS) \
		tests/contract/engine/test_error_policies.py tests/kafka/test_faults_on_the_wire.py

fuzz: $(STAMP) ## Send 50,000 records of random bytes through each serializer; make test sends 5,000: PAPERBOY_FUZZ_SEED=… again.
	@PAPERBOY_FUZZ_RECORDS=$${PAPERBOY_FUZZ_RECORDS:-50000} $(RUN) -m pytest -s tests/properties/test_poison_fuzz.py $(ARGS)

check: $(STAMP) ## Check format, lint, types and the arrows between the rooms.
	$(VENV)/bin/ruff format --check --diff
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	$(VENV)/bin/basedpyright --level error
	$(VENV)/bin/lint-imports

format: $(STAMP) ## Format the code, and mend what ruff can mend.
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check --fix

kafka: $(STAMP) ## Run a real Kafka in the foreground on PORT (9092), until Ctrl-C.
	@$(RUN) -m tests.kafka_server run --port $(PORT)

bench: $(STAMP) ## Measure beside the peers, on a Kafka of its own, and write benchmarks/RESULTS.md. ARGS as README.md there says.
	@$(RUN) -m benchmarks $(ARGS)

bench-quick: $(STAMP) ## See whether we have become slower: ratios to bare aiokafka, or ARGS=--instructions. Under 3 minutes.
	@$(RUN) -m benchmarks.quick $(ARGS)

dist: $(STAMP) ## Build the sdist and, from it, two wheels: of Python, and compiled for this machine. Install and import each.
	@rm -rf dist build/dist
	@$(VENV)/bin/hatchling build -t sdist
	@$(WHEEL) --wheel-dir dist dist/*.tar.gz
	@$(COMPILED_WHEEL) --wheel-dir dist dist/*.tar.gz
	@for wheel in dist/*.whl; do \
		rm -rf build/dist; $(PYTHON) -m venv build/dist; \
		build/dist/bin/python -m pip --disable-pip-version-check install --quiet $$wheel; \
		(cd build && dist/bin/python -c "import importlib.metadata, paperboy, paperboy.engine.work as work; \
			print('paperboy-streams', importlib.metadata.version('paperboy-streams'), 'from', paperboy.__file__); \
			print('its hot paths from', work.__file__)"); \
	done
	@ls dist

compiled: $(STAMP) ## Make the compiled wheel, and lay it over a copy of the checkout: what runs in build/compiled runs compiled.
	@rm -rf build/compiled
	@mkdir -p build/compiled/wheel
	@$(VENV)/bin/hatchling build -t sdist -d build/compiled/wheel > build/compiled/wheel/log 2>&1
	@$(COMPILED_WHEEL) --wheel-dir build/compiled/wheel build/compiled/wheel/*.tar.gz
	@git ls-files -z | xargs -0 cp --parents -t build/compiled
	@$(RUN) -m zipfile -e build/compiled/wheel/*.whl build/compiled
	@$(RUN) -m compileall -q build/compiled/paperboy  # as pip does when it installs

test-compiled: compiled ## Run the tests of the embedded broker, and 200 seeds of the simulation, on the compiled modules.
	@cd build/compiled && $(abspath $(RUN)) -m pytest -m "not kafka and not compiled" --ignore-glob='*/test_flights.py' $(ARGS)
	@cd build/compiled && $(abspath $(RUN)) -m tests.simulation seeds --seeds 200

lock: $(STAMP) ## Pin the requirements anew: within the bounds that stand, or to the newest with ARGS=--upgrade.
	$(COMPILE) $(ARGS) --all-extras pyproject.toml requirements/dev.in -o requirements/dev.txt
	$(COMPILE) $(ARGS) requirements/java.in -o requirements/java.txt
	$(COMPILE) $(ARGS) --no-deps requirements/flights.in -o requirements/flights.txt

clean: ## Remove the environment, and everything that was built or cached here.
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .paperboy
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
