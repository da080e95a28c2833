/* Confinement of the process that writes snapshots (snapshot_sandbox.h). What it is told comes from nadir, which a guest may have taken over: so it has
 * an allow-list by seccomp, and no files but the folder's by Landlock, where the kernel has it. What is not on the list fails, as a full disk does. */
#define _GNU_SOURCE
#include "host/linux/snapshot_sandbox.h"

#include "host/linux/share_server.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "arch/types.h"

static const int allowed[] = {
	/* orders */
	SCMP_SYS(read), SCMP_SYS(recvmsg), SCMP_SYS(write), SCMP_SYS(close),
	/* files of the folder */
	SCMP_SYS(openat), SCMP_SYS(mkdirat), SCMP_SYS(unlinkat), SCMP_SYS(renameat2), SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(fstat),
	SCMP_SYS(newfstatat), SCMP_SYS(lseek), SCMP_SYS(preadv), SCMP_SYS(pread64), SCMP_SYS(pwritev), SCMP_SYS(pwrite64), SCMP_SYS(ftruncate),
	SCMP_SYS(fsync), SCMP_SYS(fdatasync),
	/* what the C library needs */
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(clock_gettime), SCMP_SYS(getrandom), SCMP_SYS(futex),
	SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(exit), SCMP_SYS(exit_group),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(restart_syscall), SCMP_SYS(sched_yield),
};

static int add_rules(scmp_filter_ctx filter)
{
	int error = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	for (unsigned i = 0; !error && i < ARRAY_SIZE(allowed); i++)
		error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
	error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1, SCMP_A1_64(SCMP_CMP_EQ, F_GET_SEALS));
	error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	return error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
}

int snapshot_sandbox_enter(int folder, int base)
{
	int error = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : share_sandbox_keep(BIT(CAP_DAC_OVERRIDE));
	error = error ? error : share_sandbox_restrict(folder, false, base);
	scmp_filter_ctx filter = error ? NULL : seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (!filter)
		return error ? error : -ENOMEM;
	error = add_rules(filter);
	error = error ? error : seccomp_load(filter);
	seccomp_release(filter);
	return error;
}
