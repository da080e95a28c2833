#!/bin/sh
# Configure and build: build.sh BUILD nadir|metal|all|tests. `nadir` is the program alone, `metal` nadir.elf, `all` what BUILD is configured for, `tests` the tests
# too; a new BUILD is configured without tests unless they are wanted. Says one line when there is work, everything when it fails.
set -eu
build=$1
what=$2
log=$(mktemp)
trap 'rm -f "$log"' EXIT INT TERM

quietly()
{
	"$@" >"$log" 2>&1 || {
		cat "$log" >&2
		exit 1
	}
}

tests=false
[ "$what" != tests ] || tests=true
if [ ! -e "$build/build.ninja" ]; then
	quietly meson setup "$build" -Dtests=$tests
elif [ "$what" = tests ] && ! grep -q 'tests/unit' "$build/build.ninja"; then
	quietly meson configure "$build" -Dtests=true
fi
target=all
[ "$what" != nadir ] || target=src/host/linux/nadir
[ "$what" != metal ] || target=src/host/metal/nadir.elf
! ninja -C "$build" -n "$target" 2>/dev/null | grep -q 'no work to do' || exit 0
echo "nadir: building"
quietly ninja -C "$build" --quiet "$target"
