# laterne: every target sets up what it needs by itself. README.md says what each is for.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ORACLES := .oracles
PEER := .peer
SENSORTHINGS := .sensorthings

.PHONY: setup demo test soak fuzz bench check lock clean

setup: $(READY)

# Hashes are checked: nothing but what the lock file names gets in.
$(READY): requirements.lock pyproject.toml
	@.ci/debian python3-venv
	@$(PYTHON) -c 'import sys; sys.exit("laterne needs Python 3.11 or newer, $(PYTHON) is %d.%d: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# The second opinion on our signatures: its pins clash with ours, so it lives apart.
$(ORACLES)/.ready: requirements-oracles.lock | $(READY)
	$(PYTHON) -m venv --clear $(ORACLES)
	$(ORACLES)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-oracles.lock
	@touch $@

# Whom the gateway is measured beside: its pins clash with ours, too.
$(PEER)/.ready: requirements-peer.lock | $(READY)
	$(PYTHON) -m venv --clear $(PEER)
	$(PEER)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-peer.lock
	@touch $@

# A SensorThings server to deliver to, in the tests and in `make demo ARGS="--platform sensorthings"`.
$(SENSORTHINGS)/.ready: requirements-sensorthings.lock | $(READY)
	$(PYTHON) -m venv --clear $(SENSORTHINGS)
	$(SENSORTHINGS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-sensorthings.lock
	@touch $@

demo: $(READY) $(if $(findstring sensorthings,$(ARGS)),$(SENSORTHINGS)/.ready)
	$(BIN)/laterne demo $(ARGS)

# ARGS is passed on to pytest: make test ARGS="-k roster". WORKERS: processes that run tests; 0 runs them in one, in order.
WORKERS ?= $(shell nproc)
test: $(READY) $(ORACLES)/.ready $(SENSORTHINGS)/.ready
	@.ci/debian mosquitto softhsm2 systemd systemd-container dbus libfaketime
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# What takes too long for every change: every fault sweep with ten times the cases (an hour without broker for boards with
# the real firmware), then noise for a minute and properties, with examples nobody has tried. Seeds are printed.
# LATERNE_OUTAGE_S=86400: a day without broker. ARGS="-k board": only some.
LATERNE_OUTAGE_S ?= 3600
SOAK = PATH="$(CURDIR)/$(BIN):$$PATH" LATERNE_FAULTS=10 LATERNE_OUTAGE_S=$(LATERNE_OUTAGE_S) LATERNE_NOISE_S=60 \
	LATERNE_SEED=random $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -o timeout=14400
soak: $(READY) $(ORACLES)/.ready $(SENSORTHINGS)/.ready
	@.ci/debian mosquitto softhsm2
	$(SOAK) --sweeps tests hil_tests $(ARGS)
	$(SOAK) tests/protocol hil_tests/test_noise_on_one_line* hil_tests/test_broken_variants* $(ARGS)

# make fuzz SECONDS=3600: each target in turn; what is found is kept in build/fuzz with the command that repeats it.
SECONDS ?= 600
fuzz: $(READY) $(ORACLES)/.ready
	$(BIN)/python tests/fuzz/fuzz.py all --seconds $(SECONDS) --corpus build/fuzz $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python firmware/check_types.py

bench: $(READY) $(ORACLES)/.ready $(PEER)/.ready $(SENSORTHINGS)/.ready
	@.ci/debian mosquitto
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/benchmarks/tables.py $(ARGS)

# Writes the lock files anew from pyproject.toml, without the names of any host.
PIP_COMPILE = $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options
lock: $(READY)
	$(PIP_COMPILE) --extra emulator --extra hsm --extra development -o requirements.lock pyproject.toml
	$(PIP_COMPILE) -o requirements-oracles.lock .ci/oracles.in
	$(PIP_COMPILE) -o requirements-peer.lock .ci/peer.in
	$(PIP_COMPILE) -o requirements-sensorthings.lock .ci/sensorthings.in

clean:
	rm -rf $(VENV) $(ORACLES) $(PEER) $(SENSORTHINGS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
