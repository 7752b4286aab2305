# The one way in: setting up, running, testing and measuring. `make help` lists it.
#
# Nothing here needs more than Debian 12 with make. What is missing comes from apt (as root, or through sudo) and, hashed
# and pinned, from the Python package index that pip is configured for.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PREFIX ?= $(CURDIR)/var

RUN_PACKAGES := python3-venv nmap libpcap0.8
# binutils: PyInstaller and stripping · libpython: Debian's own python3 is not linked to it, a bundle is
BINARY_PACKAGES = $(RUN_PACKAGES) binutils $(shell $(PYTHON) -c \
  'import sys; sys.base_prefix == "/usr" and print("libpython%d.%d" % sys.version_info[:2])')
# iproute2: network namespaces · systemd: its calendar, held against ours · qemu: tests/machine
# groff, mandoc: the manual page · lintian: the Debian package · strace: which modules a built program loads
# debootstrap, systemd-container: tests/system
# dnsmasq, dhclient, avahi, lldpd, ping, openssl: who talks in the tests of the inventory · tshark: what they said
# tshark, nfdump: what packets and flows of any kind are, held against the index · openssh: a capture is watched through it
# nginx, redis (its program is in redis-tools), nftables: what is scanned, and what stands before it · ndiff: held against ours
# msmtp: a mail system
TEST_PACKAGES = $(BINARY_PACKAGES) groff-base mandoc lintian strace tzdata tcpdump iproute2 curl systemd qemu-system-x86 \
  debootstrap systemd-container dnsmasq-base isc-dhcp-client avahi-daemon lldpd iputils-ping openssl tshark nfdump chromium \
  openssh-client openssh-server nginx-light redis-tools nftables ndiff msmtp-mta
BENCH_PACKAGES := $(RUN_PACKAGES) runit s6
# wireshark-common: dumpcap, capinfos
BENCH_CAPTURE_PACKAGES := $(RUN_PACKAGES) iproute2 tcpdump wireshark-common netsniff-ng tcpreplay softflowd nfdump pmacct \
  stenographer curl openssl
BENCH_SCAN_PACKAGES := $(RUN_PACKAGES) iproute2 nftables tcpdump nginx-light openssh-server redis-tools dnsmasq-base openssl \
  masscan
BENCH_INSTALLED_PACKAGES = $(BINARY_PACKAGES) debootstrap systemd-container

# $(call packages,NAMES): installs the Debian packages that are missing; says nothing when none is. What serves something
# is not started by that (invoke-rc.d(8)): no port of this machine is taken.
define packages
@missing=(); \
for name in $(1); do \
  [[ $$(dpkg-query --show --showformat='$${db:Status-Status}' "$$name" 2>/dev/null) == installed ]] || missing+=("$$name"); \
done; \
(($${#missing[@]})) || exit 0; \
install="apt-get install --yes --no-install-recommends $${missing[*]}"; \
if ((EUID == 0)); then as_root=(); \
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then as_root=(sudo); \
else echo "These Debian packages are missing; as root: $$install" >&2; exit 1; fi; \
command -v apt-get >/dev/null || { echo "This is no Debian. Install what these packages hold: $${missing[*]}" >&2; exit 1; }; \
echo "Installing Debian packages: $${missing[*]}"; \
start_none='policy=/usr/sbin/policy-rc.d; [[ -e $$policy ]] || { trap "rm $$policy" EXIT; \
  printf "%s\n" "#!/bin/sh" "exit 101" >$$policy; chmod 755 $$policy; }'; \
output=$$("$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive bash -c "$$start_none; apt-get update && $$install" \
  2>&1 </dev/null) \
  || { printf '%s\n' "$$output" >&2; exit 1; }
endef

PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# sdnotify is published as source only: setuptools, pinned as the rest, builds it outside of pip's unpinned isolation.
PIP_INSTALL := $(PIP) install --require-hashes --no-build-isolation --use-pep517

.PHONY: help
help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand --tabs=24

.PHONY: run
run: run-packages $(VENV)/run ## the agent in the foreground on its own default declaration, below ./var
	@command=($(CURDIR)/$(BIN)/agentctl run --default); \
	if ((EUID != 0)); then \
	  if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then \
	    echo "Capturing needs CAP_NET_RAW: sudo gives it, and nothing else, to an agent that runs as $$(id -un)."; \
	    command=(sudo setpriv --reuid="$$(id -u)" --regid="$$(id -g)" --init-groups \
	      --inh-caps=-all,+net_raw --ambient-caps=-all,+net_raw --bounding-set=-all,+net_raw \
	      env HOME="$$HOME" PATH="$$PATH" LANG="$${LANG:-C.UTF-8}" PREFIX=$(PREFIX) "$${command[@]}"); \
	  else \
	    echo "Neither root nor sudo here: the capture will say that it lacks CAP_NET_RAW, everything else runs."; \
	  fi; \
	fi; \
	PREFIX=$(PREFIX) exec "$${command[@]}"

.PHONY: binary
binary: binary-packages $(VENV)/binary ## the program as one file, dist/agentctl, and in the form that is installed
	@echo "Building into dist/"
	@$(BIN)/python packaging/build.py

.PHONY: deb
deb: binary ## the Debian package, in dist/
	@echo "Packaging into dist/"
	@$(BIN)/python packaging/deb.py

.PHONY: install
install: binary ## build the program and install it on this host, below /srv (ARGS= goes to agentctl install)
	@if ((EUID == 0)); then as_root=(); else as_root=(sudo); fi; "$${as_root[@]}" ./dist/agentctl install $(ARGS)

.PHONY: test
test: test-packages $(VENV)/dev $(VENV)/binary ## every test; as root none is left out (ARGS= goes to pytest)
	@$(BIN)/pytest --numprocesses=auto $(ARGS)

.PHONY: test-system
test-system: test-packages $(VENV)/dev $(VENV)/binary ## only the tests on a booted systemd (ARGS= goes to pytest)
	@$(BIN)/pytest --numprocesses=auto tests/system $(ARGS)

.PHONY: lint
lint: venv-packages $(VENV)/dev ## linter, formatter and type checker
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { $(BIN)/ruff format --diff --quiet; exit 1; }
	@$(BIN)/mypy

.PHONY: bench
bench: bench-packages $(VENV)/run ## measure against supervisord, circus, runit and s6 (ARGS=--write keeps the result)
	@$(BIN)/python -m bench.supervision $(ARGS)

.PHONY: bench-installed
bench-installed: bench-installed-packages $(VENV)/binary ## measure the installed program on a booted systemd, as root (ARGS=--write)
	@$(BIN)/python -m bench.installed $(ARGS)

.PHONY: bench-capture
bench-capture: bench-capture-packages $(VENV)/run ## measure capturing against tcpdump, dumpcap and others, as root (ARGS=--write)
	@$(BIN)/python -m bench.capture $(ARGS)

.PHONY: bench-scan
bench-scan: bench-scan-packages $(VENV)/run ## measure scanning against nmap and others, as root (ARGS=--write)
	@$(BIN)/python -m bench.scan $(ARGS)

.PHONY: clean
clean: ## remove all that make has made, what the agent stored below ./var included
	@if [[ -s var/run/agent.pid ]] && kill -0 "$$(<var/run/agent.pid)" 2>/dev/null; then \
	  echo "The agent of this checkout still runs as process $$(<var/run/agent.pid): stop it first" >&2; exit 1; fi
	rm -rf $(VENV) .cache var build dist agent.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find agent bench packaging tests -name __pycache__ -prune -exec rm -rf {} +

.PHONY: lock
lock: venv-packages ## pin the newest versions that pyproject.toml allows into requirements/
	@$(PYTHON) -m venv --clear .cache/lock
	@.cache/lock/bin/pip --quiet --disable-pip-version-check install pip-tools
	@.cache/lock/bin/python requirements/lock.py

.PHONY: run-packages binary-packages test-packages bench-packages bench-installed-packages \
  bench-capture-packages bench-scan-packages venv-packages
run-packages:
	$(call packages,$(RUN_PACKAGES))

# Which libpython, is for Python to say: it has to be there by then.
binary-packages: run-packages
	$(call packages,$(BINARY_PACKAGES))

test-packages: run-packages
	$(call packages,$(TEST_PACKAGES))

bench-packages:
	$(call packages,$(BENCH_PACKAGES))

bench-installed-packages:
	$(call packages,$(BENCH_INSTALLED_PACKAGES))

bench-capture-packages:
	$(call packages,$(BENCH_CAPTURE_PACKAGES))

bench-scan-packages:
	$(call packages,$(BENCH_SCAN_PACKAGES))

venv-packages:
	$(call packages,python3-venv)

# Which lock the environment holds is noted beside it, so that a second run installs nothing.
$(VENV)/run: requirements/build.txt requirements/run.txt pyproject.toml agent/__init__.py | $(VENV)/bin/python
	@echo "Setting up $(VENV) from requirements/run.txt"
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/build.txt
	@$(PIP_INSTALL) -r requirements/run.txt
	@$(PIP) install --no-index --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	@touch $@

$(VENV)/dev: requirements/dev.txt $(VENV)/run
	@echo "Setting up $(VENV) from requirements/dev.txt"
	@$(PIP_INSTALL) -r requirements/dev.txt
	@touch $@

$(VENV)/binary: requirements/binary.txt $(VENV)/run
	@echo "Setting up $(VENV) from requirements/binary.txt"
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/binary.txt
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; make PYTHON=... names it")'
	@$(PYTHON) -m venv $(VENV)
