/* Into and out of the state under test: everything goes through the context at its fixed address, since no register is free. */
#include "native.h"

	.intel_syntax noprefix
	.text


	/* void native_enter(void); runs the code at entry (64-bit) */
	.globl native_enter
	/* void native_enter32(void); through the far pointer (32-bit) */
	.globl native_enter32
	.globl native_exit, native_leave

	/* 32-bit code needs data segments; 64-bit code does not mind them. */
	.macro load_state
	mov eax, 0x2b
	mov ds, eax
	mov es, eax
	push rbx
	push rbp
	push r12
	push r13
	push r14
	push r15
	pushfq
	mov [CTX_HOST_RSP], rsp
	mov eax, [CTX_MASK]
	mov edx, [CTX_MASK + 4]
	xrstor64 [CTX_IN_IMAGE]
	mov rsp, CTX_STACK_TOP
	push qword ptr [CTX_RFLAGS]
	popfq
	mov rax, [CONTEXT_ADDRESS + 0]
	mov rcx, [CONTEXT_ADDRESS + 8]
	mov rdx, [CONTEXT_ADDRESS + 16]
	mov rbx, [CONTEXT_ADDRESS + 24]
	mov rsp, [CONTEXT_ADDRESS + 32]
	mov rbp, [CONTEXT_ADDRESS + 40]
	mov rsi, [CONTEXT_ADDRESS + 48]
	mov rdi, [CONTEXT_ADDRESS + 56]
	mov r8, [CONTEXT_ADDRESS + 64]
	mov r9, [CONTEXT_ADDRESS + 72]
	mov r10, [CONTEXT_ADDRESS + 80]
	mov r11, [CONTEXT_ADDRESS + 88]
	mov r12, [CONTEXT_ADDRESS + 96]
	mov r13, [CONTEXT_ADDRESS + 104]
	mov r14, [CONTEXT_ADDRESS + 112]
	mov r15, [CONTEXT_ADDRESS + 120]
	.endm

native_enter:
	load_state
	jmp qword ptr [CTX_ENTRY]

native_enter32:
	load_state
	jmp fword ptr [CTX_FAR]

native_exit:
	mov [CTX_OUT_GPR + 0], rax
	mov [CTX_OUT_GPR + 8], rcx
	mov [CTX_OUT_GPR + 16], rdx
	mov [CTX_OUT_GPR + 24], rbx
	mov [CTX_OUT_GPR + 32], rsp
	mov [CTX_OUT_GPR + 40], rbp
	mov [CTX_OUT_GPR + 48], rsi
	mov [CTX_OUT_GPR + 56], rdi
	mov [CTX_OUT_GPR + 64], r8
	mov [CTX_OUT_GPR + 72], r9
	mov [CTX_OUT_GPR + 80], r10
	mov [CTX_OUT_GPR + 88], r11
	mov [CTX_OUT_GPR + 96], r12
	mov [CTX_OUT_GPR + 104], r13
	mov [CTX_OUT_GPR + 112], r14
	mov [CTX_OUT_GPR + 120], r15
	mov rsp, CTX_STACK_TOP
	pushfq
	pop qword ptr [CTX_OUT_RFLAGS]
	mov eax, [CTX_MASK]
	mov edx, [CTX_MASK + 4]
	xsave64 [CTX_OUT_IMAGE]
native_leave:
	mov eax, [CTX_MASK]
	mov edx, [CTX_MASK + 4]
	xrstor64 [CTX_INIT_IMAGE]
	mov rsp, [CTX_HOST_RSP]
	popfq
	pop r15
	pop r14
	pop r13
	pop r12
	pop rbp
	pop rbx
	ret
	.section .note.GNU-stack, "", @progbits
