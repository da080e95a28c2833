# A small front for Meson: each target installs what it needs (through apt), configures once, and does its work.
BUILD ?= build
CACHE ?= $(HOME)/.cache/nadir
NADIR = $(BUILD)/src/host/linux/nadir

.PHONY: all run test test-long bench lint fuzz install deb clean

all:
	@scripts/depend.sh build
	@scripts/build.sh $(BUILD) all

# Boot Debian's cloud kernel to a shell here. ARGS are further options of `nadir run`.
run:
	@scripts/depend.sh build run
	@scripts/build.sh $(BUILD) nadir
	@scripts/run.sh $(NADIR) $(CACHE) $(ARGS)

test:
	@scripts/depend.sh build run test lint package
	@scripts/test.sh $(BUILD) $(CACHE)

test-long:
	@scripts/depend.sh build run test lint package
	@scripts/test.sh $(BUILD) $(CACHE) --long

bench:
	@scripts/depend.sh build run bench
	@scripts/build.sh $(BUILD) nadir
	@bench/run.py --nadir $(NADIR) --cache $(CACHE) $(ARGS)

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
