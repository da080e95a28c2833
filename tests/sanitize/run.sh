#!/bin/sh
# Build with sanitizers and run there.
#   run.sh address BUILD IMAGES     address and undefined-behaviour sanitizers: all unit tests, some guests, a short Linux boot
#   run.sh thread BUILD IMAGES      thread sanitizer: the unit tests and guests that have threads
# BUILD is a directory of this test's own, which is kept; IMAGES has the guests' images. nadir's sandbox is off, as a sanitizer makes calls of
# its own, and the faults of generated code are nadir's to handle, not the sanitizer's.
set -eu
kind=$1
build=$2
images=$3
root=$(cd "$(dirname "$0")/../.." && pwd)

case $kind in
address) sanitizers=address,undefined units='' guests='paging strings smc xstate task b4 chaos' ;;
thread) sanitizers=thread units='unit-vm_threads unit-bt_shared unit-posted unit-disk unit-qcow2' guests=smp ;;
*) echo "run.sh: there is no sanitizer $kind" >&2; exit 2 ;;
esac

quietly()
{
	"$@" >"$build.log" 2>&1 || {
		cat "$build.log"
		exit 1
	}
}

# Warnings are the ordinary build's: with sanitizers gcc sees overflows where there are none.
[ -e "$build/build.ninja" ] ||
	quietly meson setup "$build" "$root" -Db_sanitize=$sanitizers -Db_lundef=false -Dwerror=false -Doptimization=1 \
		-Dc_args=-fno-sanitize-recover=all
quietly ninja -C "$build" --quiet src/host/linux/nadir unit-tests

faults=handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:use_sigaltstack=0:allow_user_segv_handler=1
export ASAN_OPTIONS="$faults:detect_leaks=1:exitcode=99"
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS="report_signal_unsafe=0:exitcode=99:suppressions=$root/tests/sanitize/thread.suppress"
nadir=$build/src/host/linux/nadir
status=0
# shellcheck disable=SC2086
setarch -R meson test -C "$build" --no-rebuild --suite unit --print-errorlogs --timeout-multiplier 4 $units || status=1
# shellcheck disable=SC2086
setarch -R "$root/tests/guest/run.py" --nadir "$nadir" --images "$images" --option=--sandbox=off --timeout 240 $guests || status=1
[ $kind = thread ] || setarch -R "$root/tests/boot/boot.py" --nadir "$nadir" --kernel linux-cloud -- --sandbox off --hang-timeout 0 || status=1
exit $status
