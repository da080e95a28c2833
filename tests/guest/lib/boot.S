/* Entry by multiboot 1 or PVH: both arrive in 32-bit flat protected mode with EBX at the boot information. Goes to long mode where
 * the guest is a 64-bit one. Multiboot Specification 0.6.96, "Boot information format"; Xen's "x86/HVM direct boot ABI".
 * Intel SDM volume 3, "Initializing IA-32e Mode". */
#include "lib/asm.h"

#define MULTIBOOT_MAGIC 0x1badb002
#define MULTIBOOT_FLAGS 0

	.section .multiboot, "a"
	.balign 4
	.long MULTIBOOT_MAGIC, MULTIBOOT_FLAGS, -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 4, 18
	.asciz "Xen"
	.long _start

	.text
	.code32
	.globl _start
_start:
	cli
	cld
	movl $boot_stack_top, %esp
	movl %eax, boot_magic
	movl %ebx, boot_information
	lgdt boot_gdt_register
	ljmp $SEL_CODE32, $1f
1:	movl $SEL_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	lldt %ax
	pushl $0
	popfl
#ifdef __x86_64__
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
1:	call guest_start
#else
	movl $0x31, %eax		/* NE, ET, PE */
	movl %eax, %cr0
	xorl %eax, %eax
	movl %eax, %cr4
	call guest_start
#endif
	ud2

	.data
	.balign 8
boot_gdt:
	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
boot_gdt_register:
	.word . - boot_gdt - 1
	.long boot_gdt
	.globl boot_magic, boot_information
boot_magic:
	.long 0
boot_information:
	.long 0

#ifdef __x86_64__
	/* The low 4 GiB by 2 MiB pages, open to user code; accessed and dirty from the start. */
	.balign 4096
	.globl boot_pml4
boot_pml4:
	.quad boot_pdpt + 7
	.fill 511, 8, 0
boot_pdpt:
	.quad boot_pd + 7, boot_pd + 0x1007, boot_pd + 0x2007, boot_pd + 0x3007
	.fill 508, 8, 0
boot_pd:
	.set page, 0
	.rept 2048
	.quad (page << 21) + 0xe7
	.set page, page + 1
	.endr
#endif

	.bss
	.balign 16
	.skip 32768
boot_stack_top:
	.skip 64
	.globl test_stack, test_stack_top
	.balign 4096
test_stack:
	.skip 65536
test_stack_top:
	.skip 4096

	.section .note.GNU-stack, "", @progbits
