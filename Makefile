# Everything stands on `setup`, which takes minutes the first time and under a second afterwards.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON_IN_VENV := .venv/bin/python
NIGHTSHIFT := .venv/bin/nightshift
# Each test has a home of its own, so they run side by side, one worker a core; real models have the machine alone.
FAST := -m "not slow and not browser" --numprocesses auto --dist worksteal

.PHONY: help setup check test test-fast test-faults demo run nightly bench-learning bench-answer base-confidence clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## Make .venv with everything in it, or see that nothing is missing
	@bash .ci/setup.sh

check: setup ## Lint with ruff and check the types with mypy
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m mypy

test: setup ## Run every test but those of faults, the slow and the browser ones too (three quarters of an hour on two slow cores)
	@bash .ci/setup.sh browser
	$(PYTHON_IN_VENV) -m pytest $(FAST)
	$(PYTHON_IN_VENV) -m pytest -m "(slow or browser) and not faults"

test-fast: setup ## Run the tests that need no real model and no browser (two and a half to four minutes on two slow cores)
	$(PYTHON_IN_VENV) -m pytest $(FAST)

test-faults: setup ## Kill and starve the night, the index and the models at hundreds of points (about half an hour)
	rm -f tests/bench/faults.json
	FAULTS_REPORT=tests/bench/faults.json $(PYTHON_IN_VENV) -m pytest -m faults; status=$$?; \
		$(PYTHON_IN_VENV) tests/fault_drivers.py table tests/bench/faults.json; exit $$status

demo: setup ## Start the local Slack workspace with the demo company and print its URL
	$(NIGHTSHIFT) demo

run: setup ## Connect the bot to Slack (needs SLACK_BOT_TOKEN and SLACK_APP_TOKEN)
	$(NIGHTSHIFT) serve

nightly: setup ## Train on the approved corrections now, as cron does by night
	$(NIGHTSHIFT) nightly

bench-learning: setup ## Measure learning and forgetting: three seeds, five nights, speed, growth (five hours on 2 slow cores)
	for part in learning nights frontier training_speed growth; do $(PYTHON_IN_VENV) -m tests.bench.$$part || exit 1; done

bench-answer: setup ## Measure finding, quoting and exact copying (an hour on 2 slow cores; run it alone)
	$(PYTHON_IN_VENV) -m tests.bench.answer

base-confidence: setup ## Fit the confidence that ships, from the demo company's questions
	$(PYTHON_IN_VENV) -m learning.ship

clean: ## Remove the environment, caches and builds; what the bot knows (data/) stays
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
