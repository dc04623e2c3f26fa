# Everything runs in .venv, made by the first target that needs it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: help setup demo up cluster env test chaos fuzz gpu quick check format bench docs train-tiny clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: .venv/base ## the virtual environment with Sfumato in it

demo: .venv/base ## start everything, send images/ through, lay out before and after in out/
	@$(BIN)/python -m examples.demo

up: .venv/base ## run the service on http://127.0.0.1:8000
	@$(BIN)/sfumato up

cluster: .venv/cluster ## the same as a cluster: Kafka, SeaweedFS, PostgreSQL and nginx, without Docker and root
	@$(BIN)/sfumato cluster up

env: ## passwords for docker compose, into .env
	@$(PYTHON) deploy/make_env.py

test: check ## the checks and the whole suite
	$(BIN)/python -m pytest

chaos: .venv/test ## kill every process of a real cluster at random while ten thousand jobs pass, for ten minutes
	$(BIN)/python -m pytest tests/chaos --long

fuzz: .venv/test ## a hundred thousand requests, most of them bad, to a real service
	$(BIN)/python -m pytest tests/fuzz --long

gpu: .venv/test ## what only a CUDA device can show
	$(BIN)/python -m pytest tests/gpu

quick: .venv/test ## what is proved without starting a server, in a minute
	$(BIN)/python -m pytest -q -m 'not server' tests/unit tests/property tests/contract

check: .venv/test ## style, types and who may import whom
	$(BIN)/ruff check src tests examples training
	$(BIN)/ruff format --check src tests examples training
	$(BIN)/mypy src tests examples training
	$(BIN)/lint-imports

format: .venv/test ## mend what ruff can mend
	$(BIN)/ruff check --fix src tests examples training
	$(BIN)/ruff format src tests examples training

bench: .venv/base ## measure this machine
	$(BIN)/sfumato bench overhead
	$(BIN)/sfumato bench engine --backend simulated
	$(BIN)/sfumato bench engine --backend onnx

docs: .venv/docs ## the documentation as a site that needs no network, into out/docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo 'Open out/docs/index.html'

DEVICE ?= cpu
HOURS ?= 6
train-tiny: .venv/training ## train the bundled model anew, into out/training; again to go on: [DEVICE=cuda] [HOURS=6]
	$(BIN)/python -m training --out out/training --device $(DEVICE) --hours $(HOURS)

clean: ## remove the virtual environment and what was made
	rm -rf .venv out build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# The two files say what is installed, so that it happens once, and again when what it follows from changes.
.venv/base: pyproject.toml constraints.txt | .venv/bin/python
	@echo 'Installing Sfumato into .venv …'
	@$(PIP) --editable .
	@touch $@

.venv/cluster: .venv/base
	@echo 'Installing what a cluster needs …'
	@$(PIP) --editable '.[cluster]'
	@touch $@

.venv/docs: .venv/base
	@echo 'Installing what the documentation is built with …'
	@$(PIP) --editable '.[docs]'
	@touch $@

.venv/test: .venv/base
	@echo 'Installing what the tests need (torch and diffusers among it; this takes some minutes) …'
	@$(PIP) --editable '.[test]'
	@touch $@

.venv/training: .venv/base
	@echo 'Installing what training needs (torch among it; this takes some minutes) …'
	@$(PIP) --editable '.[training]'
	@touch $@

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo 'Sfumato needs Python 3.11 or newer; $(PYTHON) was not found.'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Sfumato needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 | cut -d' ' -f2)."; \
	  echo 'Name another one: make setup PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo 'The virtual environment could not be made; on Debian and Ubuntu: apt install python3-venv'; exit 1; }
