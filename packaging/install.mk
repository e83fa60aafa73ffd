# make install, make deb. Included by the Makefile.
#
#   PREFIX    where it will be at run time (default /usr/local)
#   DESTDIR   written before it, for who makes a package

PREFIX     ?= /usr/local
DESTDIR    ?=
BINDIR     := $(DESTDIR)$(PREFIX)/bin
SHAREDIR   := $(DESTDIR)$(PREFIX)/share
SYSTEMDDIR := $(DESTDIR)$(if $(filter /usr,$(PREFIX)),,$(PREFIX))/lib

.PHONY: install deb
install: all ## into PREFIX (/usr/local): programs, manual pages, completion, examples, systemd unit; DESTDIR=DIR before it
	install -d $(BINDIR) $(SHAREDIR)/man/man1 $(SHAREDIR)/man/man8 $(SHAREDIR)/ovrd \
	    $(SHAREDIR)/bash-completion/completions $(SHAREDIR)/zsh/vendor-completions \
	    $(SHAREDIR)/fish/vendor_completions.d $(SYSTEMDDIR)/systemd/system $(SYSTEMDDIR)/sysusers.d
	install -m 755 $(B)/ovrd $(B)/ovrctl $(B)/ovr-worker $(BINDIR)
	$(B)/ovrctl manual >$(SHAREDIR)/man/man1/ovrctl.1
	$(B)/ovr-worker --manual >$(SHAREDIR)/man/man1/ovr-worker.1
	$(B)/ovrd --manual >$(SHAREDIR)/man/man8/ovrd.8
	$(B)/ovrctl completion bash >$(SHAREDIR)/bash-completion/completions/ovrctl
	$(B)/ovrctl completion zsh >$(SHAREDIR)/zsh/vendor-completions/_ovrctl
	$(B)/ovrctl completion fish >$(SHAREDIR)/fish/vendor_completions.d/ovrctl.fish
	sed 's|@PREFIX@|$(PREFIX)|' packaging/systemd/ovrd.service >$(SYSTEMDDIR)/systemd/system/ovrd.service
	install -m 644 packaging/systemd/ovrd.sysusers $(SYSTEMDDIR)/sysusers.d/ovrd.conf
	rm -rf $(SHAREDIR)/ovrd/examples
	cp -R examples $(SHAREDIR)/ovrd/

# dpkg-buildpackage wants debian/ at the top of a tree of its own.
DEB := build/deb/ovrd-$(VERSION)
deb: ## Debian packages of daemon, worker, ovrctl and Python client, in build/deb/
	@scripts/deps.sh build mpi deb
	rm -rf build/deb
	mkdir -p $(DEB)
	tar -cf - --exclude=./build --exclude=./.git --exclude=__pycache__ . | tar -xf - -C $(DEB)
	cp -R packaging/debian $(DEB)/debian
	cp packaging/systemd/ovrd.sysusers packaging/systemd/ovrd.service $(DEB)/debian/
	sed -i 's|@PREFIX@|/usr|' $(DEB)/debian/ovrd.service
	cp packaging/systemd/ovrd.default $(DEB)/debian/ovrd.default
	cd $(DEB) && dpkg-buildpackage -b -us -uc
	@ls -1 build/deb/*.deb
