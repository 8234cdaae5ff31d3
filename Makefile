# What a user or packager runs; a contributor may as well call cargo (see CONTRIBUTING.md).
#
#   make            builds the library                      target/release/libvixDiskLib.so
#   make demo       backs up a disk and a simulated virtual machine with a C program built against the library
#   make test       everything: lint, tests, real client programs
#   make dist       the tree that clients expect            dist/vmware-vix-disklib-distrib, and a .tar.gz of it
#   make install    the same tree at PREFIX, /usr/local by default; DESTDIR is put in front
#   make clean

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
MNTAPI_VERSION := 1.1.0

CARGO ?= cargo
CC ?= cc
CXX ?= c++
PREFIX ?= /usr/local
DESTDIR ?=
DOCDIR ?= $(PREFIX)/share/doc/vix-disklib

TARGET := $(or $(CARGO_TARGET_DIR),target)
DIST ?= dist
TREE := $(DIST)/vmware-vix-disklib-distrib
TARBALL := $(DIST)/vix-disklib-$(VERSION)-$(shell uname -m).tar.gz
RELEASE := $(TARGET)/release
LIBRARY := $(RELEASE)/libvixDiskLib.so
MNTAPI := $(RELEASE)/libvixMntapi.so
NOTICES := $(RELEASE)/THIRD-PARTY.txt
SOURCES := Cargo.toml Cargo.lock build.rs $(shell find src -name '*.rs')

# The names under which programs look for the library; each is a link to the one regular file.
LINKS := libvixDiskLib.so $(foreach n,5 6 7 8 9,libvixDiskLib.so.$(n))
MNTAPI_LINKS := libvixMntapi.so libvixMntapi.so.1

# A build for one run gains nothing from what the next one, or a debugger, could use.
ifeq ($(CI),true)
export CARGO_INCREMENTAL := 0
export CARGO_PROFILE_DEV_DEBUG := 0
export CARGO_PROFILE_DEV_LTO := off
endif

# Files of a release carry the time of its commit and no path of the machine that built it.
export SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2>/dev/null),1)
REMAP := --remap-path-prefix=$(CURDIR)=. --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo

.DEFAULT_GOAL := all
.NOTPARALLEL:
.PHONY: all dist tree install programs demo test lint setup clean

all: $(LIBRARY) $(MNTAPI) $(NOTICES)

# Plug-in hosts load the library many times: it has to stay small.
$(LIBRARY): $(SOURCES)
	RUSTFLAGS="$(RUSTFLAGS) $(REMAP)" $(CARGO) build --release --locked --lib
	@size=$$(stat -c %s $@); limit=$$((6 * 1024 * 1024)); \
	test $$size -lt $$limit || { echo "$@ has $$size bytes, the limit is $$limit" >&2; exit 1; }
	@touch $@

# A package has one library; the mount library is a file of its own with nothing but the standard library in it.
$(MNTAPI): src/mntapi/lib.rs src/abi/va_list.rs | $(LIBRARY)
	rustc --edition 2024 --crate-name vixMntapi --crate-type cdylib -O -C strip=symbols -C codegen-units=1 -C lto=thin \
	    $(REMAP) -C link-arg=-Wl,-soname,libvixMntapi.so.1,-z,defs,-z,relro,-z,now,-Bsymbolic -o $@ $<

$(NOTICES): Cargo.lock scripts/third-party-licences.py | $(LIBRARY)
	CARGO="$(CARGO)" python3 scripts/third-party-licences.py > $@.part
	@mv $@.part $@

# Puts the tree at $(DESTDIR)$(PREFIX); after `make` it needs neither cargo nor the network.
install: all
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,include lib64/pkgconfig) $(DESTDIR)$(DOCDIR)
	install -m 644 include/vixDiskLib.h include/vm_basic_types.h include/vixMntapi.h $(DESTDIR)$(PREFIX)/include
	install -m 755 $(LIBRARY) $(DESTDIR)$(PREFIX)/lib64/libvixDiskLib.so.$(VERSION)
	install -m 755 $(MNTAPI) $(DESTDIR)$(PREFIX)/lib64/libvixMntapi.so.$(MNTAPI_VERSION)
	for l in $(LINKS); do ln -sfn libvixDiskLib.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib64/$$l; done
	for l in $(MNTAPI_LINKS); do ln -sfn libvixMntapi.so.$(MNTAPI_VERSION) $(DESTDIR)$(PREFIX)/lib64/$$l; done
	sed 's/@VERSION@/$(VERSION)/' vix-disklib.pc.in > $(RELEASE)/vix-disklib.pc
	install -m 644 $(RELEASE)/vix-disklib.pc $(DESTDIR)$(PREFIX)/lib64/pkgconfig
	install -m 644 README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT $(NOTICES) $(DESTDIR)$(DOCDIR)

tree:
	rm -rf $(TREE)
	$(MAKE) --no-print-directory install DESTDIR= PREFIX=$(abspath $(TREE)) DOCDIR=$(abspath $(TREE))/doc
	install -d $(TREE)/examples
	install -m 644 $(addprefix examples/,Makefile backup.c blocks.h say.h sha256.h inspect.cpp) $(TREE)/examples
	install -m 755 examples/vixdisklib.py examples/changed_areas.py $(TREE)/examples

dist: tree
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$(SOURCE_DATE_EPOCH) \
	    -C $(DIST) -cf - $(notdir $(TREE)) | gzip -9n > $(TARBALL)
	@echo "$(TREE) and $(TARBALL) are ready"

# Programs of the package, the simulator among them; with the flags of the library, so that it is not built twice.
programs: $(LIBRARY)
	RUSTFLAGS="$(RUSTFLAGS) $(REMAP)" $(CARGO) build --release --locked --bins

demo: tree programs
	CC="$(CC)" scripts/demo.sh $(TREE)

setup:
	scripts/setup.sh

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps --locked

test: setup lint tree
	scripts/test.sh

clean:
	$(CARGO) clean
	rm -rf $(DIST)
