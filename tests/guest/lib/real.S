/* Real mode: run_real() starts a state in real mode and comes back with the state at the first interrupt or exception, as
 * run() does in protected mode. Interrupt vectors all lead to stubs here. Intel SDM volume 3, "Mode Switching". */
#include "lib/asm.h"

#define LOW(symbol) (symbol - real_regs) /* .low.first is at LOW_BASE */

	.section .low.first, "awx"
	.code16
	/* The state in struct real_state's order. */
	.globl real_regs
real_regs:
real_ax:	.long 0
real_cx:	.long 0
real_dx:	.long 0
real_bx:	.long 0
real_sp:	.long 0
real_bp:	.long 0
real_si:	.long 0
real_di:	.long 0
real_ip:	.long 0
real_flags:	.long 0
real_cs:	.long 0
real_ss:	.long 0
real_ds:	.long 0
real_es:	.long 0
real_fs:	.long 0
real_gs:	.long 0
real_vector:	.long 0

real_idt:	.word 0x3ff
		.long 0
kernel_sp:	.long 0
kernel_gdt:	.word 0
		.long 0
kernel_idt:	.word 0
		.long 0

	.balign 8
	.globl real_stubs
real_stubs:
	.set vector, 0
	.rept 256
	.balign 8
	pushw $vector
	jmp real_entry
	.set vector, vector + 1
	.endr

real_entry:
	cld
	.irp register, ax, cx, dx, bx, bp, si, di
	movl %e\register, %cs:LOW(real_\register)
	.endr
	.irp register, ss, ds, es, fs, gs
	movw %\register, %cs:LOW(real_\register)
	.endr
	xorl %eax, %eax
	.irp field, vector, ip, cs, flags
	popw %ax
	movl %eax, %cs:LOW(real_\field)
	.endr
	movl %esp, %cs:LOW(real_sp)
	lgdtl %cs:LOW(kernel_gdt)
	lidtl %cs:LOW(kernel_idt)
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $SEL_CODE32, $real_leave

real_enter16:
	movl $SEL_DATA16, %eax
	.irp register, ds, es, fs, gs, ss
	movl %eax, %\register
	.endr
	movl %cr0, %eax
	andb $0xfe, %al
	movl %eax, %cr0
	ljmp $LOW_SEGMENT, $LOW(real_enter)
real_enter:
	lidtl %cs:LOW(real_idt)
	movw %cs:LOW(real_ss), %ss
	movl %cs:LOW(real_sp), %esp
	pushw %cs:LOW(real_flags)
	pushw %cs:LOW(real_cs)
	pushw %cs:LOW(real_ip)
	.irp register, fs, gs, es, ds
	movw %cs:LOW(real_\register), %\register
	.endr
	.irp register, ax, cx, dx, bx, bp, si, di
	movl %cs:LOW(real_\register), %e\register
	.endr
	iretw

	.text
	.code32
	/* void real_switch(void): to the state in real_regs and back. Interrupts off, paging off. */
	.globl real_switch
real_switch:
	pushal
	movl %esp, kernel_sp
	sgdt kernel_gdt
	sidt kernel_idt
	ljmp $SEL_CODE16LOW, $LOW(real_enter16)
real_leave:
	movl $SEL_DATA, %eax
	.irp register, ds, es, ss
	movl %eax, %\register
	.endr
	movl kernel_sp, %esp
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	popal
	ret

	.section .note.GNU-stack, "", @progbits
