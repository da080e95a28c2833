/* The trial guest of `nadir probe`: what every 64-bit kernel does in its first milliseconds. It starts as the Linux boot protocol
 * starts a kernel: 64-bit mode, flat segments, identity mapping. Each step that worked is told by writing its number to TRIAL_PORT_PASSED;
 * a step that did something else than the manual says writes its number to TRIAL_PORT_FAILED; an exception that should not be is
 * told to TRIAL_PORT_EXCEPTION. The last step halts.
 *
 * probe_kvm.c loads it at TRIAL_CODE, builds page tables and descriptor tables, and names the steps. */
#include "host/linux/probe_guest.h"

	.section .rodata
	.code64
	.balign 16
	.globl probe_guest_steps, probe_guest_start, probe_guest_size, probe_guest_invalid_opcode, probe_guest_unexpected

	.macro begin number
step_\number:
	mov	$\number, %ebp
	.endm
	.macro passed
	mov	%ebp, %eax
	out	%eax, $TRIAL_PORT_PASSED
	.endm

probe_guest_start:
	begin	1
	passed

	begin	2		/* CPUID */
	mov	$1, %eax
	cpuid
	test	$(1 << 26), %edx	/* SSE2, part of the architecture */
	jz	failed
	mov	$0x80000001, %eax
	cpuid
	test	$(1 << 29), %edx	/* long mode */
	jz	failed
	passed

	begin	3		/* descriptor tables */
	lgdt	gdt_register(%rip)
	lidt	idt_register(%rip)
	sub	$16, %rsp
	sgdt	(%rsp)
	mov	2(%rsp), %rax
	cmp	gdt_register + 2(%rip), %rax
	jne	failed
	sidt	(%rsp)
	mov	2(%rsp), %rax
	cmp	idt_register + 2(%rip), %rax
	jne	failed
	add	$16, %rsp
	mov	$TRIAL_TSS_SELECTOR, %eax
	ltr	%ax
	passed

	begin	4		/* privilege level 0 */
	mov	%cs, %eax
	test	$3, %al
	jnz	failed
	passed

	begin	5		/* control registers */
	mov	%cr4, %rax
	or	$0x680, %rax	/* PGE, OSFXSR, OSXMMEXCPT */
	mov	%rax, %cr4
	mov	%cr4, %rcx
	cmp	%rax, %rcx
	jne	failed
	mov	%cr0, %rax
	or	$0x10002, %rax	/* WP, MP */
	mov	%rax, %cr0
	mov	%cr0, %rcx
	cmp	%rax, %rcx
	jne	failed
	passed

	begin	6		/* EFER */
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x801, %eax	/* NXE, SCE */
	mov	%eax, %esi
	wrmsr
	rdmsr
	cmp	%eax, %esi
	jne	failed
	passed

	begin	7		/* MSRs of system calls and segment bases */
	mov	$0xc0000081, %ecx
	mov	$0x00230010, %edx
	xor	%eax, %eax
	wrmsr
	mov	$0xc0000084, %ecx
	mov	$0x200, %eax
	xor	%edx, %edx
	wrmsr
	lea	system_call(%rip), %rax
	xor	%edx, %edx
	mov	$0xc0000082, %ecx
	wrmsr
	mov	%eax, %esi
	rdmsr
	cmp	%eax, %esi
	jne	failed
	mov	$TRIAL_PAGE_A, %eax
	xor	%edx, %edx
	mov	$0xc0000102, %ecx
	wrmsr
	swapgs
	movl	$0x600d, %gs:0
	cmpl	$0x600d, TRIAL_PAGE_A
	jne	failed
	passed

	begin	8		/* the addresses where kernels live */
	lea	high_address(%rip), %rax
	mov	$TRIAL_HIGH_BASE, %rcx
	add	%rcx, %rax
	jmp	*%rax
high_address:
	lea	high_address(%rip), %rdx
	cmp	%rax, %rdx
	jne	failed
	passed
	lea	low_address(%rip), %rax
	sub	%rcx, %rax
	jmp	*%rax
low_address:

	begin	9		/* speed: TRIAL_LOOP * 3 instructions */
	mov	$TRIAL_LOOP, %ecx
1:	addl	%ecx, TRIAL_PAGE_A
	dec	%ecx
	jnz	1b
	passed

	begin	10		/* an exception through the IDT, and IRET */
	xor	%edi, %edi
	ud2
	cmp	$1, %edi
	jne	failed
	passed

	begin	11		/* the interrupt flag */
	sti
	pushfq
	cli
	popq	%rax
	test	$0x200, %eax
	jz	failed
	pushfq
	popq	%rcx
	test	$0x200, %ecx
	jnz	failed
	push	%rax
	popfq
	pushfq
	popq	%rax
	cli
	test	$0x200, %eax
	jz	failed
	passed

	begin	12		/* a page table is changed under the processor */
	movl	$0xa, TRIAL_PAGE_A
	movl	$0xb, TRIAL_PAGE_B
	movq	$(TRIAL_PAGE_A | 3), TRIAL_PT
	cmpl	$0xa, TRIAL_WINDOW
	jne	failed
	movq	$(TRIAL_PAGE_B | 3), TRIAL_PT
	invlpg	TRIAL_WINDOW
	cmpl	$0xb, TRIAL_WINDOW
	jne	failed
	testl	$0x20, TRIAL_PT	/* accessed */
	jz	failed
	passed

	begin	13		/* another page-table root */
	mov	$TRIAL_PML4_COPY, %eax
	mov	%rax, %cr3
	mov	%cr3, %rcx
	cmp	%rax, %rcx
	jne	failed
	passed

	begin	14		/* 16 bytes at once, atomically */
	mov	$1, %eax
	cpuid
	test	$(1 << 13), %ecx
	jz	no_cmpxchg16b
	movq	$1, TRIAL_PAGE_A
	movq	$2, TRIAL_PAGE_A + 8
	mov	$1, %eax
	mov	$2, %edx
	mov	$3, %ebx
	mov	$4, %ecx
	lock cmpxchg16b	TRIAL_PAGE_A
	jnz	failed
	cmpq	$4, TRIAL_PAGE_A + 8
	jne	failed
no_cmpxchg16b:
	passed

	begin	15		/* floating point and SSE */
	fninit
	fld1
	fadd	%st(0), %st(0)
	push	%rax
	fistpl	(%rsp)
	pop	%rax
	cmp	$2, %eax
	jne	failed
	mov	$21, %eax
	movd	%eax, %xmm1
	paddd	%xmm1, %xmm1
	movd	%xmm1, %eax
	cmp	$42, %eax
	jne	failed
	passed

	begin	16		/* a device register in memory */
	movl	$0x12345678, TRIAL_MMIO
	mov	TRIAL_MMIO, %eax
	cmp	$0x87654321, %eax
	jne	failed
	passed

	begin	17		/* user mode and back by SYSCALL */
	pushq	$0x2b
	pushq	$(TRIAL_USER_ALIAS + TRIAL_STACK_TOP - 0x800)
	pushq	$0x202
	pushq	$0x33
	lea	user_code(%rip), %rax
	add	$TRIAL_USER_ALIAS, %rax
	push	%rax
	iretq
user_code:
	mov	%cs, %edi
	syscall
system_call:
	cmp	$0x33, %edi
	jne	failed
	mov	$TRIAL_STACK_TOP, %esp
	mov	%cs, %eax
	cmp	$0x10, %eax
	jne	failed
	passed

	begin	18
	hlt

failed:
	mov	%ebp, %eax
	out	%eax, $TRIAL_PORT_FAILED
2:	hlt
	jmp	2b

/* #UD: skip the instruction of two bytes. */
	.balign 16
invalid_opcode:
	inc	%edi
	addq	$2, (%rsp)
	iretq

/* Anything else: the step has failed. */
	.balign 16
unexpected:
	mov	%ebp, %eax
	out	%eax, $TRIAL_PORT_EXCEPTION
2:	hlt
	jmp	2b

gdt_register:
	.word	TRIAL_GDT_SIZE - 1
	.quad	TRIAL_GDT
idt_register:
	.word	32 * 16 - 1
	.quad	TRIAL_IDT
probe_guest_end:

/* For probe_kvm.c: the size of the code, and where in it the exception handlers are. */
	.balign 4
probe_guest_size:
	.long	probe_guest_end - probe_guest_start
probe_guest_invalid_opcode:
	.long	invalid_opcode - probe_guest_start
probe_guest_unexpected:
	.long	unexpected - probe_guest_start

/* Where each step begins, so that a later one can be tried after one that failed. */
probe_guest_steps:
	.irp number, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18
	.long	step_\number - probe_guest_start
	.endr

	.section .note.GNU-stack, "", @progbits
