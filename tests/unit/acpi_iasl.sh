#!/bin/sh
# The ACPI tables as ACPICA sees them: each is disassembled and compiled again, which must not draw one complaint.
# Arguments: the unit-acpi program, which dumps the tables; iasl.
set -eu
dump=$(realpath "$1")
iasl=$2
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"

for cpus in 1 4 300; do
	rm -f ./*
	"$dump" . "$cpus"
	for table in *.dat; do
		name=${table%.dat}
		"$iasl" -d "$table" >log 2>&1
		"$iasl" -p again "$name.dsl" >>log 2>&1
		if grep -iE 'invalid|unknown|mismatch|warning [^s]|error [^s]|remark [^s]' log ||
		   { [ "$name" = DSDT ] && ! grep -q ' 0 Errors, 0 Warnings, 0 Remarks' log; }; then
			echo "$name with $cpus CPUs:"
			cat log
			exit 1
		fi
		# A data table comes back byte for byte but for its checksum and who compiled it; iasl may shorten AML.
		if [ "$name" != DSDT ] && [ "$name" != FACS ]; then
			python3 -c 'import sys
a, b = (bytearray(open(f, "rb").read()) for f in sys.argv[1:])
a[9] = b[9] = 0
a[28:36] = b[28:36] = bytes(8)
sys.exit(a != b)' "$table" again.aml || { echo "$name with $cpus CPUs changed on the way"; exit 1; }
		fi
	done
done
