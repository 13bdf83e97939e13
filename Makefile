# dewar: `make demo` shows it, `make test` checks it, `make` builds it.
#
# Everything real is in scripts/, which run without make too.

PREFIX ?= /usr/local
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET_DIR)/$(HOST)/release/dewar

.PHONY: all build demo test bench install clean

all: build

build:
	@scripts/deps.sh build
	cargo build --release --locked
	@scripts/static-check.sh $(BIN)

demo: build
	@scripts/deps.sh run
	@scripts/demo.sh $(BIN)

test:
	@scripts/test.sh

bench: build
	@scripts/deps.sh test
	@bench/run.sh $(BIN)

install:
	@test -x $(BIN) || { echo "install: no $(BIN): run make first" >&2; exit 1; }
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/dewar
	@for page in man/*.[1-8]; do \
		[ -e "$$page" ] || continue; \
		install -D -m 644 "$$page" "$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}"; \
	done

clean:
	cargo clean
