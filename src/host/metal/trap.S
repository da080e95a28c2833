/* Entry and exit of every exception and interrupt. All come on a stack of the CPU's own (struct cpu_stacks), since the code that they
 * interrupt may use RSP for something else. They store a struct frame and call trap_dispatch, which says from which frame to go on:
 * that of another thread, perhaps. Intel SDM volume 3, "64-Bit Mode Stack Frame". */

	.text
	.altmacro
	.macro entry vector
	.balign 16
	.if \vector == 8 || (\vector >= 10 && \vector <= 14) || \vector == 17 || \vector == 21 || \vector == 29 || \vector == 30
	.else
	pushq $0
	.endif
	pushq $\vector
	jmp trap_common
	.endm

	.globl trap_entries
	.balign 16
trap_entries:
	.set vector, 0
	.rept 256
	entry %vector
	.set vector, vector + 1
	.endr

	.macro raise vector
	.balign 4
	.byte 0xcd, \vector
	ret
	.endm

	.globl trap_raise
	.balign 4
trap_raise:
	.set vector, 0
	.rept 256
	raise %vector
	.set vector, vector + 1
	.endr

	.balign 16
	.globl trap_common
trap_common:
	pushq %r15
	pushq %r14
	pushq %r13
	pushq %r12
	pushq %r11
	pushq %r10
	pushq %r9
	pushq %r8
	pushq %rdi
	pushq %rsi
	pushq %rbp
	pushq %rsp
	pushq %rbx
	pushq %rdx
	pushq %rcx
	pushq %rax
	cld
	movq %rsp, %rdi
	xorl %ebp, %ebp
	call trap_dispatch
	.globl trap_return
trap_return:
	movq %rax, %rsp
	popq %rax
	popq %rcx
	popq %rdx
	popq %rbx
	leaq 8(%rsp), %rsp
	popq %rbp
	popq %rsi
	popq %rdi
	popq %r8
	popq %r9
	popq %r10
	popq %r11
	popq %r12
	popq %r13
	popq %r14
	popq %r15
	leaq 16(%rsp), %rsp
	iretq

	.section .note.GNU-stack, "", @progbits
