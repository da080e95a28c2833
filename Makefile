# A small front for Meson: each target installs what it needs (through apt), configures once, and does its work.
BUILD ?= build
CACHE ?= $(HOME)/.cache/nadir
NADIR = $(BUILD)/src/host/linux/nadir

.PHONY: all run test test-long bench lint fuzz install deb clean

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet

$(BUILD)/build.ninja:
	@scripts/depend.sh build
	@meson setup $(BUILD) >/dev/null || { cat $(BUILD)/meson-logs/meson-log.txt; exit 1; }

# Boot Debian's cloud kernel to a shell here. ARGS are further options of `nadir run`.
run:
	@scripts/depend.sh build run
	@$(MAKE) --no-print-directory all
	@scripts/run.sh $(NADIR) $(CACHE) $(ARGS)

test:
	@scripts/depend.sh build run test lint package
	@scripts/test.sh $(BUILD) $(CACHE)

test-long:
	@scripts/depend.sh build run test lint package
	@scripts/test.sh $(BUILD) $(CACHE) --long

bench:
	@scripts/depend.sh build run test
	@$(MAKE) --no-print-directory all
	@scripts/bench.py --nadir $(NADIR) --cache $(CACHE) $(ARGS)

lint:
	@scripts/depend.sh build test lint
	@$(MAKE) --no-print-directory all
	@tests/style/lint.sh $(BUILD)

fuzz:
	@scripts/depend.sh build test
	@$(MAKE) --no-print-directory all
	@FUZZ_SECONDS=$(or $(SECONDS),600) ninja -C $(BUILD) fuzz

install: all
	@meson install -C $(BUILD) $(if $(DESTDIR),--destdir $(DESTDIR))

deb:
	@scripts/depend.sh build package
	@dpkg-buildpackage -us -uc -b

clean:
	rm -rf $(BUILD)
