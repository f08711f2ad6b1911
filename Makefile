# Two commands matter: `make repro` and `make test`. Each sets up what it needs.
PYTHON ?= python3
# What `make report` compares with.
BASE ?= main
# The score by which `make table` sorts.
BY ?= challenge1.nrmse
# DVC runs `python` from the PATH (in queued experiments too), so the environment comes first on it.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Two of the same instant would write the same environment.
.NOTPARALLEL:

.PHONY: help repro test campaign lint report plots table schema s3 clean

help:  ## List the targets
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

repro: .venv/installed  ## Set up and run the whole pipeline; only what changed is rebuilt
	dvc repro

test: .venv/installed-dev  ## Set up and run the linter and the tests
	ruff check . && ruff format --check .
	pytest --numprocesses=2 --dist=loadscope

campaign: .venv/installed-dev  ## The long tests: every stage killed at three moments, every command of the README
	if command -v npm >/dev/null; then npm install --silent --no-save axe-core@4.14.1; fi
	pytest -m campaign

lint: .venv/installed-dev  ## Format and check the code
	ruff format . && ruff check --fix .

report: .venv/installed  ## What this branch changes since BASE=main, in report.md
	python src/report.py --base $(BASE)

plots: .venv/installed  ## Draw everything into one page, report/page.html, which needs no network
	python src/page.py

table: .venv/installed  ## List the experiments from best to worst, BY=challenge1.nrmse or another score
	python src/table.py $(BY)

schema: .venv/installed  ## Write params.schema.json, by which editors check params.yaml
	python src/schema.py

s3: .venv/installed-dev  ## Start an S3 server on loopback with a small simulated release, for trying out
	python tests/s3_server.py .scratch/s3

clean:  ## Delete the environment and all that can be recomputed
	rm -rf .venv .scratch .dvc/cache .dvc/tmp data models report report.md

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt | .venv/bin/python
	pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
