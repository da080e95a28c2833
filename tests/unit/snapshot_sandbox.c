/* The writer of snapshots, confined: what it does goes on working; everything else fails. Each case is a child process that confines itself. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/linux/sandbox.h"
#include "host/linux/snapshot_sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char top[] = "/tmp/nadir-writer-XXXXXX";
static int folder, memory; /* what is open: the folder for snapshots, guest RAM */
static int base = -1;

static bool can_write(void)
{
	bool good = mkdirat(folder, "part", 0700) == 0;
	int part = openat(folder, "part", O_RDONLY | O_DIRECTORY);
	int file = openat(part, "file", O_WRONLY | O_CREAT | O_EXCL, 0600);
	void *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, memory, 0);
	good = good && p != MAP_FAILED && pwrite(file, p, 4096, 0) == 4096 && lseek(memory, 0, SEEK_DATA) == 0 && fsync(file) == 0 && fsync(part) == 0;
	good = good && faccessat(folder, "whole", F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
	good = good && renameat2(folder, "part", folder, "whole", RENAME_NOREPLACE) == 0 && unlinkat(part, "file", 0) == 0;
	return good && unlinkat(folder, "whole", AT_REMOVEDIR) == 0;
}

static bool can_execute(void)
{
	execl("/bin/true", "true", NULL);
	return errno != EPERM && errno != EACCES && errno != ENOENT;
}

static bool can_fork(void)
{
	pid_t pid = fork();
	if (!pid)
		_exit(0);
	return pid > 0;
}

static bool can_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0) >= 0;
}

static bool can_kill(void)
{
	return kill(getppid(), 0) == 0;
}

static bool can_map_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}

static bool can_read_outside(void)
{
	return open("/etc/passwd", O_RDONLY) >= 0 || openat(folder, "../outside", O_RDONLY) >= 0;
}

static bool make_outside(void)
{
	return openat(folder, "../new", O_WRONLY | O_CREAT, 0600) >= 0;
}

static bool can_read_base(void)
{
	return openat(folder, "../base/file", O_RDONLY) >= 0;
}

static bool can_write_base(void)
{
	return openat(folder, "../base/file", O_WRONLY) >= 0 || openat(folder, "../base/new", O_WRONLY | O_CREAT, 0600) >= 0;
}

static bool can_change_modes(void)
{
	return fchmod(folder, 0777) == 0;
}

static bool confined(bool (*can)(void))
{
	pid_t pid = fork();
	if (!pid) {
		int error = snapshot_sandbox_enter(folder, base);
		_exit(error ? 2 : can());
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
	return WEXITSTATUS(status);
}

static void test_writes(void **state)
{
	assert_true(confined(can_write));
}

static void test_nothing_else(void **state)
{
	assert_false(confined(can_execute));
	assert_false(confined(can_fork));
	assert_false(confined(can_socket));
	assert_false(confined(can_kill));
	assert_false(confined(can_map_code));
	assert_false(confined(can_change_modes));
}

static void test_no_other_files(void **state)
{
	if (!sandbox_landlock_version())
		skip();
	assert_false(confined(can_read_outside));
	assert_false(confined(make_outside));
	assert_false(confined(can_read_base));
	base = open("base", O_PATH | O_DIRECTORY);
	assert_true(confined(can_read_base));
	assert_false(confined(can_write_base));
}

static int set_up(void **state)
{
	if (!mkdtemp(top) || chdir(top) < 0 || mkdir("snapshots", 0700) < 0 || creat("outside", 0600) < 0 || mkdir("base", 0700) < 0 ||
	    creat("base/file", 0600) < 0)
		return -1;
	folder = open("snapshots", O_RDONLY | O_DIRECTORY);
	memory = memfd_create("memory", 0);
	return folder < 0 || memory < 0 || ftruncate(memory, 8192) < 0 || pwrite(memory, "x", 1, 0) != 1;
}

static int tear_down(void **state)
{
	unlink("outside");
	unlink("base/file");
	rmdir("base");
	rmdir("snapshots");
	return chdir("/") < 0 || rmdir(top) < 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_writes), cmocka_unit_test(test_nothing_else), cmocka_unit_test(test_no_other_files),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
