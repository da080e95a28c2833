#!/bin/sh
# Run fuzz targets: run.sh short|long SOURCE-DIRECTORY TARGET...
#
# short: a fixed seed and FUZZ_RUNS runs (default 100000), but no longer than 10 s, after the inputs of corpus/NAME/. For the test
# suite.
# long: each target for FUZZ_SECONDS (default 600). What it learns is kept beside the target, in fuzz-NAME.corpus, and used by
# the next round. An input that fails is written as fuzz-NAME-crash-* and ends the run.
set -eu
mode=$1
source=$2
shift 2

# fuzz PROGRAM
fuzz() {
	cd "$(dirname "$1")"
	program=./$(basename "$1")
	name=${1##*/fuzz-}
	kept=$source/corpus/$name
	[ -d "$kept" ] || kept=
	# Its own exit status for a failure, 77, means "skipped" to Meson.
	set -- -error_exitcode=1 -timeout=20 -artifact_prefix="fuzz-$name-"
	if [ "$mode" = short ]; then
		# What it learns goes to the first directory, which must not be the one that is kept.
		learnt=$(mktemp -d)
		trap 'rm -rf "$learnt"' EXIT
		# shellcheck disable=SC2086
		"$program" "$@" -seed=1 -runs="${FUZZ_RUNS:-100000}" -max_total_time=10 -max_len=1024 -len_control=10 \
			-verbosity=0 "$learnt" $kept
		return
	fi
	mkdir -p "fuzz-$name.corpus"
	echo "$name: ${FUZZ_SECONDS:-600} s"
	# shellcheck disable=SC2086
	exec "$program" "$@" -max_total_time="${FUZZ_SECONDS:-600}" -max_len=4096 -print_final_stats=1 "fuzz-$name.corpus" $kept
}

for target; do
	(fuzz "$target")
done
