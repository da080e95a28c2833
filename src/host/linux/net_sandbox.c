/* Confinement of processes that do nothing but networking (net_internal.h): an allow-list by seccomp, and by Landlock, where the kernel has it, no files
 * but those below /etc and /run, where name servers are told, and those that a network serves. */
#define _GNU_SOURCE
#include "host/linux/net_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const int common[] = {
	SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(close), SCMP_SYS(accept4),
	SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(getrandom), SCMP_SYS(futex), SCMP_SYS(restart_syscall),
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk),
	SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(getpid), SCMP_SYS(gettid),
};

static const int internet[] = {
	SCMP_SYS(bind), SCMP_SYS(connect), SCMP_SYS(listen), SCMP_SYS(accept), SCMP_SYS(shutdown), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
	SCMP_SYS(setsockopt), SCMP_SYS(getsockopt), SCMP_SYS(sendto), SCMP_SYS(recvfrom), SCMP_SYS(sendmsg), SCMP_SYS(recvmsg), SCMP_SYS(fcntl),
	SCMP_SYS(ioctl), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(lseek),
	SCMP_SYS(dup2), /* to leave standard error */
};

static const int connecting[] = { SCMP_SYS(connect), SCMP_SYS(sendmsg) };
static const int relaying[] = { SCMP_SYS(shutdown), SCMP_SYS(sendto), SCMP_SYS(recvfrom), SCMP_SYS(dup2) /* to leave standard error */ };

static int allow(scmp_filter_ctx filter, const int *calls, size_t count)
{
	int error = 0;
	for (size_t i = 0; !error && i < count; i++)
		error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
	return error;
}

static int allow_internet(scmp_filter_ctx filter)
{
	int error = allow(filter, internet, ARRAY_SIZE(internet));
	error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0_64(SCMP_CMP_EQ, AF_INET));
	error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0_64(SCMP_CMP_EQ, AF_INET6));
	return error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
						SCMP_A2_64(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
}

static int allow_connecting(scmp_filter_ctx filter)
{
	int error = allow(filter, connecting, ARRAY_SIZE(connecting));
	return error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0_64(SCMP_CMP_EQ, AF_UNIX));
}

/* Where there is no Landlock, what the user may read can be read: it is told in the manual. */
static void restrict_files(const char *folder)
{
	const char *const folders[] = { "/etc", "/run", folder };
	struct landlock_ruleset_attr handled = { .handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1 };
	int rules = (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof(handled.handled_access_fs), 0);
	for (size_t i = 0; rules >= 0 && i < ARRAY_SIZE(folders) && folders[i]; i++) {
		struct landlock_path_beneath_attr below = { .allowed_access = LANDLOCK_ACCESS_FS_READ_FILE };
		below.parent_fd = open(folders[i], O_PATH | O_CLOEXEC);
		syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &below, 0);
		close(below.parent_fd);
	}
	if (rules >= 0)
		syscall(SYS_landlock_restrict_self, rules, 0);
	close(rules);
}

/* Other calls fail, and nothing else comes of them. */
int net_sandbox_enter(enum net_right right, const char *folder)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	restrict_files(folder);
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int error = filter ? seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) : -1;
	error = error ? error : allow(filter, common, ARRAY_SIZE(common));
	error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (right == NET_MAY_INTERNET)
		error = error ? error : allow_internet(filter);
	if (right == NET_MAY_CONNECT || right == NET_MAY_RELAY)
		error = error ? error : allow_connecting(filter);
	if (right == NET_MAY_RELAY)
		error = error ? error : allow(filter, relaying, ARRAY_SIZE(relaying));
	error = error ? error : seccomp_load(filter);
	if (filter)
		seccomp_release(filter);
	return error;
}
