/* Entry and return of exceptions and interrupts, 32-bit. The frame may lie on any stack (16-bit, with a base, another ring's), so
 * its parts are popped into `captured` before flat segments are assumed. */
#include "lib/asm.h"

	/* Offsets in struct state. */
#define CR2 0
#define GS 4
#define FS 8
#define ES 12
#define DS 16
#define DI 20
#define SI 24
#define BP 28
#define UNUSED 32
#define BX 36
#define DX 40
#define CX 44
#define AX 48
#define VECTOR 52
#define ERROR 56
#define IP 60
#define CS 64
#define FLAGS 68
#define SP 72
#define SS 76

	.text
	.code32
	.globl trap_stubs
	.balign 16
trap_stubs:
	.set vector, 0
	.rept 256
	.balign 16
	.if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
	.else
	pushl $0xfeed
	.endif
	pushl $vector
	jmp trap_entry
	.set vector, vector + 1
	.endr

trap_entry:
	pushal
	cld
	pushl %ds
	pushl %es
	pushl %fs
	pushl %gs
	movl %cr2, %eax
	pushl %eax
	movl $SEL_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	.irp field, CR2, GS, FS, ES, DS, DI, SI, BP, UNUSED, BX, DX, CX, AX, VECTOR, ERROR, IP, CS, FLAGS
	popl captured + \field
	.endr
	testl $0x20000, captured + FLAGS	/* VM */
	jnz 1f
	testb $3, captured + CS
	jnz 1f
	movl %esp, captured + SP
	movl %ss, %eax
	movl %eax, captured + SS
	jmp 2f
1:	popl captured + SP
	popl captured + SS
	testl $0x20000, captured + FLAGS
	jz 2f
	popl captured + ES
	popl captured + DS
	popl captured + FS
	popl captured + GS
2:	movl %ss, %eax
	cmpw $SEL_DATA, %ax
	je 3f
	movl $SEL_DATA, %eax
	movl %eax, %ss
	movl run_sp, %esp
3:	call trap_dispatch
	ud2

	/* void run(struct state *s) */
	.globl run
run:
	movl 4(%esp), %eax
	pushl %ebx
	pushl %esi
	pushl %edi
	pushl %ebp
	pushfl
	movl %esp, run_sp
	movl %eax, run_current
	pushl %eax
	call trap_resume
	ud2

	/* End of a run, in any state but with flat segments: return to run()'s caller, through IRET to unblock NMIs. */
	.globl run_leave
run_leave:
	movl run_sp, %esp
	movl $0, run_current
	movl $SEL_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	pushl $2
	pushl $SEL_CODE32
	pushl $1f
	iretl
1:	popfl
	popl %ebp
	popl %edi
	popl %esi
	popl %ebx
	ret

	/* Load the state in `captured` and go there. */
	.globl trap_load
trap_load:
	testl $0x20000, captured + FLAGS
	jnz 1f
	movl captured + FS, %eax
	movl %eax, %fs
	movl captured + GS, %eax
	movl %eax, %gs
	testb $3, captured + CS
	jnz 2f
	movl captured + SS, %eax
	movl %eax, %ss
	movl captured + SP, %esp
	jmp 3f
1:	pushl captured + GS
	pushl captured + FS
	pushl captured + DS
	pushl captured + ES
2:	pushl captured + SS
	pushl captured + SP
3:	pushl captured + FLAGS
	pushl captured + CS
	pushl captured + IP
	testl $0x20000, captured + FLAGS
	movl captured + DI, %edi
	movl captured + SI, %esi
	movl captured + BP, %ebp
	movl captured + BX, %ebx
	movl captured + DX, %edx
	movl captured + CX, %ecx
	movl captured + AX, %eax
	jnz 4f
	movw captured + ES, %es
	movw captured + DS, %ds
4:	iretl

	/* The #DF task: the state is in the interrupted TSS, the error code on this stack. */
	.globl df_task
df_task:
	cld
	call df_dispatch
	ud2

	.globl captured
	.bss
	.balign 16
captured:
	.skip 128

	.section .note.GNU-stack, "", @progbits
