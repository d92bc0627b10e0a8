# The front door: `make help` lists the targets. All building is done by cargo; this file gives
# it names, and puts what it built where C programs look for it.

CARGO ?= cargo
PYTHON ?= python3
CARGO_TARGET_DIR ?= target
export CARGO CARGO_TARGET_DIR PYTHON CC CXX

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig
CMAKEDIR ?= $(LIBDIR)/cmake/ChannelLayer
MANDIR ?= $(PREFIX)/share/man
STRIP ?= strip

DEBUG := $(CARGO_TARGET_DIR)/debug
RELEASE := $(CARGO_TARGET_DIR)/release
STAMP := $(RELEASE)/.channel_layer.built

# The one place where the version is written is Cargo.toml; that of the SONAME is build.rs.
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)
# A program that is linked with the library asks for it by this name.
soname_of = readelf -d $(1)/libchannel_layer.so | sed -n 's/.*(SONAME).*\[\(.*\)\]$$/\1/p'

# What the static library needs beside itself, as rustc's `--print native-static-libs` lists it
# for this platform; tests/install links a program with it.
STATIC_LIBS := -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc

SOURCES := $(shell find src -name '*.rs') build.rs cbindgen.toml Cargo.toml Cargo.lock
# The headers of old releases stay as cbindgen wrote them.
C_SOURCES = $(filter-out tests/abi/%/channel_layer.h,$(shell find bindings/c bindings/cpp bindings/go docs tests benches -name '*.c' -o -name '*.h' -o -name '*.cpp' -o -name '*.hpp'))

.DELETE_ON_ERROR:
.PHONY: help build release demo test fleet wheel test-rabbitmq4 faults fuzz sanitize deps install \
	install-debug uninstall \
	deb check-deb big-endian docs docs-browser \
	bench bench-full bench-bindings bench-report bench-pure scale counts mutants abi deny sbom c-sources \
	fmt lint clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1|\2/p' Makefile \
		| awk -F'|' '{printf "%-18s%s\n", $$1, $$2}'

build: ## build the library for development, in target/debug
	$(CARGO) build --locked
	@$(call link_soname,$(DEBUG))

release: $(STAMP) ## build the library for use, in target/release (takes minutes)

# Cargo does not know of the SONAME, so that what it built could be linked with and not run.
link_soname = soname=$$($(call soname_of,$(1))) && [ -n "$$soname" ] \
	&& ln -sfn libchannel_layer.so "$(1)/$$soname"

# A stamp of our own, since cargo leaves a library that is still good as old as it is. So that
# `sudo make install` after `make release` runs no compiler as root. A library that is newer than the
# stamp comes from a cargo that was called without the flags of that script.
$(STAMP): $(SOURCES) packaging/build_release.sh packaging/static_archive.sh $(wildcard $(RELEASE)/libchannel_layer.so)
	packaging/build_release.sh
	@packaging/static_archive.sh $(RELEASE)/libchannel_layer.a
	@$(call link_soname,$(RELEASE))
	@touch $@

demo: build ## run a chat on the library; HOST=amqp://… runs it between two processes
	@$(CC) -std=c11 -Wall -Wextra -Werror -g -pthread -Iinclude bindings/c/examples/chat.c \
		-o $(DEBUG)/chat.$$PPID -L$(DEBUG) -lchannel_layer -Wl,-rpath,"$$(cd $(DEBUG) && pwd)" \
		&& mv -f $(DEBUG)/chat.$$PPID $(DEBUG)/chat # in one step, since another run may be starting it
	@$(DEBUG)/chat $(HOST)

test: deps ## install what is missing and run all tests; STAGES="c interop" runs only those
	@$(PYTHON) tests/fixture/rabbitmq.py run -- tests/run.sh $(STAGES)

fleet: deps build ## let C, C++, Go, Ruby, Python and a Django consumer share a group; MEMBERS="c go"
	@$(PYTHON) tests/fixture/rabbitmq.py run -- $(PYTHON) tests/fleet/run.py $(MEMBERS)

wheel: release ## build the Python package with the library in it, in target/wheels
	@$(PYTHON) bindings/python/build_wheel.py $(RELEASE) $(CARGO_TARGET_DIR)/wheels

faults: deps release ## cause every fault in full, for an hour; ROW=name one, ROW=chaos SEED=n at random; SHORT=1
	@CHANNEL_LAYER_FAULTS_LIBRARY=$(RELEASE) $(PYTHON) tests/faults/run.py \
		$(if $(SHORT),--short) $(if $(SEED),--seed $(SEED)) $(addprefix --without ,$(WITHOUT)) \
		$(addprefix --step ,$(STEPS)) $(ROW)

# The rows of tests/faults in which a broker, a node or a connection is lost: what versions differ in.
test-rabbitmq4: VERSIONS ?= 4.3 4.0
test-rabbitmq4: ROWS ?= cluster broker_killed routing_lost connection_reset
test-rabbitmq4: deps ## run what meets the broker on RabbitMQ 4, as root; VERSIONS="4.3 4.0-short", ROWS="…" of faults
	@CHANNEL_LAYER_FAULTS_ROWS="$(ROWS)" tests/rabbitmq4/run.sh $(VERSIONS)

fuzz: ## run each fuzzer for SECONDS (600), or the one of TARGET; needs cargo-fuzz
	@FUZZ_SECONDS='$(SECONDS)' TARGET='$(TARGET)' fuzz/run.sh

sanitize: deps ## run the C tests under valgrind and sanitizers, an hour; PARTS="address" only that
	@tests/deps.sh sanitize
	@$(PYTHON) tests/fixture/rabbitmq.py run -- tests/sanitize/run.sh $(PARTS)

deps: ## install what the tests need and this machine lacks (Debian packages)
	@tests/deps.sh

# Below bindings/cpp/include, and so below INCLUDEDIR.
CPP_HEADERS = $(shell cd bindings/cpp/include && find * -name '*.hpp' | LC_ALL=C sort)
# The folders among them, those within others first.
CPP_FOLDERS = $(shell cd bindings/cpp/include && find * -depth -type d)
# Prints the names of the man pages; with -v folder=… it makes them too.
man_pages = awk -v version='$(VERSION)' $(1) -f packaging/man_pages.awk include/channel_layer.h README.md
# From the folder of the CMake files to another, so that the installed tree can be moved.
from_cmake = $$(packaging/relative_path.sh '$(CMAKEDIR)' '$(1)')
# 1 is for 32 bits and 2 for 64, says ELF.
elf_class = $$(od -An -tu1 -j4 -N1 $(RELEASE)/libchannel_layer.so)

# With the symbols, as a distribution wants them, which keeps them apart.
install-debug: KEEPS_SYMBOLS = yes
install-debug: install ## the same as install, with the symbols for debuggers

install: $(STAMP) ## install library, headers, pkg-config, CMake, man pages; PREFIX, LIBDIR, DESTDIR …
	install -d "$(DESTDIR)$(LIBDIR)" "$(DESTDIR)$(INCLUDEDIR)" "$(DESTDIR)$(PKGCONFIGDIR)" \
		"$(DESTDIR)$(CMAKEDIR)" "$(DESTDIR)$(MANDIR)/man3"
	install -m 755 $(RELEASE)/libchannel_layer.so \
		"$(DESTDIR)$(LIBDIR)/libchannel_layer.so.$(VERSION)"
	soname=$$($(call soname_of,$(RELEASE))) && [ -n "$$soname" ] \
		&& ln -sfn libchannel_layer.so.$(VERSION) "$(DESTDIR)$(LIBDIR)/$$soname" \
		&& ln -sfn "$$soname" "$(DESTDIR)$(LIBDIR)/libchannel_layer.so"
	install -m 644 $(RELEASE)/libchannel_layer.a "$(DESTDIR)$(LIBDIR)"
	$(if $(KEEPS_SYMBOLS),,$(STRIP) --strip-unneeded "$(DESTDIR)$(LIBDIR)/libchannel_layer.so.$(VERSION)" \
		&& $(STRIP) --strip-debug --enable-deterministic-archives "$(DESTDIR)$(LIBDIR)/libchannel_layer.a")
	install -m 644 include/channel_layer.h "$(DESTDIR)$(INCLUDEDIR)"
	set -e; for header in $(CPP_HEADERS); do \
		install -d "$(DESTDIR)$(INCLUDEDIR)/$$(dirname "$$header")"; \
		install -m 644 "bindings/cpp/include/$$header" "$(DESTDIR)$(INCLUDEDIR)/$$header"; \
	done
	sed -e 's|@PREFIX@|$(PREFIX)|' \
		-e 's|@LIBDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))|' \
		-e 's|@INCLUDEDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(INCLUDEDIR))|' \
		-e 's|@VERSION@|$(VERSION)|' -e 's|@STATIC_LIBS@|$(STATIC_LIBS)|' \
		packaging/channel_layer.pc.in > "$(DESTDIR)$(PKGCONFIGDIR)/channel_layer.pc"
	set -e; libdir=$(call from_cmake,$(LIBDIR)); includedir=$(call from_cmake,$(INCLUDEDIR)); \
	soname=$$($(call soname_of,$(RELEASE))); \
	for file in ChannelLayerConfig.cmake ChannelLayerConfigVersion.cmake; do \
		sed -e "s|@LIBDIR@|$$libdir|" -e "s|@INCLUDEDIR@|$$includedir|" \
			-e 's|@VERSION@|$(VERSION)|' -e "s|@SONAME@|$$soname|" \
			-e "s|@POINTER_BYTES@|$$(($(elf_class) * 4))|" \
			-e 's|@STATIC_LIBS@|$(shell echo $(STATIC_LIBS:-l%=%) | tr ' ' ';')|' \
			packaging/cmake/$$file.in > "$(DESTDIR)$(CMAKEDIR)/$$file"; \
	done
	date=$${SOURCE_DATE_EPOCH:+$$(date -u -d "@$$SOURCE_DATE_EPOCH" +%Y-%m-%d)} \
		&& $(call man_pages,-v date="$$date" -v folder="$(DESTDIR)$(MANDIR)/man3") > /dev/null
	chmod 644 "$(DESTDIR)$(PKGCONFIGDIR)/channel_layer.pc" "$(DESTDIR)$(CMAKEDIR)"/*.cmake \
		$(patsubst %,"$(DESTDIR)$(MANDIR)/man3/%",$(shell $(call man_pages)))
	@[ -n "$(DESTDIR)" ] || echo "Installed. Where $(LIBDIR) is new to the loader, run ldconfig."

uninstall: ## remove what install put there
	@# Links to this version, and what leads to them; those of another version are not ours.
	cd "$(DESTDIR)$(LIBDIR)" 2>/dev/null || exit 0; ours=; \
	for link in libchannel_layer.so*; do \
		[ -L "$$link" ] && [ "$$(basename "$$(readlink -m "$$link")")" = libchannel_layer.so.$(VERSION) ] || continue; \
		ours="$$ours $$link"; \
	done; \
	rm -f $$ours
	rm -f "$(DESTDIR)$(LIBDIR)/libchannel_layer.so.$(VERSION)" \
		"$(DESTDIR)$(LIBDIR)/libchannel_layer.a" \
		"$(DESTDIR)$(INCLUDEDIR)/channel_layer.h" \
		$(patsubst %,"$(DESTDIR)$(INCLUDEDIR)/%",$(CPP_HEADERS)) \
		"$(DESTDIR)$(PKGCONFIGDIR)/channel_layer.pc" \
		"$(DESTDIR)$(CMAKEDIR)/ChannelLayerConfig.cmake" \
		"$(DESTDIR)$(CMAKEDIR)/ChannelLayerConfigVersion.cmake" \
		$(patsubst %,"$(DESTDIR)$(MANDIR)/man3/%",$(shell $(call man_pages)))
	@# Folders that are this library's alone.
	@for folder in "$(DESTDIR)$(CMAKEDIR)" $(patsubst %,"$(DESTDIR)$(INCLUDEDIR)/%",$(CPP_FOLDERS)); do \
		[ ! -d "$$folder" ] || find "$$folder" -maxdepth 0 -empty -delete; \
	done

deb: release ## build the Debian packages, in target/deb
	@tests/deps.sh deb
	packaging/build_deb.sh

check-deb: ## try the packages of `make deb` in a Debian 12 of its own, as root
	@tests/deps.sh deb
	@tests/deb/run.sh

big-endian: ## run the tests of the wire on a big-endian machine that QEMU plays
	@tests/big_endian/run.sh

docs: ## build the guide and the reference of the C API, in target/docs
	@$(PYTHON) docs/site/quotes.py
	@docs/site/build.sh $(CARGO_TARGET_DIR)/docs

docs-browser: docs ## look at the pages in Chromium, phone to desktop; pictures in target/docs-pictures
	@"$$(tests/interop/environment.sh docs-browser-venv tests/docs/requirements.txt)/bin/python" \
		tests/docs/browser.py $(CARGO_TARGET_DIR)/docs $(CARGO_TARGET_DIR)/docs-pictures

bench: release ## measure the bars beside other ways to do it, in a quarter of an hour; OPTIONS="--only …"
	@tests/deps.sh bench
	@$(PYTHON) benches/run.py $(OPTIONS)

bench-full: release ## measure all there is, in 45 minutes
	@tests/deps.sh bench
	@$(PYTHON) benches/run.py --full $(OPTIONS)

bench-bindings: release ## measure C++, Go, Ruby and Python beside C and channels_rabbitmq, in 6 minutes
	@tests/deps.sh bench
	@$(PYTHON) benches/run.py --bindings $(OPTIONS)

bench-report: ## make BENCHMARKS.md and its chart anew from benches/results
	@$(PYTHON) benches/report.py

# The short form shows that the rig works, for which the debug library does.
scale: deps $(if $(SHORT),build,release) ## measure many layers on one node and a cluster, for 20 minutes; VERSIONS="3.10 4.3", SHORT=1
	@$(PYTHON) benches/scale/rig.py $(if $(SHORT),--short) $(addprefix --versions ,$(VERSIONS)) $(OPTIONS)

bench-pure: ## time the pure parts; ARGS=name only those cases, ARGS=--help says more
	$(CARGO) bench --locked --profile count --package channel-layer-pure -- $(ARGS)

counts: deps ## count instructions and allocations of the pure parts anew, in benches/pure/counts.txt
	$(PYTHON) benches/pure/counts.py

mutants: ## count the planted bugs that tests catch, for hours; DIFF=COMMIT those of a change; AGAIN=1
	@$(PYTHON) tests/mutants/run.py $(if $(AGAIN),--again) $(if $(DIFF),--diff '$(DIFF)') $(if $(TABLE),--table)

abi: deps build ## record what was added to the C API; ABI_BREAK=1 also what has changed
	@$(PYTHON) tests/abi/gate.py renew $(if $(ABI_BREAK),--break)

deny: ## hold licences, sources and versions of dependencies against deny.toml; CHECKS=advisories
	@tests/supply/deny.sh $(CHECKS)

sbom: ## list what is linked into the library, as CycloneDX, in target/release
	@mkdir -p $(RELEASE)
	@$(PYTHON) packaging/sbom.py > $(RELEASE)/libchannel_layer.cdx.json
	@echo "$(RELEASE)/libchannel_layer.cdx.json"

c-sources:
	@printf '%s\n' $(C_SOURCES)

fmt: ## format Rust, C and Python
	@tests/lint.sh mend

lint: ## check formatting and what linters say, as the stages fmt and clippy do
	@tests/lint.sh

clean: ## remove everything that was built
	$(CARGO) clean
