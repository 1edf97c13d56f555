# SPDX-License-Identifier: GPL-2.0-or-later
#
# The developer's commands. Each sets up what it lacks first (.ci/setup), once.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Set-up of one environment; what can go in parallel is left to ninja.
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

BIN := $(CURDIR)/.venv/bin
CMAKE := $(BIN)/cmake -S native -G Ninja --log-level=WARNING \
	-Wno-unused-cli -DCMAKE_MAKE_PROGRAM=$(BIN)/ninja \
	-DPython_EXECUTABLE=$(BIN)/python
CMAKE_BUILD := $(BIN)/cmake --build
PYTEST := $(BIN)/python -m pytest
SOURCES_C := $(wildcard native/*/*.[ch] tests/native/*.[ch] tests/fuzz/*.[ch] tests/bench/*/*.[ch] tests/qemu/*/*.[ch])

# ctuuninitvar takes the address of an array in a fresh structure for a use of
# its contents; -Wall sees the real ones.
CPPCHECK := --quiet --error-exitcode=1 --std=c11 -j2 --inline-suppr \
	--enable=warning,performance,portability --library=python \
	--suppress=missingIncludeSystem --suppress=ctuuninitvar \
	-D_GNU_SOURCE -D__linux__ -I native --cppcheck-build-dir=build/cppcheck

# Modules for one Python only, of earlier builds: found before ours for all of them
OUTDATED := $(wildcard passtpy/_native.cpython-* build/debug/passtpy/_native.cpython-*)
# Command for `make run`; empty opens a shell
CMD ?=
# Iterations of each fuzzer in `make asan`; seconds of each target in `make fuzz`
ASAN_COUNT ?= 1000000
FUZZ_SECONDS ?= 300
# How long daemons are used in `make soak`
SOAK_SECONDS ?= 3600
# Tests that `make test` runs side by side: most wait more than they work
WORKERS ?= 4
# Arguments for pytest (test, unit) and for the benchmark (bench)
ARGS ?=
export CMD
export UBSAN_OPTIONS := print_stacktrace=1
# Administrators' tools (nft, ethtool) are not on everybody's path.
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: help
help: ## Show these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile \
		| expand -t 20

.PHONY: run
run: build ## Open a shell, or run CMD='…', in a namespace connected by passtpy
	@if [ -n "$$CMD" ]; then \
		exec $(BIN)/passtpy-pasta --config-net -- sh -c "$$CMD"; \
	else \
		exec $(BIN)/passtpy-pasta --config-net -- "$${SHELL:-/bin/sh}"; \
	fi

.PHONY: build
build: build/release/build.ninja ## Compile what changed, into the tree
	@rm -f $(OUTDATED)
	@$(CMAKE_BUILD) build/release -- --quiet
	@$(BIN)/python -m compileall -q passtpy

.PHONY: test
test: .venv/.ready-test build/qemu/ready build native-debug native-asan native-fuzz native-bench ## Run every test (C under ASan and UBSan)
	@$(PYTEST) -n $(WORKERS) $(ARGS)

.PHONY: unit
unit: .venv/.ready-unit build native-debug ## Run the tests that need no root
	@$(PYTEST) $(wildcard tests/unit tests/datapath tests/house) $(ARGS)

.PHONY: lint
lint: .venv/.ready-lint native-debug ## Check style, types and what static analysis sees
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	cd build/debug && MYPYPATH=. $(BIN)/python -m mypy.stubtest passtpy._native
	$(if $(SOURCES_C),$(BIN)/clang-format --dry-run -Werror $(SOURCES_C))
	@mkdir -p build/cppcheck
	cppcheck $(CPPCHECK) -I tests/native native tests/native tests/fuzz tests/bench/load tests/qemu/guest

.PHONY: format
format: .venv/.ready-lint ## Lay out all sources as lint wants them
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format
	$(if $(SOURCES_C),$(BIN)/clang-format -i $(SOURCES_C))

.PHONY: asan
asan: native-asan ## Run the C tests and long fuzzing under ASan and UBSan
	@tests/run-native build/asan $(ASAN_COUNT)

.PHONY: fuzz
fuzz: native-fuzz ## Fuzz by coverage (FUZZ_SECONDS for each target; ARGS: which)
	@$(BIN)/python -m tests.fuzz run --seconds $(FUZZ_SECONDS) $(ARGS)

.PHONY: fuzz-coverage
fuzz-coverage: native-fuzz ## List what the inputs of fuzzing reach, by source file
	@$(BIN)/python -m tests.fuzz coverage $(ARGS)

.PHONY: soak
soak: .venv/.ready-test build ## Use daemons for SOAK_SECONDS, and tell what has grown
	@$(BIN)/python -m tests.soak $(SOAK_SECONDS)

.PHONY: clients
clients: .venv/.ready-test build/qemu/ready build/clients/ready build ## Use podman 5, libvirt 11 and others, in a Debian 13 made for it
	@PASSTPY_CLIENTS=1 $(PYTEST) tests/clients $(ARGS)

.PHONY: bench
bench: .venv/.ready-bench build native-debug native-bench ## Measure us, pasta, slirp4netns and a plain veth
	@$(BIN)/python -m tests.bench $(ARGS)

.PHONY: calls
calls: .venv/.ready-test build ## Name every system call that our table allows and no test needs
	@$(BIN)/python -m tests.calls $(ARGS)

.PHONY: docs
docs: .venv/.ready-unit ## Check that links, commands and names in the docs are real
	@$(PYTEST) tests/house/test_docs.py $(ARGS)

# FILE=MODULE,WORD...: pages that are made of tables of the code
PAGES := options.md=passtpy.config.document \
	compatibility.md=passtpy.config.differences \
	$(foreach name,pasta passt,passtpy-$(name).1=passtpy.config.manpage,$(name)) \
	passtpy.1=passtpy.client.manpage,passtpy \
	$(foreach name,pesto slirp4netns cni,passtpy-$(name).1=passtpy.client.manpage,$(name)) \
	control-verbs.md=passtpy.control.document \
	openapi.json=passtpy.control.document,openapi \
	policy.schema.json=passtpy.egress.schema \
	events.md=tests.house.events

.PHONY: pages
pages: .venv/.ready-unit build ## Write those docs again that are made of tables of the code
	@for page in $(PAGES); do \
		words=$${page#*=}; \
		$(BIN)/python -m $${words//,/ } >build/page; \
		cmp -s build/page docs/$${page%%=*} || cp build/page docs/$${page%%=*}; \
	done
	@$(BIN)/python -m tests.house.tcp_steps

# A link that leads nowhere, or a page that no list has, is an error.
.PHONY: site
site: .venv/.ready-site ## Make a site of the docs, in build/site
	@$(BIN)/sphinx-build -q -W --keep-going -n -j auto -c docs/site docs build/site
	@echo "build/site/index.html"

# Where to: DESTDIR, PREFIX, PYTHON (.packaging/install)
.PHONY: install
install: .venv/.ready-build ## Install below PREFIX (/usr/local), with the libraries it needs
	@.packaging/install

.PHONY: deb
deb: .venv/.ready-package ## Build a Debian package into dist/
	@.packaging/deb

.PHONY: rpm
rpm: .venv/.ready-package ## Build an RPM package into dist/
	@.packaging/rpm

.PHONY: wheels
wheels: .venv/.ready-wheels ## Build wheels that need no compiler, and the sdist, into dist/
	@.packaging/wheels

.PHONY: clean
clean: ## Remove what was built (the environment in .venv stays)
	rm -rf build dist passtpy/_native.*.so .mypy_cache .pytest_cache \
		.ruff_cache .hypothesis
	find passtpy tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Remove .venv too
	rm -rf .venv

# Not there when it could not be fetched: then the next one tries again.
build/qemu/ready: .ci/setup-guest
	@.ci/setup-guest

build/clients/ready: .ci/setup-clients pyproject.toml
	@.ci/setup-clients

# --- Variants -----------------------------------------------------------------
# Each has its own folder, so that going from one to another rebuilds nothing.

# The same Python files with a module that checks its invariants after each
# step and can lose frames: first on PYTHONPATH, build/debug is another passtpy.
.PHONY: native-debug
native-debug: build/debug-native/build.ninja
	@$(CMAKE_BUILD) build/debug-native -- --quiet
	@find build/debug/passtpy -xtype l -delete
	@for entry in passtpy/*; do \
		case $$entry in */__pycache__|*.so) ;; \
		*) ln -sfn "../../../$$entry" build/debug/passtpy/ ;; esac; \
	done

.PHONY: native-asan
native-asan: build/asan/build.ninja
	@$(CMAKE_BUILD) build/asan -- --quiet

# With clang: libFuzzer needs its counters, coverage its own.
.PHONY: native-fuzz
native-fuzz: .venv/.ready-fuzz build/fuzz/build.ninja
	@$(CMAKE_BUILD) build/fuzz -- --quiet

.PHONY: native-bench
native-bench: build/bench/build.ninja
	@$(CMAKE_BUILD) build/bench --target benches -- --quiet

build/release/build.ninja: OPTIONS = -DPASSTPY_OUTPUT=$(CURDIR)/passtpy

build/debug-native/build.ninja: OPTIONS = \
	-DPASSTPY_OUTPUT=$(CURDIR)/build/debug/passtpy -DPASSTPY_LTO=OFF \
	-DPASSTPY_DEBUG_CHECKS=ON -DPASSTPY_FAULTS=ON

build/asan/build.ninja: OPTIONS = -DPASSTPY_MODULE=OFF -DPASSTPY_TESTS=ON \
	-DPASSTPY_SANITIZE=address,undefined \
	-DPASSTPY_DEBUG_CHECKS=ON -DPASSTPY_FAULTS=ON

build/fuzz/build.ninja: OPTIONS = -DPASSTPY_MODULE=OFF -DPASSTPY_GUIDED=ON \
	-DCMAKE_C_COMPILER=clang -DPASSTPY_WERROR=OFF \
	-DPASSTPY_SANITIZE=fuzzer-no-link,address,undefined \
	-DPASSTPY_DEBUG_CHECKS=ON -DPASSTPY_FAULTS=ON

build/bench/build.ninja: OPTIONS = -DPASSTPY_MODULE=OFF -DPASSTPY_TESTS=ON

VARIANTS := $(patsubst %,build/%/build.ninja,release debug-native asan fuzz bench)

$(VARIANTS): native/CMakeLists.txt | .venv/.ready-build
	@echo "configuring $(@D)"
	@$(CMAKE) -B $(@D) $(OPTIONS) >/dev/null
	@touch $@

READY := $(addprefix .venv/.ready-,build unit test lint fuzz bench package wheels site)

$(READY): .venv/.ready-%: pyproject.toml passtpy/__init__.py .ci/setup
	@.ci/setup $*
