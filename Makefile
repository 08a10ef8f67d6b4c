# Each goal sets itself up: `make test` and `make demo` work on a fresh clone.
#
#   make demo    a notebook in the sandbox, in your terminal
#   make test    everything (as root: also as root and in a runc container)
#   make bench   what the sandbox costs, beside plain ipykernel (docs/performance.md); ARGS="--only connect"
#   make test-browser   JupyterLab in Chromium (a minute of downloads, a few minutes)
#   make test-workloads   native libraries, clusters and databases in the sandbox (large downloads, a few minutes;
#                as root: as an ordinary user and in a runc container, like `make test`)
#   make test-vm   limits by control group and the newest Landlock, in an emulated machine (a few minutes; LINUX=VMLINUZ)
#   make platforms   what holds on Debian's Linuxes, in emulated machines (docs/platforms.md; a quarter of an hour)
#   make test-gallery   notebooks of all kinds, shown by the sandboxed kernel and by ipykernel (large downloads, some minutes)
#   make test-peers   the tests of nbclient, ipykernel and jupyter_client, with our kernel and with ipykernel's
#   make lint    ruff (check, format), mypy --strict, the import table
#   make lock    requirements.lock and requirements-*.lock anew
#   make clean   remove what the above made

# The system's own Python: an ordinary user can read it, which a sandboxed kernel has to.
PYTHON ?= /usr/bin/python3
VENV ?= .venv
ARGS ?=

RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: demo test test-vm platforms test-workloads workloads-machine test-browser test-gallery gallery-table test-peers bench lint lock clean

demo: $(STAMP)
	$(RUN) -m sandboxed_kernel demo

test: $(STAMP)
	@$(RUN) tests/run_suite.py $(ARGS)

bench: $(STAMP)
	@$(RUN) -m benchmarks $(ARGS)

# In an environment of its own. torch is in no lock: which build fits is the machine's to say, for example
# TORCH="torch --index-url URL-OF-THE-PROCESSOR-ONLY-BUILDS". Needs PostgreSQL, Redis, Java and gcc: workloads-machine
# says which packages lack, before anything is fetched and again at every call. TORCH= leaves it out, and its tests.
TORCH ?= torch==2.13.0
HEAVY := .build/workloads
HEAVY_STAMP := $(HEAVY)/.installed$(if $(TORCH),-with-torch)
test-workloads: $(HEAVY_STAMP)
	$(if $(TORCH),,@echo "=== left out, since TORCH is empty: the tests marked torch")
	@$(HEAVY)/bin/python tests/run_suite.py --heavy $(if $(TORCH),,-m "not torch") $(ARGS)

workloads-machine:
	@$(PYTHON) tests/workloads/heavy/machine.py

$(HEAVY_STAMP): requirements.lock requirements-workloads.lock pyproject.toml | workloads-machine
	$(PYTHON) -m venv --clear $(HEAVY)
	$(HEAVY)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements.lock -r requirements-workloads.lock
	$(if $(TORCH),$(HEAVY)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH))
	$(HEAVY)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

platforms: $(STAMP)
	@$(RUN) tests/vm/platforms.py $(ARGS)

# Needs qemu-system-x86. LINUX is the vmlinuz of a Linux 6.12 or newer; without, the newest of Debian's is fetched.
QEMU ?= qemu-system-x86_64
test-vm: $(STAMP)
	linux="$(LINUX)"; linux=$${linux:-$$(bash tests/vm/newest_linux.sh .build/vm)} && \
	$(RUN) tests/vm/run.py --linux "$$linux" $(if $(LINUX),,--modules .build/vm/root) --qemu $(QEMU) $(ARGS)

# In an environment of its own, with the system's Chromium, as an ordinary user (uid 1000 when called as root). The
# screenshots stay with ARGS="--basetemp FOLDER", a folder that this user can make. As root all the same:
# .build/browser/bin/python -m pytest --stage browser tests/browser
BROWSER := .build/browser
test-browser: $(BROWSER)/.installed
	@$(BROWSER)/bin/python tests/run_suite.py --browser --only ordinary $(ARGS)

$(BROWSER)/.installed: requirements.lock requirements-browser.lock pyproject.toml
	@command -v chromium >/dev/null || { echo "no chromium on PATH. Debian: apt-get install chromium"; exit 1; }
	$(PYTHON) -m venv --clear $(BROWSER)
	$(BROWSER)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements.lock -r requirements-browser.lock
	$(BROWSER)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

# In an environment of its own, with the system's Chromium. ARGS="-k styler": these notebooks alone. ARGS="--every 5": a
# fifth of each subject, and what it takes to have every library. ARGS="--no-sandbox": what two plain runs differ in. The
# pictures stay with ARGS="--basetemp FOLDER".
GALLERY := .build/gallery
test-gallery: $(GALLERY)/.installed
	@$(GALLERY)/bin/python tests/run_suite.py --gallery --only ordinary $(ARGS)

$(GALLERY)/.installed: requirements.lock requirements-gallery.lock pyproject.toml
	@command -v chromium >/dev/null || { echo "no chromium on PATH. Debian: apt-get install chromium"; exit 1; }
	$(PYTHON) -m venv --clear $(GALLERY)
	$(GALLERY)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements.lock -r requirements-gallery.lock
	$(GALLERY)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

# docs/compatibility.md's tables of libraries, from the gallery's notebooks, its lock and its table of differences.
gallery-table: $(STAMP)
	$(RUN) -m tests.gallery.page

# In an environment of its own, with the peers' sdists: their tests. ARGS="--only ordinary -k nbclient".
PEERS := .build/peers
test-peers: $(PEERS)/.installed
	@$(PEERS)/bin/python tests/run_suite.py --peers $(ARGS)

$(PEERS)/.installed: requirements.lock requirements-peers.lock pyproject.toml
	$(PYTHON) -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements.lock -r requirements-peers.lock
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	$(PEERS)/bin/python tests/peers/fetch.py
	@touch $@

lint: $(STAMP)
	@$(RUN) tests/run_suite.py --only lint

# The lock first, then this tree without looking for anything else: only what the lock names is ever installed.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11 or newer. Write: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments. Debian, Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

lock: $(STAMP)
	$(PYTHON) -m venv .build/lock
	.build/lock/bin/pip install --quiet pip-tools
	.build/lock/bin/python tests/write_lock.py

clean:
	rm -rf $(VENV) .build .mypy_cache .ruff_cache .pytest_cache
