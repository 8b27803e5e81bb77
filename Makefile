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

demo: $(READY)
	$(BIN)/laterne demo $(ARGS)

# ARGS is passed on to pytest: make test ARGS="-k roster". WORKERS: processes that run tests; 0 runs them in one, in order.
WORKERS ?= $(shell nproc)
test: $(READY) $(ORACLES)/.ready $(SENSORTHINGS)/.ready
	@.ci/debian mosquitto softhsm2 systemd systemd-container dbus
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# What takes too long for every change: ten times the faults, noise for a minute, an hour without broker, and properties
# with examples nobody has tried. Seeds are printed.
soak: $(READY) $(ORACLES)/.ready
	@.ci/debian mosquitto softhsm2
	PATH="$(CURDIR)/$(BIN):$$PATH" LATERNE_FAULTS=10 LATERNE_OUTAGE_S=3600 LATERNE_NOISE_S=60 LATERNE_SEED=random \
		$(BIN)/python -m pytest -o timeout=7200 tests/protocol hil_tests/test_noise_on_one_line_costs_the_others_nothing.py \
		hil_tests/test_broker_faults* hil_tests/test_line_faults* hil_tests/test_the_buffer* hil_tests/test_a_gateway_killed* \
		hil_tests/test_board_backlog* hil_tests/test_broken_variants* hil_tests/test_a_long_outage* $(ARGS)

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
