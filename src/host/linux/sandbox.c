/* Self-confinement (A7): a guest that broke out of the VMM would find a process that can neither open, execute, connect nor map
 * executable memory. An allow-list by seccomp for all threads alike. */
#define _GNU_SOURCE
#include "host/linux/sandbox.h"

#include <asm/prctl.h>
#include <errno.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <termios.h>

static const int allowed[] = {
	/* consoles, logs, events */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(lseek), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(close),
	SCMP_SYS(fstat), SCMP_SYS(newfstatat),
	/* time and sleeping */
	SCMP_SYS(timerfd_settime), SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday),
	SCMP_SYS(futex), SCMP_SYS(sched_yield), SCMP_SYS(restart_syscall),
	/* memory given back or grown (never executable: see below) */
	SCMP_SYS(munmap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(mremap),
	/* ends of threads and of the process, faults of generated code */
	SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction),
	SCMP_SYS(sigaltstack), SCMP_SYS(tgkill), SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(set_robust_list), SCMP_SYS(rseq),
	SCMP_SYS(getrandom),
};

static int allow_all(scmp_filter_ctx filter)
{
	for (unsigned i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++) {
		int error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
		if (error)
			return error;
	}
	int error = 0;
	/* Memory, but never executable memory. */
	error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* Engines reach their vCPU through GS. */
	error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(arch_prctl), 1, SCMP_A0(SCMP_CMP_EQ, ARCH_SET_GS));
	/* The C library looks for a file when it gives memory back; it does well without. */
	error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(openat), 0);
	/* The terminal: ask and restore. */
	error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, TCGETS));
	error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, TCSETS));
	return error;
}

int sandbox_enter(void)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!filter)
		return -ENOMEM;
	int error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	error = error ? error : allow_all(filter);
	error = error ? error : seccomp_load(filter);
	seccomp_release(filter);
	return error;
}
