# `make help` lists what can be made. Everything is installed in .venv; nothing outside this folder is touched, except
# that root gets a missing system library of the database server from apt-get.

PYTHON ?= python3
APP ?= 1
IMAGES ?=
NAME ?=
PORT ?= 5151

VENV := .venv/bin
SHELL := /bin/bash

# The demo keeps its database, plugins and caches to itself; DEMO_HOME= shows it in your own FiftyOne instead.
DEMO_HOME ?= .selfsame
DEMO = $(VENV)/python -m fiftyone_selfsame.fixtures.demo $(if $(DEMO_HOME),--home "$(DEMO_HOME)") \
	$(if $(NAME),--name "$(NAME)") --port $(PORT)

.DEFAULT_GOAL := help
.PHONY: help setup demo app test test-slow bench gpu lint lock

help: ## this list
	@echo "make TARGET, where TARGET is one of:"
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

setup: ## install all that is needed into .venv, in the versions of requirements.lock; PYTHON=python3.12 picks one
	@$(PYTHON) .ci/set_up.py

demo: setup ## find duplicates in photographs and serve the App; IMAGES=/folder: your own, APP=0: table only, PORT=5151
	@$(DEMO) $(if $(IMAGES),--images "$(IMAGES)") $(if $(filter 0,$(APP)),--no-app)

app: setup ## serve the App on what the demo made, without computing anything; NAME=dataset, PORT=5151
	@$(DEMO) --only-app

test: setup ## the tests, in minutes; ARGS="-k foreground" narrows them down, ARGS="-n 0" runs them in one process
	@OMP_NUM_THREADS=1 $(VENV)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-slow: setup ## the tests that take minutes each: full-size models, big inputs
	@$(VENV)/python -m pytest -m "slow and not gpu" $(ARGS)

bench: setup ## every benchmark on the photographs in this repository; DATA=/folder: another one with a manifest
	@$(VENV)/python -m fiftyone_selfsame.benchmarks.quality identity --data $(DATA)
	@$(VENV)/python -m fiftyone_selfsame.benchmarks.quality neardup --data $(DATA)
	@$(VENV)/python -m fiftyone_selfsame.benchmarks.speed ffa
	@$(VENV)/python -m fiftyone_selfsame.benchmarks.speed duplicates
	@$(VENV)/python -m fiftyone_selfsame.benchmarks.speed claid
	@$(VENV)/python -m fiftyone_selfsame.benchmarks.speed matcher
	@$(VENV)/python -m fiftyone_selfsame.benchmarks.speed correspondence
	@$(VENV)/python -m fiftyone_selfsame.benchmarks.quality search --data fixtures/scenes/tiny/search
bench: DATA ?= fixtures/demo_images

gpu: setup ## the tests that need a CUDA device
	@$(VENV)/python -m pytest -m gpu $(ARGS)

lint: setup ## ruff on everything, mypy on brain/
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy brain

lock: setup ## resolve requirements.lock anew from pyproject.toml, for Python 3.10 and newer
	@$(VENV)/python -m pip install -q uv
	@$(VENV)/uv pip compile pyproject.toml --extra dev --extra bench --extra faiss --universal --python-version 3.10 --upgrade \
		--no-emit-package typing --no-annotate --custom-compile-command "make lock" --quiet -o requirements.lock
