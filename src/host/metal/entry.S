/* Where boot loaders enter, in 32-bit flat protected mode with paging off: EAX a magic number, EBX the address of the boot information.
 * From here to long mode with the first 4 GiB mapped to themselves and the first GiB at the top of the address space, too; then C.
 * Multiboot2 Specification version 2.0, "I386 machine state"; Multiboot Specification version 0.6.96, "Machine state".
 * Intel SDM volume 3, "Initializing IA-32e Mode". */

#define KERNEL_BASE 0xffffffff80000000
#define PHYSICAL(symbol) (symbol - KERNEL_BASE)

#define MULTIBOOT1_MAGIC 0x1badb002
#define MULTIBOOT1_FLAGS 0x00010003	/* the addresses below; modules on pages; memory map */
#define MULTIBOOT2_MAGIC 0xe85250d6

#define CODE64 0x08
#define DATA 0x10
#define CODE32 0x18

	.section .boot.header, "ax"
	.balign 8
multiboot1:
	.long MULTIBOOT1_MAGIC, MULTIBOOT1_FLAGS, -(MULTIBOOT1_MAGIC + MULTIBOOT1_FLAGS)
	.long multiboot1, image_start, image_data_end, image_end, metal_entry
	.balign 8
multiboot2:
	.long MULTIBOOT2_MAGIC, 0, multiboot2_end - multiboot2
	.long -(MULTIBOOT2_MAGIC + (multiboot2_end - multiboot2))
	.balign 8
	.short 1, 0		/* information wanted: modules, memory map, command line */
	.long 20, 3, 6, 1
	.balign 8
	.short 6, 0		/* modules on pages */
	.long 8
	.balign 8
	.short 0, 0
	.long 8
multiboot2_end:

	.section .boot, "ax"
	.code32
	.globl metal_entry
metal_entry:
	cli
	cld
	movl %eax, %edi
	movl %ebx, %esi
	movl $PHYSICAL(boot_stack_top), %esp
	lgdt boot_gdt_register
	ljmp $CODE32, $1f
1:	movl $DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	movl $0x80000000, %eax
	cpuid
	cmpl $0x80000001, %eax
	jb no_long_mode
	movl $0x80000001, %eax
	cpuid
	testl $0x20000000, %edx
	jz no_long_mode
	movl $0x20, %eax		/* PAE */
	movl %eax, %cr4
	movl $PHYSICAL(boot_pml4), %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx		/* EFER.LME */
	rdmsr
	orl $0x100, %eax
	wrmsr
	movl $0x80000011, %eax		/* PG, ET, PE */
	movl %eax, %cr0
	ljmp $CODE64, $1f
	.code64
1:	movabsq $metal_start, %rax
	movabsq $boot_stack_top, %rsp
	xorl %ebp, %ebp
	movl %edi, %edi
	movl %esi, %esi
	call *%rax
	ud2

	.code32
no_long_mode:
	movl $no_long_mode_text, %esi
1:	movb (%esi), %al
	testb %al, %al
	jz 3f
	movb %al, %ah
	movw $0x3fd, %dx
2:	inb %dx, %al
	testb $0x20, %al
	jz 2b
	movw $0x3f8, %dx
	movb %ah, %al
	outb %al, %dx
	incl %esi
	jmp 1b
3:	hlt
	jmp 3b

no_long_mode_text:
	.asciz "nadir: this CPU has no 64-bit mode, which nadir needs\r\n"

	.balign 8
boot_gdt:
	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
boot_gdt_register:
	.word . - boot_gdt - 1
	.long boot_gdt

	.data
	.balign 4096
boot_pml4:
	.quad PHYSICAL(boot_pdpt) + 3
	.fill 510, 8, 0
	.quad PHYSICAL(boot_pdpt_high) + 3
boot_pdpt:
	.quad PHYSICAL(boot_pd) + 3, PHYSICAL(boot_pd) + 0x1003, PHYSICAL(boot_pd) + 0x2003, PHYSICAL(boot_pd) + 0x3003
	.fill 508, 8, 0
boot_pdpt_high:
	.fill 510, 8, 0
	.quad PHYSICAL(boot_pd) + 3
	.quad 0
boot_pd:
	.set page, 0
	.rept 2048
	.quad (page << 21) + 0x83
	.set page, page + 1
	.endr

	.bss
	.balign 4096
	.globl boot_stack_guard		/* a page that map.c leaves out */
boot_stack_guard:
	.skip 4096
	.skip 32768
boot_stack_top:

	.section .note.GNU-stack, "", @progbits
