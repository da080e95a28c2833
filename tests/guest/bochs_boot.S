/* Boot sector of a disk whose next sectors are a guest's ELF file: reads it to 2 MiB by the BIOS, loads its segments, and starts it as
 * a multiboot loader does. Bochs has no loader of its own. Multiboot Specification 0.6.96, "Machine state". */

#define STAGING 0x200000
#define BUFFER_SEGMENT 0x1000
#define CHUNK 32			/* sectors read at once */

	.code16
	.globl _start
_start:
	ljmp $0, $1f
1:	cli
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movw $0x7c00, %sp
	inb $0x92, %al
	orb $2, %al
	outb %al, $0x92
	lgdt gdtr
	movl $STAGING, %edi
	movl $1, %ebp			/* LBA */
next:	movl %ebp, lba
	movb $0x42, %ah
	movb $0x80, %dl
	movw $packet, %si
	sti
	int $0x13
	cli
	movl %cr0, %eax			/* a moment of protected mode, for segments of 4 GiB */
	orb $1, %al
	movl %eax, %cr0
	movw $0x10, %bx
	movw %bx, %es
	movw %bx, %ds
	andb $0xfe, %al
	movl %eax, %cr0
	movl $BUFFER_SEGMENT << 4, %esi
	movl $CHUNK * 512 / 4, %ecx
	cld
	addr32 rep movsl
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	addl $CHUNK, %ebp
	cmpl sectors, %ebp
	jb next
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $8, $flat
packet:	.byte 16, 0
	.word CHUNK
	.word 0, BUFFER_SEGMENT
lba:	.long 0, 0
	.balign 8
gdt:	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:	.word . - gdt - 1
	.long gdt
	.code32
flat:	movw $0x10, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $STAGING, %ebx
	movzwl 44(%ebx), %edx		/* program headers */
	movl 28(%ebx), %ebp
	addl %ebx, %ebp
1:	cmpl $1, (%ebp)			/* PT_LOAD */
	jne 2f
	movl 4(%ebp), %esi
	addl %ebx, %esi
	movl 12(%ebp), %edi
	movl 16(%ebp), %ecx
	rep movsb
	movl 20(%ebp), %ecx
	subl 16(%ebp), %ecx
	xorl %eax, %eax
	rep stosb
2:	addl $32, %ebp
	decl %edx
	jnz 1b
	movl $0x2badb002, %eax
	movl 24(%ebx), %ecx
	movl $mbi, %ebx
	jmp *%ecx
mbi:	.long 4, 0, 0, 0, cmdline
cmdline: .byte 0
	.org 0x1f6
sectors: .long 0			/* of the disk's contents; filled in by bochs.py */
	.org 510
	.word 0xaa55

	.section .note.GNU-stack, "", @progbits
