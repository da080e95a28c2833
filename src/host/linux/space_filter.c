/* What the processes of spaces may ask of the kernel (A7); anything else ends them. A space: to sleep and to wake, to choose among CPUs,
 * to change its mappings of guest RAM, never writable and executable at once, and to end, by the runtime's own SYSCALL instructions
 * alone: those of the guest's code come back as signals. Guest code may jump to the runtime's, so what could harm anyone else needs more:
 * mappings a pass that is nowhere to be found while guest code runs, ringing one of two instructions (space_runtime.S). The server: to
 * receive files, to make spaces and to kill them. Every filter is the child's too, so each begins with what spaces do most. */
#define _GNU_SOURCE
#include "host/linux/space.h"
#include "host/linux/space_layout.h"

#include <asm/prctl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (u32)offsetof(struct seccomp_data, field))
#define LOAD_HIGH(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (u32)offsetof(struct seccomp_data, field) + 4)
/* The low half of an argument; the kernel looks at no more of those that are checked. */
#define LOAD_ARGUMENT(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (u32)offsetof(struct seccomp_data, args) + 8 * (n))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
/* A signal instead of the call: in a space it comes back as what its code did, whoever else gets it dies of it. */
#define TRAP BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP)
/* Two statements each: what was loaded is so, or the call is refused. */
#define REQUIRE_EQUAL(value) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0), TRAP
#define REQUIRE_AT_MOST(value) BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, value, 0, 1), TRAP
#define REQUIRE_WITHIN(bits) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, ~(u32)(bits), 0, 1), TRAP
/* If so, the next `statements` are skipped. */
#define IS(value, statements) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (u32)(value), statements, 0)
/* The next `statements` are for this call alone. */
#define CALL(number, statements) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, statements)

static int enter(struct sock_filter *code, size_t length)
{
	struct sock_fprog program = { .len = (unsigned short)length, .filter = code };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	/* Speculation stays as it is: all that these processes could find is the guest's anyway. */
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
}

#define LOAD_ARGUMENT_HIGH(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (u32)offsetof(struct seccomp_data, args) + 8 * (n) + 4)
/* Six statements: an argument is this value. */
#define REQUIRE_ARGUMENT(n, value)                                                                                                 \
	LOAD_ARGUMENT(n), REQUIRE_EQUAL((u32)(value)), LOAD_ARGUMENT_HIGH(n), \
		REQUIRE_EQUAL((u32)((u64)(value) >> 32))
#define REQUIRE_PASS LOAD_ARGUMENT_HIGH(3), REQUIRE_EQUAL((u32)(pass[0] >> 32)), LOAD_ARGUMENT_HIGH(4), REQUIRE_EQUAL((u32)(pass[1] >> 32))
#define PASS_STATEMENTS 6

/* Writing, by the instruction that ends there. */
#define RING(n)                                                                                                                        \
	LOAD(instruction_pointer), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (u32)(runtime + space_runtime_rung[n]), 0, 13), REQUIRE_ARGUMENT(0, SPACE_RING_FD), \
		REQUIRE_ARGUMENT(1, hole + SPACE_CONTROL + CONTROL_RING + 8 * (n)), ALLOW

int space_filter_enter(u64 hole, const u64 *pass)
{
	u64 runtime = hole + SPACE_RUNTIME;
	struct sock_filter code[] = {
		LOAD(arch), REQUIRE_EQUAL(AUDIT_ARCH_X86_64),
		LOAD(instruction_pointer), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~(u32)(SPACE_RUNTIME_SIZE - 1)), REQUIRE_EQUAL((u32)runtime),
		LOAD_HIGH(instruction_pointer), REQUIRE_EQUAL((u32)(runtime >> 32)),
		LOAD(nr),
		CALL(SYS_write, 37), REQUIRE_ARGUMENT(2, 8), RING(0), RING(1), TRAP,
		CALL(SYS_futex, 4), LOAD_ARGUMENT(1), REQUIRE_AT_MOST(FUTEX_WAKE), ALLOW,
		CALL(SYS_rt_sigreturn, 1), ALLOW,
		CALL(SYS_rt_sigprocmask, 1), ALLOW,
		CALL(SYS_mmap, 13 + PASS_STATEMENTS), REQUIRE_PASS, LOAD_ARGUMENT(2), REQUIRE_WITHIN(PROT_READ | PROT_WRITE | PROT_EXEC),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, PROT_WRITE | PROT_EXEC), REQUIRE_AT_MOST(MAX(PROT_WRITE, PROT_EXEC)), LOAD_ARGUMENT(3),
		REQUIRE_WITHIN(MAP_SHARED | MAP_FIXED | MAP_NORESERVE | MAP_POPULATE), LOAD_ARGUMENT(4), REQUIRE_EQUAL(SPACE_RAM_FD), ALLOW,
		CALL(SYS_munmap, PASS_STATEMENTS + 1), REQUIRE_PASS, ALLOW,
		CALL(SYS_arch_prctl, 4), LOAD_ARGUMENT(0), REQUIRE_EQUAL(ARCH_SET_FS), ALLOW,
		CALL(SYS_sched_setaffinity, 4), LOAD_ARGUMENT(0), REQUIRE_EQUAL(0), ALLOW,
		CALL(SYS_getrusage, 1), ALLOW,
		CALL(SYS_exit_group, 1), ALLOW,
		TRAP,
	};
	return enter(code, ARRAY_SIZE(code));
}

int space_filter_enter_server(void)
{
	struct sock_filter code[] = {
		LOAD(arch), REQUIRE_EQUAL(AUDIT_ARCH_X86_64),
		LOAD(nr),
		CALL(SYS_futex, 1), ALLOW,
		CALL(SYS_rt_sigreturn, 1), ALLOW,
		CALL(SYS_mmap, 5), LOAD_ARGUMENT(2), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, PROT_WRITE | PROT_EXEC),
		REQUIRE_AT_MOST(MAX(PROT_WRITE, PROT_EXEC)), ALLOW,
		CALL(SYS_munmap, 1), ALLOW,
		/* its loop */
		CALL(SYS_write, 1), ALLOW,
		CALL(SYS_sendmsg, 1), ALLOW,
		CALL(SYS_sendto, 1), ALLOW,
		CALL(SYS_ptrace, 7), LOAD_ARGUMENT(0), IS(PTRACE_SEIZE, 4), IS(PTRACE_INTERRUPT, 3), IS(PTRACE_POKEUSER, 2), IS(PTRACE_DETACH, 1), TRAP, ALLOW,
		CALL(SYS_eventfd2, 1), ALLOW,
		CALL(SYS_pidfd_open, 1), ALLOW,
		CALL(SYS_poll, 1), ALLOW,
		CALL(SYS_recvmsg, 1), ALLOW,
		CALL(SYS_read, 1), ALLOW,
		CALL(SYS_close, 1), ALLOW,
		CALL(SYS_wait4, 1), ALLOW,
		CALL(SYS_kill, 4), LOAD_ARGUMENT(1), REQUIRE_EQUAL(SIGKILL), ALLOW,
		CALL(SYS_clone, 4), LOAD_ARGUMENT(0), REQUIRE_WITHIN(CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CSIGNAL), ALLOW,
		/* its children on their way */
		CALL(SYS_set_robust_list, 1), ALLOW,
		CALL(SYS_getppid, 1), ALLOW,
		CALL(SYS_prctl, 1), ALLOW,
		CALL(SYS_sigaltstack, 1), ALLOW,
		CALL(SYS_rt_sigaction, 1), ALLOW,
		CALL(SYS_rt_sigprocmask, 1), ALLOW,
		CALL(SYS_dup2, 1), ALLOW,
		CALL(SYS_close_range, 1), ALLOW,
		CALL(SYS_arch_prctl, 1), ALLOW,
		CALL(SYS_seccomp, 1), ALLOW,
		CALL(SYS_sched_setaffinity, 1), ALLOW,
		CALL(SYS_getrusage, 1), ALLOW,
		CALL(SYS_exit_group, 1), ALLOW,
		TRAP,
	};
	return enter(code, ARRAY_SIZE(code));
}
