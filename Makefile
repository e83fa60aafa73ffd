# ovrd. `make help` lists the targets a person calls; README.md says what they are for.
#
#   SANITIZE=address|thread   builds everything with that sanitizer, in build/address or build/thread
#   CC, CFLAGS                the compiler and its optimisation flags
#   V=1                       shows the commands

MAKEFLAGS += --no-builtin-rules
ifeq ($(origin CC),default)
CC       := gcc
endif
CFLAGS   ?= -O2 -g
comma    := ,
SANITIZE ?=
V        ?=
SOAK_SECONDS ?= 600
B        := build$(if $(SANITIZE),/$(SANITIZE))
VERSION  := 0.1.0

WARNINGS := -Wall -Wextra -Werror -Wshadow -Wconversion -Wsign-conversion -Wpointer-arith \
            -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wundef -Wformat=2 -Wno-missing-field-initializers
HARDENING := $(if $(SANITIZE),-U_FORTIFY_SOURCE,-D_FORTIFY_SOURCE=2) -fstack-protector-strong
SANITIZER := $(if $(filter address,$(SANITIZE)),-fsanitize=address$(comma)undefined -fno-sanitize-recover=all) \
             $(if $(filter thread,$(SANITIZE)),-fsanitize=thread)
Q        := $(if $(V),,@)
say      := @$(if $(V),:,echo)
COMPILE   = $(CC) -std=gnu11 $(CFLAGS) $(WARNINGS) $(HARDENING) $(SANITIZER) -I. -pthread \
            -fopenmp-simd -D_GNU_SOURCE -DOVRD_VERSION='"$(VERSION)"' -MMD -MP
LINK      = $(CC) $(SANITIZER) $(LDFLAGS) -pthread

CORE_LIBS   := -llapacke -lopenblas -lm
SERVER_LIBS := $(CORE_LIBS) -lsqlite3 -ljansson -lnettle -lz
API_LIBS    := $(SERVER_LIBS) -lmicrohttpd -lgnutls -lpng
CLIENT_LIBS := -lcurl -ljansson
# The worker has ranks where OpenMPI is, and not with sanitizers, which find fault with MPI itself.
MPI_CFLAGS  := $(if $(SANITIZE),,$(shell mpicc --showme:compile 2>/dev/null))
MPI_LIBS    := $(if $(SANITIZE),,$(shell mpicc --showme:link 2>/dev/null))
WORKER_LIBS := $(CORE_LIBS) -ljansson -lnettle -lcurl $(MPI_LIBS)
MEET        := $(if $(MPI_LIBS),$(B)/tests/bench/meet)

# The hot loops are compiled once per instruction set, all in one binary.
ISAS         := baseline avx2 avx512
ISA_baseline := -DISA_LEVEL=ISA_BASELINE
ISA_avx2     := -DISA_LEVEL=ISA_AVX2 -mavx2 -mfma
ISA_avx512   := -DISA_LEVEL=ISA_AVX512 -mavx2 -mfma -mavx512f -mavx512dq -mavx512bw -mavx512vl \
                -mprefer-vector-width=512

objects = $(patsubst %.c,$(B)/%.o,$(wildcard $(1)/*.c))
CORE_PLAIN := $(patsubst core/%.c,%.o,$(filter-out core/kernels_isa.c,$(wildcard core/*.c)))
CORE_ALL   := $(CORE_PLAIN) $(ISAS:%=kernels_%.o)
CORE   := $(CORE_ALL:%=$(B)/core/%)
CORE64 := $(CORE_ALL:%=$(B)/core64/%)
SERVER := $(filter-out $(B)/server/main.o,$(call objects,server) $(call objects,server/store))
API    := $(call objects,api)
WORKER := $(filter-out $(B)/worker/$(if $(MPI_LIBS),alone,mpi).o,$(call objects,worker))

PYTHON_TESTS := $(patsubst %.py,$(B)/%,$(wildcard tests/*/test_*.py))
# A test links what its folder's name says; core64 is the float64 build of core.
TESTS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/*/test_*.c)) \
         $(PYTHON_TESTS)

.PHONY: all deps demo check check-fast check-web check-slurm soak check-source check-asan check-tsan bench bench-full bench-scale run-bench run-bench-scale fuzz-api clean help format
all: $(B)/ovrd $(B)/ovrctl $(B)/ovr-worker

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile packaging/install.mk | column -ts'|'

deps: ## install the Debian packages that are missing (sudo where not root)
	@scripts/deps.sh build
demo: deps ## install, build, and run two experiments from submission to curl commands
	@$(MAKE) --no-print-directory all
	@scripts/demo.sh
check: ## install what the tests need, check the source's rules, build, run all tests
	@scripts/deps.sh build test web
	@$(MAKE) --no-print-directory check-source
	@$(MAKE) --no-print-directory check-fast
check-fast: all $(TESTS) ## the same without looking for packages
	@scripts/run-tests.sh $(B)
check-web: ## the dashboard's tests in a real browser; pictures of every page go to build/web
	@scripts/deps.sh build test web
	@$(MAKE) --no-print-directory $(B)/tests/web/test_dashboard
	@scripts/run-tests.sh $(B) web
check-slurm: ## experiments on a Slurm cluster of this machine's own, and its faults (root; installs Slurm and OpenMPI)
	@scripts/deps.sh build test mpi slurm
	@$(MAKE) --no-print-directory all $(filter $(B)/tests/slurm/%,$(PYTHON_TESTS))
	@OVRD_FAULTS=1 scripts/run-tests.sh $(B) slurm
soak: all $(B)/tests/api/test_soak ## kill the daemon over and over for SOAK_SECONDS (600), and look what is left
	@OVRD_TEST_BUILD=$(B) OVRD_SOAK_SECONDS=$(SOAK_SECONDS) $(B)/tests/api/test_soak
check-source: ## layering, library owners, formatting
	@scripts/check-source.sh
check-asan: ## all tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory SANITIZE=address CFLAGS='-O1 -g' check-fast
check-tsan: ## all tests under ThreadSanitizer
	@$(MAKE) --no-print-directory SANITIZE=thread CFLAGS='-O1 -g' check-fast
bench: ## install PyTorch, build, measure in minutes, beside the same work in PyTorch
	@$(MAKE) --no-print-directory run-bench
bench-full: ## the same with the whole reference experiment: 45 minutes, most of it PyTorch
	@$(MAKE) --no-print-directory run-bench BENCH=--full
bench-scale: ## several ranks and 100,000 queued experiments, measured and computed: docs/scale.md
	@scripts/deps.sh build mpi
	@scripts/deps.sh bench || echo "Going on without what is missing."
	@$(MAKE) -s --no-print-directory run-bench-scale
run-bench-scale: all $(B)/tests/bench/bench $(B)/tests/bench/decide $(MEET)
	@python3 tests/bench/scale.py --build $(B) $(SCALE)
run-bench:
	@scripts/deps.sh build
	@scripts/deps.sh bench || echo "Going on without what is missing."
	@$(MAKE) -s --no-print-directory all $(B)/tests/bench/bench
	@python3 tests/bench/run.py --build $(B) $(BENCH)
fuzz-api: all ## requests made from the contract, against a daemon (installs schemathesis below build/)
	@scripts/deps.sh fuzz
	@[ -x build/fuzz/bin/schemathesis ] || { python3 -m venv build/fuzz && \
	    build/fuzz/bin/pip install -q -r tests/fuzz/requirements.txt; }
	@build/fuzz/bin/python tests/fuzz/fuzz.py $(B)/ovrd $(FUZZ)
format: ## clang-format over all C sources
	clang-format -i $(wildcard */*.[ch] */*/*.[ch])
clean: ## remove everything that was built
	rm -rf build

$(B)/core/%.o: core/%.c
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(COMPILE) -c $< -o $@
$(B)/core64/%.o: core/%.c
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(COMPILE) -DOVR_FLOAT64 -c $< -o $@
$(B)/core/kernels_%.o: core/kernels_isa.c
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(COMPILE) -O3 -fno-math-errno -fno-trapping-math -DISA=$* $(ISA_$*) -c $< -o $@
$(B)/core64/kernels_%.o: core/kernels_isa.c
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(COMPILE) -O3 -fno-math-errno -fno-trapping-math -DOVR_FLOAT64 -DISA=$* $(ISA_$*) -c $< -o $@
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(COMPILE) -c $< -o $@
$(B)/tests/core64/%.o: tests/core64/%.c
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(COMPILE) -DOVR_FLOAT64 -c $< -o $@

# Files that go into the binary as they are: migrations, the API's contract, the dashboard.
$(B)/server/migrations.o: $(wildcard migrations/*.sql)
$(B)/api/system.o: api/openapi.json docs/errors.md
$(B)/api/web.o: $(wildcard clients/web/*.* clients/web/vendor/*.*)

$(B)/ovrd: $(B)/server/main.o $(API) $(SERVER) $(CORE)
	$(say) LD $@
	$(Q)$(LINK) $^ -o $@ $(API_LIBS)
CLIENT := $(call objects,clients/cli) $(call objects,clients/reproduce)
$(B)/ovrctl: $(CLIENT)
	$(say) LD $@
	$(Q)$(LINK) $^ -o $@ $(CLIENT_LIBS) -lm

$(B)/worker/%.o: worker/%.c
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(COMPILE) $(MPI_CFLAGS:-I%=-isystem %) -c $< -o $@
# Of the server the worker takes what it needs: not the store, so that nodes need no SQLite.
$(B)/server.a: $(SERVER)
	$(say) AR $@
	$(Q)rm -f $@ && $(AR) rcs $@ $^
$(B)/ovr-worker: $(WORKER) $(B)/server.a $(CORE)
	$(say) LD $@
	$(Q)$(LINK) $^ -o $@ $(WORKER_LIBS)

$(B)/tests/core/%: $(B)/tests/core/%.o $(CORE)
	$(say) LD $@
	$(Q)$(LINK) $^ -o $@ $(CORE_LIBS) -lcmocka
$(B)/tests/core64/%: $(B)/tests/core64/%.o $(CORE64)
	$(say) LD $@
	$(Q)$(LINK) $^ -o $@ $(CORE_LIBS) -lcmocka
$(B)/tests/server/%: $(B)/tests/server/%.o $(SERVER) $(CORE)
	$(say) LD $@
	$(Q)$(LINK) $^ -o $@ $(SERVER_LIBS) -lcmocka
$(B)/tests/api_unit/%: $(B)/tests/api_unit/%.o $(B)/api/http.o $(B)/api/text.o $(B)/api/tls.o $(B)/api/problem.o $(B)/server/digest.o $(B)/core/err.o $(B)/core/utf8.o
	$(say) LD $@
	$(Q)$(LINK) $^ -o $@ -lmicrohttpd -lgnutls -lnettle -ljansson -lcurl -lcmocka
$(B)/tests/api/%: $(B)/tests/api/%.o $(B)/tests/api/daemon.o $(B)/ovrd $(B)/ovrctl
	$(say) LD $@
	$(Q)$(LINK) $(filter %.o,$^) -o $@ $(CLIENT_LIBS) -lm -lz -lsqlite3 -lcmocka
$(B)/tests/reproduce/%: $(B)/tests/reproduce/%.o $(call objects,clients/reproduce) \
                        $(B)/clients/cli/text.o $(B)/clients/cli/value.o
	$(say) LD $@
	$(Q)$(LINK) $^ -o $@ -ljansson -lm -lcmocka
# Debian's python3, since numpy and selenium are Debian's.
$(PYTHON_TESTS): $(B)/%: %.py $(B)/ovrd $(B)/ovrctl
	$(say) LN $@
	@mkdir -p $(@D)
	$(Q)printf '#!/bin/sh\nPYTHONPATH="%s" exec /usr/bin/python3 -B "%s" "$$@"\n' \
	    '$(CURDIR)/tests:$(CURDIR)/clients/python' '$(CURDIR)/$<' >$@ && chmod +x $@
$(B)/tests/bench/bench: $(filter-out %/meet.o %/decide.o,$(call objects,tests/bench)) $(CORE)
	$(say) LD $@
	$(Q)$(LINK) $^ -o $@ $(CORE_LIBS) -ljansson
$(B)/tests/bench/decide: $(B)/tests/bench/decide.o $(SERVER) $(CORE)
	$(say) LD $@
	$(Q)$(LINK) $^ -o $@ $(SERVER_LIBS)
$(B)/tests/bench/meet.o: COMPILE += $(MPI_CFLAGS:-I%=-isystem %)
$(B)/tests/bench/meet: $(B)/tests/bench/meet.o $(B)/worker/mpi.o $(B)/core/err.o $(B)/core/utf8.o
	$(say) LD $@
	$(Q)$(LINK) $^ -o $@ $(MPI_LIBS)

include packaging/install.mk

.SECONDARY:
-include $(shell find $(B) -path $(B)/deb -prune -o -type f -name '*.d' -print 2>/dev/null)
