# `make` lists the targets. Each sets the environment up first if a lock file has changed.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
INSTALL := $(BIN)/python -m pip install --quiet --no-deps --require-hashes
PYTHON ?= $(shell command -v python3.11 || command -v python3)
CORES ?= all
CONFIG ?= config/config.yaml
LORA ?= docs/example_adapter
BASE ?= tiny-sd3
TASK ?= ocr
export LORA BASE TASK  # recipes read them from the environment: no character of a path means anything to the shell
METHODS ?= base grpo gardo ddrl_synthetic
PORT ?= 5000
WORKERS ?= 2
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup tables plan base-check figures report check vote figures-from-published publish ui test lint dag

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=interpreter for setup, CORES=$(CORES), CONFIG=$(CONFIG) of plan, base-check and publish, PORT=$(PORT) of the ui, WORKERS=$(WORKERS) and ARGS= of the tests, LORA= BASE=$(BASE) TASK=$(TASK) of check and vote"

setup: $(STAMP) ## install the pinned environment into .venv

# The stamp is removed first and written last: an interrupted installation is never taken for a whole one. The CPU build
# of torch is taken where pip finds it; else the build of the package index, on Linux with its CUDA libraries.
$(STAMP): requirements.lock requirements-torch.lock requirements-torch-cpu.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13) and "goodhart needs Python 3.11 or 3.12: make setup PYTHON=/path/to/python3.11")'
	rm -f $@
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --requirement requirements.lock
	$(INSTALL) --requirement requirements-torch-cpu.lock 2> /dev/null || $(INSTALL) --requirement requirements-torch.lock
	$(BIN)/python -m pip check
	touch $@

tables: setup ## run the whole benchmark and write results/tables
	$(BIN)/snakemake --cores $(CORES) results/tables

plan: setup ## print jobs, GPU-hours, disk, downloads and licences of CONFIG; starts nothing
	$(BIN)/python -m workflow.estimate --configfile $(CONFIG)

base-check: setup ## score the untrained base model of CONFIG beside its published or recorded scores
	$(BIN)/snakemake --cores $(CORES) base_check --configfile $(CONFIG)
	@cat results/base_check.md

figures: setup ## draw results/figures
	$(BIN)/snakemake --cores $(CORES) results/figures

report: setup ## write results/report.html, a page with every result and how it was made
	$(BIN)/snakemake --cores $(CORES) report
	$(BIN)/snakemake --cores $(CORES) --report results/report.html --report-metadata workflow/report/metadata.yaml report

check: setup ## does LORA (adapter, checkpoint or folder of images) hack TASK's reward? Scores it beside BASE
	$(BIN)/python -m checking "$$LORA" --base "$$BASE" --task "$$TASK" $(ARGS)

vote: setup ## people vote between METHODS on a local page; `python -m voting close` counts
	$(BIN)/python -m voting serve --methods $(METHODS) --base "$$BASE" --task "$$TASK" $(ARGS)

figures-from-published: setup ## draw tables, figures and claims of docs/results anew from its raw scores; trains nothing
	$(BIN)/snakemake --cores $(CORES) results/tables results/figures results/claims.md --config stored_runs=docs/results/raw --configfile config/shown.yaml
	$(BIN)/python -m reporting.publish --compare

publish: setup ## run CONFIG, copy its tables, figures and claims to docs/results and fill the README's tables
	$(BIN)/snakemake --cores $(CORES) results/tables results/figures results/claims.md --configfile $(CONFIG)
	$(BIN)/python -m reporting.publish --command "make publish CONFIG=$(CONFIG)" --readme README.md

ui: setup ## browse the runs in MLflow on 127.0.0.1
	$(BIN)/snakemake --cores $(CORES) mlflow
	$(BIN)/python -m reporting.tracking ui --port $(PORT)

test: setup ## run the tests
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

dag: setup ## draw the graph of the rules into docs/workflow.md
	$(BIN)/python -m workflow.rule_graph
