/* Entry and return of exceptions and interrupts, 64-bit. The pushes build a struct state. */
#include "lib/asm.h"

#define STATE_WORDS 28
#define STATE_FS 16
#define STATE_GS 8

	.text
	.globl trap_stubs
	.balign 16
trap_stubs:
	.set vector, 0
	.rept 256
	.balign 16
	.if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
	.else
	pushq $0xfeed
	.endif
	pushq $vector
	jmp trap_entry
	.set vector, vector + 1
	.endr

trap_entry:
	cld
	.irp register, rax, rcx, rdx, rbx, rax, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
	pushq %\register
	.endr
	.irp register, ds, es, fs, gs
	movl %\register, %eax
	pushq %rax
	.endr
	movq %cr2, %rax
	pushq %rax
	movl $SEL_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movq %rsp, %rdi
	movq %rsp, %rbx
	andq $-16, %rsp
	call trap_dispatch
	movq %rbx, %rsp

	/* The stack pointer is at a struct state: load it. FS and GS are left alone where they do not change, to keep their bases. */
trap_load:
	movl %fs, %eax
	cmpw %ax, STATE_FS(%rsp)
	je 1f
	movw STATE_FS(%rsp), %fs
1:	movl %gs, %eax
	cmpw %ax, STATE_GS(%rsp)
	je 2f
	movw STATE_GS(%rsp), %gs
2:	addq $24, %rsp
	popq %rax
	movl %eax, %es
	popq %rax
	movl %eax, %ds
	.irp register, r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rax, rbx, rdx, rcx, rax
	popq %\register
	.endr
	addq $16, %rsp
	iretq

	/* void run(struct state *s) */
	.globl run
run:
	.irp register, rbx, rbp, r12, r13, r14, r15
	pushq %\register
	.endr
	pushfq
	cli
	movq %rsp, run_sp
	movq %rdi, run_current
	movq run_stack0, %rax
	testq %rax, %rax
	cmovzq %rsp, %rax
	movq %rax, tss + 4			/* RSP0 */
	movq %rdi, %rsi
	subq $STATE_WORDS * 8, %rsp
	movq %rsp, %rdi
	movl $STATE_WORDS, %ecx
	cld
	rep movsq
	jmp trap_load

	/* End of a run: return to run()'s caller, through IRET to unblock NMIs. */
	.globl run_leave
run_leave:
	movq run_sp, %rsp
	movq $0, run_current
	movq %rsp, %rax
	pushq $SEL_DATA
	pushq %rax
	pushq $2
	pushq $SEL_CODE64
	pushq $1f
	iretq
1:	popfq
	.irp register, r15, r14, r13, r12, rbp, rbx
	popq %\register
	.endr
	ret

	.section .note.GNU-stack, "", @progbits
