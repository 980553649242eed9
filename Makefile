# All commands, for developers and CI. Each runs in .venv, which is made from
# poetry.lock when it is missing or out of date.

PY := .venv/bin/python
# Another PYTHON means another environment.
STAMP := .venv/installed-$(subst /,-,$(PYTHON))

.DEFAULT_GOAL := help
.PHONY: help install lock run test system pure mutants lint types format bench stress doors dialect crash twin conformance chart demo \
	cluster cluster-crash clients freqtrade hostile fuzz soak simulate event-crash pythons screens screen-tests screen-soak frames spectators clean

help: ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' $(MAKEFILE_LIST) | expand -t 18

install: $(STAMP) ## Make .venv; PYTHON=python3.13 chooses the interpreter

$(STAMP): pyproject.toml poetry.lock
	PYTHON="$(PYTHON)" .ci/bootstrap
	@touch $@

lock: ## Update poetry.lock after a change to pyproject.toml
	PYTHON="$(PYTHON)" .ci/bootstrap lock

run: $(STAMP) ## Start the exchange
	$(PY) server.py

demo: $(STAMP) ## Start the exchange and house bots; PRESET=challenge-2020
	.ci/demo

test: $(STAMP) ## Run the tests but those of `make system`; gets Chromium if missing
	@.ci/browser >/dev/null
	$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal -m "not system" test

system: $(STAMP) ## Run the tests of whole systems; gets browsers and proxies if missing
	@.ci/browser >/dev/null
	@.ci/browser firefox >/dev/null
	@.ci/proxies >/dev/null
	@.ci/namespaces >/dev/null
	$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal -m system test

pure: $(STAMP) ## Run the tests without sockets and processes; about 15 s
	$(PY) -m pytest -q -n auto --maxprocesses 4 --dist worksteal -m pure test

mutants: $(STAMP) ## Break each guarantee and run its tests, which must fail
	$(PY) -m test.mutants

lint: $(STAMP) ## Check format, style and order of imports
	$(PY) -m black --line-length 79 --check .
	$(PY) -m flake8 .
	$(PY) -m isort --check .

types: $(STAMP) ## Check the types; those of the page where node and npm are
	$(PY) -m mypy
	@.ci/types

format: $(STAMP) ## Format the code and sort the imports
	$(PY) -m black --line-length 79 .
	$(PY) -m isort .

bench: $(STAMP) ## Measure the speed; AGAINST=FOLDER is another checkout
	$(PY) -m util.measure.bench $(if $(AGAINST),--against $(AGAINST))

stress: $(STAMP) ## Measure how many orders per minute an exchange handles
	$(PY) -m util.measure.stress --start

doors: $(STAMP) ## Measure orders through each door beside the native one
	$(PY) -m util.measure.doors

dialect: $(STAMP) ## Measure single orders through the exchange dialect
	$(PY) -m util.measure.dialect

crash: $(STAMP) ## Kill the exchange 200 times and check what is recovered
	$(PY) -m util.measure.crash 200 $(or $(SEED),1)

cluster: $(STAMP) ## Start three nats-servers, a primary, a standby and an edge
	$(PY) -m util.measure.cluster

cluster-crash: $(STAMP) ## Break a cluster 150 times and check what it promised
	$(PY) -m util.measure.cluster_crash $(or $(CYCLES),150) $(or $(SEED),1)

event-crash: $(STAMP) ## Kill parts of events of 3 rounds every 5 s, and check their ends
	$(PY) -m util.measure.event_crash 3 $(or $(SEED),1)
	$(PY) -m util.measure.event_crash 3 $(or $(SEED),1) --league

spectators: $(STAMP) ## Measure what 3,000 readers cost a primary, and edges
	$(PY) -m util.measure.spectators

twin: $(STAMP) ## Compare book and engine with naive ones, 2.5 million steps
	$(PY) -m util.measure.twin 1500000 $(or $(SEED),1)
	$(PY) -m util.measure.twin_market 1000000 $(or $(SEED),1)

conformance: $(STAMP) ## Compare how orders are matched with published results
	$(PY) -m util.measure.conformance

chart: $(STAMP) ## Check the Helm chart; gets its tools at the first run
	PYTHON="$(PYTHON)" .ci/chart

hostile: $(STAMP) ## Attack an exchange and measure the delays of other clients
	$(PY) -m util.measure.hostile

fuzz: $(STAMP) ## Make 100,000 hostile connections to an exchange
	$(PY) -m util.measure.fuzz 100000 $(or $(SEED),1)

soak: $(STAMP) ## Trade for SECONDS=14400 and look for growth of memory
	$(PY) -m util.measure.soak $(or $(SECONDS),14400) $(or $(SEED),1)

pythons: $(STAMP) ## Compare the digests under the other Pythons on the PATH
	.ci/pythons

simulate: $(STAMP) ## Let 10,000 exchanges live through faults, in virtual time
	$(PY) -m util.simulate.worlds 10000 $(or $(SEED),1)

screens: $(STAMP) ## Make pictures of every state of the page in screens/
	@.ci/browser >/dev/null
	$(PY) -m test.doors.screens

screen-tests: $(STAMP) ## Run the longer tests of the page, axe-core too
	@.ci/browser >/dev/null
	$(PY) -m pytest -q test/doors/screen_tests.py

screen-soak: $(STAMP) ## Watch the page for SECONDS=3600, at CHANGES=50 and TRADES=5 a second
	@.ci/browser >/dev/null
	$(PY) -m test.doors.screen_soak $(or $(SECONDS),3600) $(or $(CHANGES),50) $(or $(TRADES),5)

frames: $(STAMP) ## Measure frames of the page; AGAINST=FOLDER is another checkout
	@.ci/browser >/dev/null
	$(PY) -m test.doors.frames 30 $(AGAINST)

clients: $(STAMP) ## Trade with unmodified ccxt and python-binance; gets them first
	.ci/clients

freqtrade: $(STAMP) ## Let freqtrade trade for some minutes; gets it first
	.ci/freqtrade

clean: ## Remove .venv and all caches
	rm -rf .venv .mypy_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
