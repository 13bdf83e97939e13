# dewar: `make demo` shows it, `make test` checks it, `make` builds it.
#
# Everything real is in scripts/, which run without make too.

PREFIX ?= /usr/local
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET_DIR)/$(HOST)/release/dewar

.PHONY: all build demo test bench install clean
.PHONY: install-busybox install-openrc install-runit install-s6 install-systemd install-sysv

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

# How an init starts the daemon is installed when it is asked for, one of these; each file
# says how it is enabled. $(call put,MODE,SOURCE,TARGET): with this PREFIX in it.
put = install -D -m $(1) contrib/$(2) $(DESTDIR)$(3) && sed -i 's,/usr/local,$(PREFIX),g' $(DESTDIR)$(3)

install-busybox:
	$(call put,755,busybox/S60dewar,/etc/init.d/S60dewar)

install-openrc:
	$(call put,755,openrc/dewar.initd,/etc/init.d/dewar)
	$(call put,644,openrc/dewar.confd,/etc/conf.d/dewar)

install-runit:
	$(foreach file,run check finish log/run,$(call put,755,runit/$(file),/etc/sv/dewar/$(file));)

install-s6:
	$(foreach file,run finish log/run,$(call put,755,s6/$(file),/etc/s6/dewar/$(file));)
	$(call put,644,s6/notification-fd,/etc/s6/dewar/notification-fd)

install-systemd:
	$(call put,644,systemd/dewar.service,/lib/systemd/system/dewar.service)
	$(call put,644,systemd/dewar.socket,/lib/systemd/system/dewar.socket)

install-sysv:
	$(call put,755,sysv/dewar,/etc/init.d/dewar)
	$(call put,644,sysv/dewar.default,/etc/default/dewar)

clean:
	cargo clean
