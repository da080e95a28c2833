/* The runtime of a space: all the code that its process has beside translated code. It waits for a request, has mappings changed, loads
 * the guest's registers and jumps to translated code; when that leaves or traps, it stores the registers and answers. See space_layout.h.
 *
 * It is copied to SPACE_RUNTIME in the hole and finds everything relative to itself. Translated code has RSP for itself. The seccomp
 * filter lets only the SYSCALL instructions of this page through. */
#include "host/linux/space_layout.h"

#include <asm/prctl.h>
#include <asm/unistd.h>

/* linux/futex.h is for C alone. */
#define FUTEX_WAIT 0
#define FUTEX_WAKE 1

#define AT(offset) begin - SPACE_RUNTIME + offset(%rip)
#define WINDOW(field) AT(SPACE_WINDOW + field)
#define CONTROL(field) AT(SPACE_CONTROL + field)
#define ANSWER(field) AT(SPACE_ANSWER + field)

/* Registers in a struct ucontext; Linux, asm/sigcontext.h. */
#define UCONTEXT(number) (40 + 8 * (number))

	.section .rodata
	.code64
	.balign 64
	.globl space_runtime, space_runtime_size, space_runtime_leave, space_runtime_trap

/* The process begins here: forget everything but the hole. */
space_runtime:
begin:
	lea	AT(SPACE_STACK_TOP), %rsp
	mov	$ARCH_SET_FS, %edi
	xor	%esi, %esi
	mov	$__NR_arch_prctl, %eax
	syscall
	xor	%edi, %edi
	lea	AT(0), %rsi
	mov	$__NR_munmap, %eax
	syscall
	test	%rax, %rax
	jnz	give_up
	lea	AT(SPACE_HOLE), %rdi
	movabs	$(1 << 47) - 4096, %rsi
	sub	%rdi, %rsi
	mov	$__NR_munmap, %eax
	syscall
	test	%rax, %rax
	jnz	give_up
	movl	$KIND_DONE, ANSWER(ANSWER_KIND)

/* The request is done. A VMM that slept had better have this CPU to go on; one that did not is on another, and looking for its next
 * request for a while is cheaper than being woken. */
	.balign 16, 0x90
answer:
	mov	CONTROL(CONTROL_SEQUENCE), %ebx
	mov	%ebx, %eax
	xchg	%eax, ANSWER(ANSWER_DONE)
	cmpl	$WAITING_ASLEEP, CONTROL(CONTROL_WAITING)
	jb	spin
	je	1f
	xor	%edi, %edi	/* RUSAGE_SELF */
	lea	ANSWER(ANSWER_USAGE), %rsi
	mov	$__NR_getrusage, %eax
	syscall
1:
	lea	ANSWER(ANSWER_DONE), %rdi
	mov	$FUTEX_WAKE, %esi
	mov	$1, %edx
	mov	$__NR_futex, %eax
	syscall
	jmp	sleep
spin:
	rdtsc
	mov	%eax, %ecx
1:	cmp	CONTROL(CONTROL_SEQUENCE), %ebx
	jne	request
	pause
	rdtsc
	sub	%ecx, %eax
	cmp	CONTROL(CONTROL_SPIN), %eax
	jb	1b
sleep:
	mov	$1, %eax
	xchg	%eax, ANSWER(ANSWER_SLEEPING)
wait:
	cmp	CONTROL(CONTROL_SEQUENCE), %ebx
	jne	request
	lea	CONTROL(CONTROL_SEQUENCE), %rdi
	mov	$FUTEX_WAIT, %esi
	mov	%ebx, %edx
	xor	%r10d, %r10d
	mov	$__NR_futex, %eax
	syscall
	jmp	wait

request:
	movl	$0, ANSWER(ANSWER_SLEEPING)
	cmpl	$0, CONTROL(CONTROL_RDTSCP)
	je	1f
	rdtscp
	mov	%ecx, ANSWER(ANSWER_CPU)
1:	cmpl	$0, CONTROL(CONTROL_MOVE)
	je	1f
	xor	%edi, %edi
	mov	$SPACE_CPUS / 8, %esi
	lea	CONTROL(CONTROL_CPUS), %rdx
	mov	$__NR_sched_setaffinity, %eax
	syscall
1:	mov	CONTROL(CONTROL_COUNT), %ebp
	lea	CONTROL(CONTROL_COMMAND), %rbx
	jmp	2f
1:	mov	(%rbx), %rdi
	mov	8(%rbx), %rsi
	mov	16(%rbx), %r9
	mov	24(%rbx), %edx
	mov	28(%rbx), %r10d
	mov	$SPACE_RAM_FD, %r8d
	mov	$__NR_mmap, %eax
	mov	$__NR_munmap, %ecx
	test	%r10d, %r10d
	cmovz	%ecx, %eax
	syscall
	cmp	$-4095, %rax
	jae	failed
	add	$32, %rbx
2:	sub	$1, %ebp
	jns	1b
	cmpl	$0, CONTROL(CONTROL_RUN)
	jne	run
	movl	$KIND_DONE, ANSWER(ANSWER_KIND)
	jmp	answer
failed:
	movl	$KIND_FAILED, ANSWER(ANSWER_KIND)
	jmp	answer

run:
	rdtsc
	mov	%eax, WINDOW(WINDOW_RAN_FROM)
	mov	%edx, 4 + WINDOW(WINDOW_RAN_FROM)
	mov	WINDOW(WINDOW_FS_BASE), %rsi
	cmpl	$0, CONTROL(CONTROL_FSGSBASE)
	je	1f
	rdfsbase %rax
	cmp	%rsi, %rax
	je	2f
	wrfsbase %rsi
	jmp	2f
1:	cmp	%rsi, ANSWER(ANSWER_FS_BASE)
	je	2f
	mov	%rsi, ANSWER(ANSWER_FS_BASE)
	mov	$ARCH_SET_FS, %edi
	mov	$__NR_arch_prctl, %eax
	syscall
2:	mov	WINDOW(WINDOW_XCR0_MASK), %eax
	mov	4 + WINDOW(WINDOW_XCR0_MASK), %edx
	xrstor64 WINDOW(WINDOW_XSAVE)
	push	WINDOW(WINDOW_RFLAGS)
	mov	WINDOW(WINDOW_GPR + 8 * 0), %rax
	mov	WINDOW(WINDOW_GPR + 8 * 1), %rcx
	mov	WINDOW(WINDOW_GPR + 8 * 2), %rdx
	mov	WINDOW(WINDOW_GPR + 8 * 3), %rbx
	mov	WINDOW(WINDOW_GPR + 8 * 5), %rbp
	mov	WINDOW(WINDOW_GPR + 8 * 6), %rsi
	mov	WINDOW(WINDOW_GPR + 8 * 7), %rdi
	mov	WINDOW(WINDOW_GPR + 8 * 8), %r8
	mov	WINDOW(WINDOW_GPR + 8 * 9), %r9
	mov	WINDOW(WINDOW_GPR + 8 * 10), %r10
	mov	WINDOW(WINDOW_GPR + 8 * 11), %r11
	mov	WINDOW(WINDOW_GPR + 8 * 12), %r12
	mov	WINDOW(WINDOW_GPR + 8 * 13), %r13
	mov	WINDOW(WINDOW_GPR + 8 * 14), %r14
	mov	WINDOW(WINDOW_GPR + 8 * 15), %r15
	popf
	mov	WINDOW(WINDOW_GPR + 8 * 4), %rsp
	jmp	*WINDOW(WINDOW_RIP)

/* Translated code jumps here; every register is the guest's. */
	.balign 16, 0x90
leave:
	mov	%rsp, WINDOW(WINDOW_GPR + 8 * 4)
	lea	AT(SPACE_STACK_TOP), %rsp
	pushf
	pop	WINDOW(WINDOW_RFLAGS)
	cld
	mov	%rax, WINDOW(WINDOW_GPR + 8 * 0)
	mov	%rcx, WINDOW(WINDOW_GPR + 8 * 1)
	mov	%rdx, WINDOW(WINDOW_GPR + 8 * 2)
	mov	%rbx, WINDOW(WINDOW_GPR + 8 * 3)
	mov	%rbp, WINDOW(WINDOW_GPR + 8 * 5)
	mov	%rsi, WINDOW(WINDOW_GPR + 8 * 6)
	mov	%rdi, WINDOW(WINDOW_GPR + 8 * 7)
	mov	%r8, WINDOW(WINDOW_GPR + 8 * 8)
	mov	%r9, WINDOW(WINDOW_GPR + 8 * 9)
	mov	%r10, WINDOW(WINDOW_GPR + 8 * 10)
	mov	%r11, WINDOW(WINDOW_GPR + 8 * 11)
	mov	%r12, WINDOW(WINDOW_GPR + 8 * 12)
	mov	%r13, WINDOW(WINDOW_GPR + 8 * 13)
	mov	%r14, WINDOW(WINDOW_GPR + 8 * 14)
	mov	%r15, WINDOW(WINDOW_GPR + 8 * 15)
	movl	$KIND_LEFT, ANSWER(ANSWER_KIND)
	rdtsc
	mov	%eax, WINDOW(WINDOW_RAN_TO)
	mov	%edx, 4 + WINDOW(WINDOW_RAN_TO)
	mov	WINDOW(WINDOW_XCR0_MASK), %eax
	mov	4 + WINDOW(WINDOW_XCR0_MASK), %edx
	xsave64	WINDOW(WINDOW_XSAVE)
	jmp	answer

/* The handler of all signals: RDX is the context. The kernel has put the extended state there and given us a fresh one. It never returns,
 * since the next run loads all registers anyway; no signal is blocked meanwhile. */
#define KEEP(number, place) mov UCONTEXT(number)(%rdx), %rax; mov %rax, place
#define KEEP_GPR(number, gpr) KEEP(number, WINDOW(WINDOW_GPR + 8 * gpr))

	.balign 16, 0x90
trap:
	lea	AT(SPACE_STACK_TOP), %rsp
	KEEP_GPR(0, 8)
	KEEP_GPR(1, 9)
	KEEP_GPR(2, 10)
	KEEP_GPR(3, 11)
	KEEP_GPR(4, 12)
	KEEP_GPR(5, 13)
	KEEP_GPR(6, 14)
	KEEP_GPR(7, 15)
	KEEP_GPR(8, 7)
	KEEP_GPR(9, 6)
	KEEP_GPR(10, 5)
	KEEP_GPR(11, 3)
	KEEP_GPR(12, 2)
	KEEP_GPR(13, 0)
	KEEP_GPR(14, 1)
	KEEP_GPR(15, 4)
	KEEP(16, WINDOW(WINDOW_RIP))
	KEEP(17, WINDOW(WINDOW_RFLAGS))
	KEEP(19, ANSWER(ANSWER_ERROR))
	KEEP(20, ANSWER(ANSWER_VECTOR))
	KEEP(22, ANSWER(ANSWER_ADDRESS))
	movl	$KIND_TRAP, ANSWER(ANSWER_KIND)
	mov	UCONTEXT(23)(%rdx), %rbx
	rdtsc
	mov	%eax, WINDOW(WINDOW_RAN_TO)
	mov	%edx, 4 + WINDOW(WINDOW_RAN_TO)
	mov	WINDOW(WINDOW_XCR0_MASK), %eax
	mov	4 + WINDOW(WINDOW_XCR0_MASK), %edx
	xrstor64 (%rbx)
	xsave64	WINDOW(WINDOW_XSAVE)
	jmp	answer

give_up:
	mov	$1, %edi
	mov	$__NR_exit_group, %eax
	syscall
	ud2
end:

	.balign 4
space_runtime_size:
	.long	end - begin
space_runtime_leave:
	.long	leave - begin
space_runtime_trap:
	.long	trap - begin

	.section .note.GNU-stack, "", @progbits
