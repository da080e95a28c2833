/* Where an application processor starts: real mode, at a page below 1 MiB that the SIPI names. To 64-bit mode with the first CPU's page
 * tables, and on to smp_enter() with a number and a stack of its own. Intel SDM volume 3, "Typical AP Initialization Sequence". */
#include "lib/asm.h"

	.section .low, "awx"
	.balign 4096
	.code16
	.globl smp_trampoline
smp_trampoline:
	cli
	cld
	lgdtl %cs:smp_gdt_register - smp_trampoline
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $SEL_CODE32, $smp_start32
	.balign 4
	.globl smp_gdt_register
smp_gdt_register:
	.word 0
	.long 0

	.text
	.code32
smp_start32:
	movl $SEL_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	movl $boot_pml4, %eax
	movl %eax, %cr3
	movl $0x30, %eax		/* PAE, PSE */
	movl %eax, %cr4
	movl $0xc0000080, %ecx		/* EFER.LME */
	rdmsr
	orl $0x100, %eax
	wrmsr
	movl $0x80010031, %eax		/* PG, WP, NE, ET, PE */
	movl %eax, %cr0
	ljmp $SEL_CODE64, $1f
	.code64
1:	movl $1, %edi
	lock xaddl %edi, smp_next
	movl %edi, %eax
	shll $14, %eax			/* 16 KiB of stack each */
	leaq smp_stacks + 0x4000(%rax), %rsp
	xorl %ebp, %ebp
	call smp_enter
	ud2

	.section .note.GNU-stack, "", @progbits
