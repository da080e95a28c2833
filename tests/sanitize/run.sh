#!/bin/sh
# Build with the address and undefined-behaviour sanitizers and run there: every unit test, some guests, and a short Linux boot.
#   run.sh BUILD IMAGES [GUEST...]     BUILD is a directory of this test's own, kept; IMAGES has the guests' images
# The sandbox is off, as a sanitizer makes calls of its own. Faults of generated code are nadir's to handle, not the sanitizer's.
set -eu
build=$1
images=$2
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)

[ -e "$build/build.ninja" ] ||
	meson setup "$build" "$root" -Db_sanitize=address,undefined -Db_lundef=false -Dwerror=false -Doptimization=1 \
		-Dc_args=-fno-sanitize-recover=all >"$build.log" 2>&1 || {
	cat "$build.log"
	exit 1
}
ninja -C "$build" --quiet src/host/linux/nadir unit-tests >"$build.log" 2>&1 || {
	cat "$build.log"
	exit 1
}

faults=handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0
export ASAN_OPTIONS=$faults:allow_user_segv_handler=1:use_sigaltstack=0:detect_leaks=1:exitcode=99
export UBSAN_OPTIONS=print_stacktrace=1
status=0
nadir=$build/src/host/linux/nadir

meson test -C "$build" --no-rebuild --suite unit --print-errorlogs --timeout-multiplier 4 || status=1
"$root/tests/guest/run.py" --nadir "$nadir" --images "$images" --option=--sandbox=off --timeout 240 "$@" || status=1
"$root/tests/boot/boot.py" --nadir "$nadir" --kernel linux-cloud -- --sandbox off || status=1
exit $status
