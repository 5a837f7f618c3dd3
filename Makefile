# SPDX-License-Identifier: Apache-2.0
# make               build build/regfs
# make run           install what is missing, build, mount a sample at MNT (default ~/reg)
# make check         install what is missing, build, pass all tests
# make bench | fuzz  measure | fuzz for FUZZ_SECONDS a target
# make install       DESTDIR= PREFIX=
# Variables: V=1 shows commands; SANITIZE=address,undefined | thread builds apart; CC=clang.

VERSION := 0.1.0
PREFIX ?= /usr/local
DESTDIR ?=
MNT ?= $(HOME)/reg
FUZZ_SECONDS ?= 60
SANITIZE ?=
PKG_CONFIG ?= pkg-config

empty :=
comma := ,
BUILD := build$(if $(SANITIZE),-$(firstword $(subst $(comma), ,$(SANITIZE))))$(if $(findstring clang,$(CC)),-clang)
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' $(1) $(2);)

PACKAGES := fuse3 libcurl libcrypto libcjson zlib libzstd libisal libarchive
CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror
ALL_CPPFLAGS = -Iinclude -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=314 \
	-DREGFS_VERSION='"$(VERSION)"' $(shell $(PKG_CONFIG) --cflags $(PACKAGES)) $(CPPFLAGS)
ALL_CFLAGS = -std=gnu11 -pthread -fno-strict-aliasing $(WARN) $(CFLAGS) \
	$(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all)
LIBS = $(shell $(PKG_CONFIG) --libs $(PACKAGES)) -pthread
ALL_LDFLAGS = $(LDFLAGS) $(if $(SANITIZE),-fsanitize=$(SANITIZE))

SRC := $(wildcard src/*.c)
LIB_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(filter-out src/main.c,$(SRC)))
UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNIT := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))
UNIT_HELP := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(UNIT_SRC),$(wildcard tests/unit/*.c)))
FUZZ := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
C_FILES = $(wildcard src/*.c include/regfs/*.h tests/*/*.c tests/*/*.h)

.PHONY: all install run check check-built unit bench fuzz format format-check layering clean deps
.SECONDARY:
all: $(BUILD)/regfs

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/libregfs.a: $(LIB_OBJ)
	$(call say,AR,$@)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/regfs: $(BUILD)/src/main.o $(BUILD)/libregfs.a
	$(call say,LD,$@)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# A unit test is one file of tests/unit; what they share is linked to each.
$(BUILD)/unit/%: $(BUILD)/tests/unit/%.o $(UNIT_HELP) $(BUILD)/libregfs.a
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ -lcmocka $(LIBS)

unit: $(UNIT)

deps:
	$(Q)contrib/install-deps

check: deps
	$(Q)$(MAKE) --no-print-directory check-built

check-built:
	$(Q)tests/check

run:
	$(Q)contrib/install-deps --build-only
	$(Q)$(MAKE) --no-print-directory all
	$(Q)MNT='$(MNT)' contrib/run

$(BUILD)/bench/%: $(BUILD)/tests/bench/%.o $(BUILD)/libregfs.a
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

bench: all $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))
	$(Q)tests/bench/run $(BENCH)

# Fuzzers: libFuzzer with ASan+UBSan, by clang. make fuzz; make build-fuzz/fuzz_ref.
FUZZ_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -g -O1
FUZZ_CC = clang -std=gnu11 -pthread -fno-strict-aliasing $(ALL_CPPFLAGS) -DREGFS_FUZZ $(FUZZ_FLAGS)
build-fuzz/%.o: %.c
	@mkdir -p $(@D)
	$(call say,FUZZCC,$<)$(FUZZ_CC) -fsanitize=fuzzer-no-link -MMD -MP -c -o $@ $<

build-fuzz/libregfs.a: $(patsubst %.c,build-fuzz/%.o,$(filter-out src/main.c,$(SRC)))
	$(call say,AR,$@)rm -f $@ && $(AR) rcs $@ $^

build-fuzz/fuzz_%: build-fuzz/tests/fuzz/fuzz_%.o build-fuzz/libregfs.a
	$(call say,LD,$@)$(FUZZ_CC) -fsanitize=fuzzer -o $@ $^ $(LIBS)

fuzz: $(addprefix build-fuzz/fuzz_,$(FUZZ))
	$(Q)FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz/run $^

format:
	$(Q)clang-format -i $(C_FILES)
format-check:
	$(Q)clang-format --dry-run -Werror $(C_FILES)
layering:
	$(Q)tests/layering

install: $(BUILD)/regfs
	install -Dm755 $(BUILD)/regfs $(DESTDIR)$(PREFIX)/bin/regfs
	install -Dm644 contrib/regfs.1 $(DESTDIR)$(PREFIX)/share/man/man1/regfs.1

clean:
	rm -rf build build-*

-include $(foreach dir,$(BUILD) build-fuzz,$(wildcard $(dir)/src/*.d $(dir)/tests/*/*.d))
