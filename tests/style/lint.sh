#!/bin/sh
# clang-tidy and cppcheck over everything that was configured: lint.sh BUILD-DIRECTORY [SOURCE...]. Ends with a status other than 0
# when either has something to say. With sources named, only those are looked at.
set -eu
build=$1
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
[ -f "$build/compile_commands.json" ] || {
	echo "lint: no $build/compile_commands.json; run meson setup $build first" >&2
	exit 2
}
# A source can be compiled several times (32 and 64 bits); once is enough here.
sources=$(python3 - "$build" "$@" <<'PYTHON'
import json, os, sys
build, wanted = sys.argv[1], {os.path.realpath(name) for name in sys.argv[2:]}
with open(os.path.join(build, "compile_commands.json")) as file:
    commands = json.load(file)
found = {os.path.realpath(os.path.join(c["directory"], c["file"])) for c in commands}
for name in sorted(found):
    if name.endswith(".c") and (not wanted or name in wanted):
        print(os.path.relpath(name))
PYTHON
)
status=0
# clang does not know every warning option of gcc, nor the options gcc needs for freestanding 32-bit code.
echo "$sources" | xargs -P "$(nproc)" -n 4 clang-tidy -quiet -p "$build" \
	--extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-unused-command-line-argument || status=1
# shellcheck disable=SC2086
cppcheck --quiet --error-exitcode=1 --std=c11 --inline-suppr --enable=warning,performance,portability \
	--suppressions-list=tests/style/cppcheck.suppress -j "$(nproc)" -D__x86_64__ "-D_Noreturn=__attribute__((noreturn))" -Isrc -Itests/unit $sources || status=1
exit $status
