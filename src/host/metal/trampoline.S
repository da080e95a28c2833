/* Where another CPU starts: a page below 1 MiB, to which this is copied, in real mode with CS pointing at it. Goes to long mode with the host's
 * page tables, which map that page to itself meanwhile, and calls what the first CPU has put into trampoline_data.
 * Intel SDM volume 3, "Multiple-Processor (MP) Initialization". */

#define PAGE 0x8000
#define HERE(symbol) (symbol - trampoline_start + PAGE)

	.section .rodata
	.balign 16
	.globl trampoline_start, trampoline_data, trampoline_end
	.code16
trampoline_start:
	cli
	cld
	movw %cs, %ax
	movw %ax, %ds
	lgdtl gdt_register - trampoline_start
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $0x18, $HERE(1f)
	.code32
1:	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $0x20, %eax		/* PAE */
	movl %eax, %cr4
	movl HERE(trampoline_data), %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx		/* EFER: LME, NXE */
	rdmsr
	orl $0x900, %eax
	wrmsr
	movl $0x80010011, %eax		/* PG, WP, ET, PE; caches on */
	movl %eax, %cr0
	ljmp $0x08, $HERE(1f)
	.code64
1:	movq HERE(trampoline_data) + 8, %rsp
	movq HERE(trampoline_data) + 16, %rdi
	movq HERE(trampoline_data) + 24, %rax
	xorl %ebp, %ebp
	call *%rax
	ud2

	.balign 8
gdt:
	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
gdt_register:
	.word . - gdt - 1
	.long HERE(gdt)
	.balign 8
trampoline_data:
	.quad 0, 0, 0, 0	/* struct start in smp.c */
trampoline_end:

	.section .note.GNU-stack, "", @progbits
