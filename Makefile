# Two commands matter: `make repro` and `make test`. Each sets up what it needs.
PYTHON ?= python3
# What `make report` compares with.
BASE ?= main
# The score by which `make table` sorts.
BY ?= challenge1.nrmse
# What installs requirements*.txt. Where only pip knows the package index: INSTALL="pip install --quiet".
INSTALL ?= uv pip install --quiet --compile-bytecode --python .venv
# DVC runs `python` from the PATH (in queued experiments too), so the environment comes first on it.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Two of the same instant would write the same environment.
.NOTPARALLEL:

.PHONY: help repro plots table report figures docs test lint format campaign lock deps schema s3 clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

repro: .venv/installed  ## Set up, run what changed of the pipeline, print the main scores
	@python src/repro.py

plots: .venv/installed  ## Draw all results in one page, report/page.html, which needs no network
	python src/page.py

table: .venv/installed  ## List the experiments from best to worst; BY=challenge1.nrmse or another score
	python src/table.py $(BY)

report: .venv/installed  ## Write what this branch changes since BASE=main to report.md
	python src/report.py --base $(BASE)

figures: .venv/installed  ## Write the pictures and numbers of README.md and docs/ from the results in git
	python src/figures.py

docs: .venv/installed-dev  ## Build the pages of docs/ as a site, report/site/index.html
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

test: lint  ## Set up, run the checks of `make lint` and the tests
	pytest --numprocesses=2 --dist=loadscope --no-loadscope-reorder

lint: .venv/installed-dev  ## Check format, code, types and spelling
	ruff format --check .
	ruff check .
	ty check --output-format concise --python .venv
	git ls-files -z | xargs -0 codespell

format: .venv/installed-dev  ## Format the code and mend what ruff can mend
	ruff format .
	ruff check --fix .

campaign: .venv/installed-dev  ## Run the long tests: stages killed at any moment, every command of the docs
	if command -v npm >/dev/null; then npm install --silent --no-save axe-core@4.14.1; fi
	pytest -m campaign

lock: .venv/installed-dev  ## Pin what pyproject.toml needs in requirements*.txt; UPGRADE=--upgrade for the newest
	./lock.sh $(UPGRADE)

deps: .venv/installed-dev  ## Write the imports of every stage into dvc.yaml
	python tests/declarations.py

schema: .venv/installed  ## Write params.schema.json, by which editors check params.yaml
	python src/schema.py

s3: .venv/installed-dev  ## Start an S3 server on this machine with a small simulated release
	python tests/s3_server.py .scratch/s3

clean:  ## Delete the environment and all that can be computed again
	rm -rf .venv .scratch .dvc/cache .dvc/tmp data models report report.md

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

# First PyTorch by pip, whose settings say where a CPU build is; uv keeps what fits and is quicker for all the rest.
.venv/installed: requirements.txt requirements-cuda.txt | .venv/bin/python
	pip install --quiet --disable-pip-version-check --constraint requirements.txt torch uv
	$(INSTALL) --requirement requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(INSTALL) --requirement requirements-dev.txt
	touch $@
