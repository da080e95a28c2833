/* Confinement of a shared folder's process (share_server.h): an allow-list by seccomp, and no files but the folder's by Landlock, where the kernel has
 * it. Of root's privileges it keeps those to treat all files as its own, and is shut into the folder. */
#define _GNU_SOURCE
#include "host/linux/share_server.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Rights that came after the first version of Landlock. */
#define ACCESS_REFER BIT(13)
#define ACCESS_TRUNCATE BIT(14)
#define ACCESS_FIRST (BIT(13) - 1)
#define ACCESS_EXECUTE_OR_DEVICE (BIT(0) | BIT(6) | BIT(11)) /* execute; make character and block devices */
#define ACCESS_READ (BIT(2) | BIT(3)) /* files, folders */

static const int allowed[] = {
	/* requests */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(futex), SCMP_SYS(close),
	/* names */
	SCMP_SYS(openat), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(readlinkat), SCMP_SYS(getdents64), SCMP_SYS(mkdirat), SCMP_SYS(mknodat),
	SCMP_SYS(symlinkat), SCMP_SYS(linkat), SCMP_SYS(unlinkat), SCMP_SYS(renameat), SCMP_SYS(renameat2),
	/* contents */
	SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(lseek), SCMP_SYS(fallocate), SCMP_SYS(copy_file_range), SCMP_SYS(ftruncate), SCMP_SYS(fsync),
	SCMP_SYS(fdatasync), SCMP_SYS(syncfs),
	/* attributes */
	SCMP_SYS(fchmodat), SCMP_SYS(fchownat), SCMP_SYS(utimensat), SCMP_SYS(fstatfs), SCMP_SYS(getxattr), SCMP_SYS(setxattr), SCMP_SYS(listxattr),
	SCMP_SYS(removexattr),
	/* what the C library needs */
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(clock_gettime), SCMP_SYS(getrandom), SCMP_SYS(sched_yield),
	SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(getpid), SCMP_SYS(gettid),
	SCMP_SYS(dup2), /* to leave standard error */
	SCMP_SYS(restart_syscall), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(sched_getaffinity),
};

int share_sandbox_enter(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int error = filter ? seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1) : -ENOMEM;
	error = error ? error : seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	for (unsigned i = 0; !error && i < ARRAY_SIZE(allowed); i++)
		error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
	error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	error = error ? error : seccomp_load(filter);
	if (filter)
		seccomp_release(filter);
	return error;
}

static bool allow_below(int rules, int folder, u64 access)
{
	struct landlock_path_beneath_attr below = { .parent_fd = folder, .allowed_access = access };
	return syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &below, 0) == 0;
}

/* Rights on what is not below a rule are none at all: the magic links in /proc/self/fd lead to files below the folder. */
int share_sandbox_restrict(int folder, bool readonly, int read)
{
	int version = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (version < 1)
		return 0; /* this kernel has none */
	struct landlock_ruleset_attr handled = { .handled_access_fs = ACCESS_FIRST | (version >= 2 ? ACCESS_REFER : 0) | (version >= 3 ? ACCESS_TRUNCATE : 0) };
	int rules = (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof(handled.handled_access_fs), 0);
	bool good = rules >= 0 && allow_below(rules, folder, readonly ? ACCESS_READ : handled.handled_access_fs & ~ACCESS_EXECUTE_OR_DEVICE) &&
		    (read < 0 || allow_below(rules, read, ACCESS_READ)) && syscall(SYS_landlock_restrict_self, rules, 0) == 0;
	int error = good ? 0 : -errno;
	close(rules);
	return error;
}

int share_sandbox_keep(u32 kept)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };
	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	data[0] = (struct __user_cap_data_struct){ .effective = data[0].effective & kept, .permitted = data[0].permitted & kept };
	data[1] = (struct __user_cap_data_struct){ 0 };
	return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

/* Of root's privileges, those that make every file ours; CAP_DAC_READ_SEARCH, which opens files by handles, is not among them. */
static int drop_privileges(int folder)
{
	/* The current folder stays as it is: who needs it has it. */
	int here = open(".", O_PATH | O_CLOEXEC);
	if (fchdir(folder) == 0 && chroot(".") < 0 && geteuid() == 0 && errno != EPERM)
		return -errno;
	if (here < 0 || fchdir(here) < 0)
		return -errno;
	close(here);
	return share_sandbox_keep(BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID));
}

int share_sandbox_files(int folder, bool readonly)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	int error = drop_privileges(folder);
	return error ? error : share_sandbox_restrict(folder, readonly, -1);
}
