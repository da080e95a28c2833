/* What the confined process cannot reach even if the list of system calls had a hole (A7): files by Landlock, the network, abstract sockets and
 * everything named by a path by namespaces of its own. Both need no privileges, and neither is in every kernel: what there is, is used.
 * Linux documentation, "Landlock: unprivileged access control"; user_namespaces(7). */
#define _GNU_SOURCE
#include "host/linux/sandbox.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch/types.h"

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_restrict_self 446
#endif
#define LANDLOCK_VERSION 1u /* flag: tell the version of the interface */

/* As the kernel's header of today has it; an older kernel takes a shorter one. */
struct ruleset {
	u64 files, network, scopes;
};

/* What each version of the interface can refuse; everything is. */
static const struct {
	u64 files, network, scopes;
	size_t size;
} versions[] = {
	{ 0x1fff, 0, 0, 8 }, /* execute, read, write, make, remove */
	{ 0x3fff, 0, 0, 8 }, /* rename elsewhere */
	{ 0x7fff, 0, 0, 8 }, /* truncate */
	{ 0x7fff, 3, 0, 16 }, /* TCP: bind, connect */
	{ 0xffff, 3, 0, 16 }, /* ioctl on devices */
	{ 0xffff, 3, 1, 24 }, /* abstract Unix sockets. Not signals: spaces, which were made before, are stopped by some. */
};

unsigned sandbox_landlock_version(void)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION);
	return version > 0 ? (unsigned)version : 0;
}

int sandbox_lock_files(void)
{
	unsigned version = sandbox_landlock_version();
	if (!version)
		return 0;
	size_t row = MIN(version, ARRAY_SIZE(versions)) - 1;
	const struct ruleset rules = { versions[row].files, versions[row].network, versions[row].scopes };
	int fd = (int)syscall(SYS_landlock_create_ruleset, &rules, versions[row].size, 0);
	if (fd < 0)
		return -errno;
	int error = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_landlock_restrict_self, fd, 0) < 0 ? -errno : 0;
	close(fd);
	return error;
}

/* In its own user namespace the process has all capabilities, for what is in there with it. */
static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const struct __user_cap_data_struct none[2] = { 0 };
	return (int)syscall(SYS_capset, &header, none);
}

/* An empty, read-only directory, mounted where nobody else sees it. */
static bool leave_files(void)
{
	static const char place[] = "/tmp";
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("none", place, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k") == 0 && chroot(place) == 0 && chdir("/") == 0;
}

bool sandbox_leave_namespaces(void)
{
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC) < 0)
		return false;
	bool alone = leave_files();
	return drop_capabilities() == 0 && alone;
}
