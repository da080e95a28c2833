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
/* Nor is signal.h. */
#define SIG_BLOCK 0
#define SIG_UNBLOCK 1

#define AT(offset) begin - SPACE_RUNTIME + offset(%rip)
#define WINDOW(field) AT(SPACE_WINDOW + field)
#define CONTROL(field) AT(SPACE_CONTROL + field)
#define ANSWER(field) AT(SPACE_ANSWER + field)

/* Registers in a struct ucontext; Linux, asm/sigcontext.h. */
#define UCONTEXT(number) (40 + 8 * (number))

	.section .rodata
	.code64
	.balign 64
	.globl space_runtime, space_runtime_size, space_runtime_leave, space_runtime_enter_place, space_runtime_trap, space_runtime_rung

/* The pass that the filter wants to see with every change of mappings. Nothing of it is left when guest code may run, or a signal may come,
 * which stores registers where guest code can read them. */
	.macro show_pass
	mov	ANSWER(ANSWER_PASS), %r10
	mov	ANSWER(ANSWER_PASS + 8), %r8
	.endm

	.macro forget_pass
	xor	%r8d, %r8d
	mov	%r8, ANSWER(ANSWER_PASS)
	mov	%r8, ANSWER(ANSWER_PASS + 8)
	let_signals SIG_UNBLOCK
	.endm

	.macro let_signals how
	mov	$\how, %edi
	lea	stop_signal(%rip), %rsi
	xor	%edx, %edx
	mov	$8, %r10d
	mov	$__NR_rt_sigprocmask, %eax
	syscall
	.endm

	.macro load_gprs
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
	.endm

/* The process begins here: forget everything but the hole. */
space_runtime:
begin:
	lea	AT(SPACE_STACK_TOP), %rsp
	mov	$ARCH_SET_FS, %edi
	xor	%esi, %esi
	mov	$__NR_arch_prctl, %eax
	syscall
	show_pass
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
	forget_pass
	movl	$KIND_DONE, ANSWER(ANSWER_KIND)

/* The request is done. To ring comes first: it is the proof that this process waits, because the filter lets only these two instructions
 * ring, and what follows each waits for the next request and depends on nothing that guest code can write, whoever jumped there. A VMM that
 * slept had better have this CPU to go on; one that did not is on another, and looking for its next request for a while is cheaper than
 * being woken. */
	.macro wait_behind parity, come
	lea	CONTROL(CONTROL_RING + 8 * \parity), %rsi
	mov	$SPACE_RING_FD, %edi
	mov	$8, %edx
	mov	$__NR_write, %eax
	syscall
rung\parity:
	mov	CONTROL(CONTROL_SEQUENCE), %eax
	xchg	%eax, ANSWER(ANSWER_DONE)
	cmpl	$WAITING_ASLEEP, CONTROL(CONTROL_WAITING)
	jb	2f
	je	1f
	xor	%edi, %edi	/* RUSAGE_SELF */
	lea	ANSWER(ANSWER_USAGE), %rsi
	mov	$__NR_getrusage, %eax
	syscall
1:	lea	ANSWER(ANSWER_DONE), %rdi
	mov	$FUTEX_WAKE, %esi
	mov	$1, %edx
	mov	$__NR_futex, %eax
	syscall
	jmp	4f
2:	rdtsc
	mov	%eax, %ecx
3:	testl	$1, CONTROL(CONTROL_SEQUENCE)
	\come	request
	pause
	rdtsc
	sub	%ecx, %eax
	cmp	CONTROL(CONTROL_SPIN), %eax
	jb	3b
4:	mov	$1, %eax
	xchg	%eax, ANSWER(ANSWER_SLEEPING)
5:	mov	CONTROL(CONTROL_SEQUENCE), %edx
	test	$1, %edx
	\come	request
	lea	CONTROL(CONTROL_SEQUENCE), %rdi
	mov	$FUTEX_WAIT, %esi
	xor	%r10d, %r10d
	mov	$__NR_futex, %eax
	syscall
	jmp	5b
	.endm

	.balign 16, 0x90
answer:
	testl	$1, CONTROL(CONTROL_SEQUENCE)
	jnz	answer_odd
	wait_behind 0, jnz
answer_odd:
	wait_behind 1, jz

request:
	lea	AT(SPACE_STACK_TOP), %rsp
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
	test	%ebp, %ebp
	jz	3f
	let_signals SIG_BLOCK
	lea	CONTROL(CONTROL_COMMAND), %rbx
	jmp	2f
1:	mov	(%rbx), %rdi
	mov	8(%rbx), %rsi
	mov	16(%rbx), %r9
	mov	24(%rbx), %edx
	show_pass
	or	$SPACE_RAM_FD, %r8
	mov	28(%rbx), %eax
	or	%rax, %r10
	mov	$__NR_munmap, %ecx
	test	%eax, %eax
	mov	$__NR_mmap, %eax
	cmovz	%ecx, %eax
	syscall
	cmp	$-4095, %rax
	jae	failed
	add	$32, %rbx
2:	sub	$1, %ebp
	jns	1b
	forget_pass
3:	cmpl	$0, CONTROL(CONTROL_RUN)
	jne	run
	movl	$KIND_DONE, ANSWER(ANSWER_KIND)
	jmp	answer
failed:
	forget_pass
	movl	$KIND_FAILED, ANSWER(ANSWER_KIND)
	jmp	answer

run:
	rdtsc
	mov	%eax, WINDOW(WINDOW_RAN_FROM)
	mov	%edx, 4 + WINDOW(WINDOW_RAN_FROM)
	mov	WINDOW(WINDOW_FS_BASE), %rsi
	cmpl	$0, CONTROL(CONTROL_FSGSBASE)
	je	1f
	cmpl	$0, CONTROL(CONTROL_IN_PLACE)
	je	3f
	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
3:	wrfsbase %rsi
	mov	CONTROL(CONTROL_GS_BASE), %rsi
	wrgsbase %rsi
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
	load_gprs
	/* Whoever has set `stop` after this sends a signal, which finds us before the end of this part, and sees to it that we come to
	 * `stopped`. */
run_critical:
	cmpl	$0, CONTROL(CONTROL_IN_PLACE)
	je	1f
	cmpl	$0, CONTROL(CONTROL_STOP)
	jne	stopped
1:	popf
	mov	WINDOW(WINDOW_GPR + 8 * 4), %rsp
	jmp	*WINDOW(WINDOW_RIP)
run_end:

/* Translated code jumps here to go on in place. Again a signal finds us before the end if `stop` was set later than we looked. */
	.balign 16, 0x90
enter_place:
	mov	CONTROL(CONTROL_IN_PLACE), %ecx
	jrcxz	leave
enter_critical:
	mov	CONTROL(CONTROL_STOP), %ecx
	jrcxz	1f
	jmp	leave
1:	mov	WINDOW(WINDOW_GS_BASE), %rcx
	wrgsbase %rcx
	mov	WINDOW(WINDOW_PLACE_RCX), %rcx
	jmp	*WINDOW(WINDOW_PLACE_TARGET)
enter_end:

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

/* The handler of all signals: EDI is the number, RSI tells of it, RDX is the context. The kernel has put the extended state there and
 * given us a fresh one. It returns from the signal that stops code in place if no such code was interrupted; `stop` is set anyway. From all
 * others it does not return: they are answers. Until what was interrupted is copied RSP stays where it is, lest another signal's
 * context take the place of this one. */
#define KEEP(number, place) mov UCONTEXT(number)(%rdx), %rax; mov %rax, place
#define KEEP_GPR(number, gpr) KEEP(number, WINDOW(WINDOW_GPR + 8 * gpr))

	.balign 16, 0x90
trap:
	cmp	$SPACE_STOP_SIGNAL, %edi
	jne	1f
	mov	UCONTEXT(16)(%rdx), %rax
	lea	AT(0), %rcx
	sub	%rcx, %rax
	cmp	$SPACE_HOLE, %rax
	jae	1f
	lea	stopped(%rip), %rsi
	lea	-(SPACE_RUNTIME + run_critical - begin)(%rax), %rcx
	cmp	$(run_end - run_critical), %rcx
	jb	2f
	lea	leave(%rip), %rsi
	lea	-(SPACE_RUNTIME + enter_critical - begin)(%rax), %rcx
	cmp	$(enter_end - enter_critical), %rcx
	jae	3f
2:	mov	%rsi, UCONTEXT(16)(%rdx)
3:	add	$8, %rsp
	mov	$__NR_rt_sigreturn, %eax
	syscall
	ud2
1:	mov	%edi, %ebp
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
	KEEP(18, %rcx)	/* CS, two that are not told, SS */
	mov	%es, WINDOW(WINDOW_SELECTORS)
	mov	%cx, WINDOW(WINDOW_SELECTORS + 2)
	shr	$48, %rcx
	mov	%cx, WINDOW(WINDOW_SELECTORS + 4)
	mov	%ds, WINDOW(WINDOW_SELECTORS + 6)
	mov	%fs, WINDOW(WINDOW_SELECTORS + 8)
	mov	%gs, WINDOW(WINDOW_SELECTORS + 10)
	cmpl	$0, CONTROL(CONTROL_FSGSBASE)
	je	1f
	rdfsbase %rax
	mov	%rax, WINDOW(WINDOW_FS_BASE)
	mov	UCONTEXT(16)(%rdx), %rax
	lea	AT(0), %rcx
	sub	%rcx, %rax
	cmp	$SPACE_HOLE, %rax
	jb	1f
	rdgsbase %rax
	mov	%rax, WINDOW(WINDOW_GS_BASE)
	cmp	$11, %ebp	/* SIGSEGV */
	je	cross
1:
tell:	KEEP(19, ANSWER(ANSWER_ERROR))
	KEEP(20, ANSWER(ANSWER_VECTOR))
	KEEP(22, ANSWER(ANSWER_ADDRESS))
	movl	$KIND_TRAP, ANSWER(ANSWER_KIND)
	cmp	$SPACE_STOP_SIGNAL, %ebp
	je	1f
	cmp	$31, %ebp	/* SIGSYS */
	jne	2f
	movl	$KIND_SYSCALL, ANSWER(ANSWER_KIND)
	mov	16(%rsi), %rax	/* si_call_addr */
	mov	%rax, ANSWER(ANSWER_ADDRESS)
	jmp	3f
1:	movl	$KIND_STOPPED, ANSWER(ANSWER_KIND)
	jmp	3f
2:	cmp	$5, %ebp	/* SIGTRAP */
	jne	3f
	cmpl	$4, 8(%rsi)	/* TRAP_HWBKPT in si_code */
	jne	3f
	movl	$KIND_BREAK, ANSWER(ANSWER_KIND)
3:	mov	UCONTEXT(23)(%rdx), %rbx
	rdtsc
	mov	%eax, WINDOW(WINDOW_RAN_TO)
	mov	%edx, 4 + WINDOW(WINDOW_RAN_TO)
	mov	WINDOW(WINDOW_XCR0_MASK), %eax
	mov	4 + WINDOW(WINDOW_XCR0_MASK), %edx
	xrstor64 (%rbx)
	xsave64	WINDOW(WINDOW_XSAVE)
	jmp	answer

/* Code in place cannot fetch. Perhaps there is translated code instead. */
cross:
	cmpl	$0, CONTROL(CONTROL_IN_PLACE)
	je	tell
	cmpl	$14, UCONTEXT(20)(%rdx)
	jne	tell
	testl	$16, UCONTEXT(19)(%rdx)
	jz	tell
	testl	$0x40100, UCONTEXT(17)(%rdx)	/* AC, TF */
	jnz	tell
	mov	UCONTEXT(16)(%rdx), %rax
	cmp	UCONTEXT(22)(%rdx), %rax
	jne	tell
	mov	%rax, %rcx
	shr	$7, %rcx
	xor	%eax, %ecx
	and	$(SPACE_CROSSINGS - 1), %ecx
	shl	$4, %ecx
	lea	WINDOW(WINDOW_CROSSING), %rbx
	add	%rcx, %rbx
	cmp	(%rbx), %rax
	jne	tell
	mov	8(%rbx), %rax
	test	%rax, %rax
	jz	tell
	mov	%rax, WINDOW(WINDOW_RIP)
	mov	UCONTEXT(23)(%rdx), %rbx
	mov	WINDOW(WINDOW_XCR0_MASK), %eax
	mov	4 + WINDOW(WINDOW_XCR0_MASK), %edx
	xrstor64 (%rbx)
	lea	WINDOW(0), %rax
	wrgsbase %rax
	push	WINDOW(WINDOW_RFLAGS)
	load_gprs
	popf
	mov	WINDOW(WINDOW_GPR + 8 * 4), %rsp
	jmp	*WINDOW(WINDOW_RIP)

/* Before anything was run. */
stopped:
	movl	$KIND_STOPPED, ANSWER(ANSWER_KIND)
	rdtsc
	mov	%eax, WINDOW(WINDOW_RAN_TO)
	mov	%edx, 4 + WINDOW(WINDOW_RAN_TO)
	jmp	answer

give_up:
	mov	$1, %edi
	mov	$__NR_exit_group, %eax
	syscall
	ud2
	.balign 8
stop_signal:
	.quad	1 << (SPACE_STOP_SIGNAL - 1)
end:

	.balign 4
space_runtime_size:
	.long	end - begin
space_runtime_leave:
	.long	leave - begin
space_runtime_enter_place:
	.long	enter_place - begin
space_runtime_trap:
	.long	trap - begin
space_runtime_rung:
	.long	rung0 - begin, rung1 - begin

	.section .note.GNU-stack, "", @progbits
