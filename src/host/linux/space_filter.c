/* What the processes of spaces may ask of the kernel (A7); anything else ends them. A space: to sleep and to wake, to choose among CPUs,
 * to change its mappings of guest RAM, never executable, and to end, by the runtime's own SYSCALL instructions alone. The server: to
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
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (u32)offsetof(struct seccomp_data, field))
#define LOAD_HIGH(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (u32)offsetof(struct seccomp_data, field) + 4)
/* The low half of an argument; the kernel looks at no more of those that are checked. */
#define LOAD_ARGUMENT(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (u32)offsetof(struct seccomp_data, args) + 8 * (n))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define KILL BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
/* Two statements each: what was loaded is so, or the process ends. */
#define REQUIRE_EQUAL(value) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0), KILL
#define REQUIRE_AT_MOST(value) BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, value, 0, 1), KILL
#define REQUIRE_WITHIN(bits) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, ~(u32)(bits), 0, 1), KILL
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

int space_filter_enter(u64 hole)
{
	u64 runtime = hole + SPACE_RUNTIME;
	struct sock_filter code[] = {
		LOAD(arch), REQUIRE_EQUAL(AUDIT_ARCH_X86_64),
		LOAD(instruction_pointer), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~(u32)(SPACE_RUNTIME_SIZE - 1)), REQUIRE_EQUAL((u32)runtime),
		LOAD_HIGH(instruction_pointer), REQUIRE_EQUAL((u32)(runtime >> 32)),
		LOAD(nr),
		CALL(SYS_futex, 4), LOAD_ARGUMENT(1), REQUIRE_AT_MOST(FUTEX_WAKE), ALLOW,
		CALL(SYS_mmap, 10), LOAD_ARGUMENT(2), REQUIRE_WITHIN(PROT_READ | PROT_WRITE), LOAD_ARGUMENT(3),
		REQUIRE_WITHIN(MAP_SHARED | MAP_FIXED | MAP_NORESERVE | MAP_POPULATE), LOAD_ARGUMENT(4), REQUIRE_EQUAL(SPACE_RAM_FD), ALLOW,
		CALL(SYS_munmap, 1), ALLOW,
		CALL(SYS_arch_prctl, 4), LOAD_ARGUMENT(0), REQUIRE_EQUAL(ARCH_SET_FS), ALLOW,
		CALL(SYS_sched_setaffinity, 4), LOAD_ARGUMENT(0), REQUIRE_EQUAL(0), ALLOW,
		CALL(SYS_getrusage, 1), ALLOW,
		CALL(SYS_exit_group, 1), ALLOW,
		KILL,
	};
	return enter(code, ARRAY_SIZE(code));
}

int space_filter_enter_server(void)
{
	struct sock_filter code[] = {
		LOAD(arch), REQUIRE_EQUAL(AUDIT_ARCH_X86_64),
		LOAD(nr),
		CALL(SYS_futex, 1), ALLOW,
		CALL(SYS_mmap, 5), LOAD_ARGUMENT(2), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, PROT_WRITE | PROT_EXEC),
		REQUIRE_AT_MOST(MAX(PROT_WRITE, PROT_EXEC)), ALLOW,
		CALL(SYS_munmap, 1), ALLOW,
		/* its loop */
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
		KILL,
	};
	return enter(code, ARRAY_SIZE(code));
}
