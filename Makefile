# A small front for Meson: each target installs what it needs (through apt), configures once, and does its work.
BUILD ?= build
CACHE ?= $(HOME)/.cache/nadir
NADIR = $(BUILD)/src/host/linux/nadir

.PHONY: all run iso test test-long bench bench-exits lint fuzz install deb clean

all:
	@scripts/depend.sh build
	@scripts/build.sh $(BUILD) all

# Boot Debian's cloud kernel to a shell here. ARGS are further options of `nadir run`.
run:
	@scripts/depend.sh build run
	@scripts/build.sh $(BUILD) nadir
	@scripts/run.sh $(NADIR) $(CACHE) $(ARGS)

# An image that boots on the bare machine, by BIOS or UEFI, and runs Debian's cloud kernel to a shell there; or GUESTS: descriptions and the files they
# name. ARGS are nadir's command line.
iso:
	@scripts/depend.sh build run iso
	@scripts/build.sh $(BUILD) metal
	@scripts/iso-shell.sh $(BUILD)/nadir.iso $(BUILD)/src/host/metal/nadir.elf $(CACHE) "$(ARGS)" $(GUESTS)

test:
	@scripts/depend.sh build run test lint package iso
	@scripts/test.sh $(BUILD) $(CACHE)

test-long:
	@scripts/depend.sh build run test lint package iso
	@scripts/test.sh $(BUILD) $(CACHE) --long

bench:
	@scripts/depend.sh build run bench
	@scripts/build.sh $(BUILD) nadir
	@bench/run.py --nadir $(NADIR) --cache $(CACHE) $(ARGS)
	@[ -n "$(ARGS)" ] || NADIR_CACHE=$(CACHE) bench/idle.py --nadir $(NADIR)
	@[ -n "$(ARGS)" ] || NADIR_CACHE=$(CACHE) bench/snapshot.py --nadir $(NADIR)

# What leaving a guest costs, in instructions, on emulated machines. ARGS: '--only svm-nested,vmx-nested --floors'
bench-exits:
	@scripts/depend.sh build run test bench iso
	@scripts/build.sh $(BUILD) tests
	@bench/exits.py --nadir $(NADIR) --metal $(BUILD)/src/host/metal/nadir.elf --guest $(BUILD)/bench/guest/exits-64.img $(ARGS)

lint:
	@scripts/depend.sh build test lint
	@scripts/build.sh $(BUILD) tests
	@tests/style/lint.sh $(BUILD)

fuzz:
	@scripts/depend.sh build test
	@scripts/build.sh $(BUILD) tests
	@FUZZ_SECONDS=$(or $(SECONDS),600) ninja -C $(BUILD) fuzz

install:
	@scripts/depend.sh build
	@scripts/build.sh $(BUILD) all
	@meson install -C $(BUILD) --no-rebuild --quiet $(if $(DESTDIR),--destdir $(abspath $(DESTDIR)))

deb:
	@scripts/depend.sh build package
	@dpkg-buildpackage -us -uc -b

clean:
	rm -rf $(BUILD)
