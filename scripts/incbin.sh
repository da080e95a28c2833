#!/bin/sh
# A file as data of a program: incbin.sh FILE NAME OUTPUT.S writes assembly that has it between NAME and NAME_end.
set -eu
cat >"$3" <<END
	.section .rodata
	.balign 16
	.globl $2, $2_end
$2:
	.incbin "$(realpath "$1")"
$2_end:
	.section .note.GNU-stack, "", @progbits
END
