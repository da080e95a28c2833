/* The helper processes of networks, sockets, displays and shared folders, confined: each reaches what it is for, and nothing else; what it may not fails.
 * Each case is a child process that confines itself. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/linux/net_internal.h"
#include "host/linux/sandbox.h"
#include "host/linux/share_server.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/nadir-helper-XXXXXX", file[64];
static int opened; /* the folder */
static const char outside[] = "/tmp/nadir-helper-outside";

/* ---- what an intruder would try; true: it worked ---- */

static bool executes(void)
{
	execl("/bin/sh", "sh", "-c", "exit 1", NULL);
	return false;
}

static bool forks(void)
{
	pid_t pid = fork();
	if (!pid)
		_exit(0);
	return pid > 0;
}

static bool kills(void)
{
	return kill(getppid(), 0) == 0;
}

static bool traces(void)
{
	return ptrace(PTRACE_TRACEME, 0, 0, 0) == 0;
}

static bool maps_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}

static bool makes_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return mprotect(p, 4096, PROT_READ | PROT_EXEC) == 0;
}

static bool internet(void)
{
	return socket(AF_INET, SOCK_STREAM, 0) >= 0 && socket(AF_INET6, SOCK_DGRAM, 0) >= 0;
}

static bool unix_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0) >= 0;
}

static bool other_socket(void)
{
	return socket(AF_PACKET, SOCK_RAW, 0) >= 0 || socket(AF_NETLINK, SOCK_RAW, 0) >= 0 || socket(AF_VSOCK, SOCK_STREAM, 0) >= 0;
}

static bool reads_elsewhere(void)
{
	return open("/usr/bin/env", O_RDONLY) >= 0;
}

static bool reads_name_servers(void)
{
	return open("/etc/passwd", O_RDONLY) >= 0; /* as /etc/resolv.conf, which is not everywhere */
}

static bool reads_folder(void)
{
	return open(file, O_RDONLY) >= 0 || openat(opened, "file", O_RDONLY) >= 0;
}

static bool writes_folder(void)
{
	return open(file, O_WRONLY) >= 0 || openat(opened, "file", O_WRONLY) >= 0;
}

static bool makes_elsewhere(void)
{
	return open(outside, O_WRONLY | O_CREAT, 0600) >= 0;
}

/* ---- who ---- */

enum helper { SWITCH, INTERNET, KEEPER, RELAY, SHARE, READONLY_SHARE, HELPERS };

static int enter(enum helper who)
{
	switch (who) {
	case SWITCH:
		return net_sandbox_enter(NET_MAY_SWITCH, NULL);
	case INTERNET:
		return net_sandbox_enter(NET_MAY_INTERNET, folder);
	case KEEPER:
		return net_sandbox_enter(NET_MAY_CONNECT, NULL);
	case RELAY:
		return net_sandbox_enter(NET_MAY_RELAY, NULL);
	default:
		return share_sandbox_files(opened, who == READONLY_SHARE) < 0 ? -1 : share_sandbox_enter();
	}
}

#define ANY_SHARE (BIT(SHARE) | BIT(READONLY_SHARE))

static const struct {
	const char *name;
	bool (*act)(void);
	u32 who; /* can do it */
	bool landlock; /* without Landlock others can, too */
} rows[] = {
	{ "execute", executes, 0, false },
	{ "fork", forks, 0, false },
	{ "send a signal", kills, 0, false },
	{ "ptrace", traces, 0, false },
	{ "map code", maps_code, 0, false },
	{ "make code", makes_code, 0, false },
	{ "internet sockets", internet, BIT(INTERNET), false },
	{ "Unix sockets", unix_socket, BIT(KEEPER) | BIT(RELAY), false },
	{ "other sockets", other_socket, 0, false },
	{ "read elsewhere", reads_elsewhere, 0, true },
	{ "make files elsewhere", makes_elsewhere, 0, true },
	{ "read name servers", reads_name_servers, BIT(INTERNET), true },
	{ "read the folder", reads_folder, BIT(INTERNET) | ANY_SHARE, true },
	{ "write in the folder", writes_folder, BIT(SHARE), true },
};

static bool can(enum helper who, bool (*act)(void))
{
	pid_t pid = fork();
	if (!pid)
		_exit(enter(who) ? 2 : act());
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
	return WEXITSTATUS(status);
}

static void test_helpers(void **state)
{
	for (unsigned n = 0; n < ARRAY_SIZE(rows) * HELPERS; n++) {
		unsigned i = n / HELPERS;
		enum helper who = n % HELPERS;
		if (rows[i].landlock && !sandbox_landlock_version())
			continue;
		bool wanted = rows[i].who & BIT(who), does = can(who, rows[i].act);
		if (wanted != does)
			print_error("%s, helper %u: %d\n", rows[i].name, who, does);
		assert_true(wanted == does);
	}
}

static bool leaves(void)
{
	return openat(opened, "../nadir-helper-outside", O_WRONLY | O_CREAT, 0600) >= 0;
}

/* A process that is shut into the folder finds it again above it. */
static void test_stays(void **state)
{
	if (!sandbox_landlock_version())
		skip();
	(void)can(SHARE, leaves);
	assert_int_equal(access(outside, F_OK), -1);
	unlinkat(opened, "nadir-helper-outside", 0);
}

static int setup(void **state)
{
	memcpy(folder + strlen(folder) - 6, "XXXXXX", 6);
	if (!mkdtemp(folder))
		return -1;
	snprintf(file, sizeof(file), "%s/file", folder);
	close(open(file, O_WRONLY | O_CREAT, 0600));
	opened = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return opened < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	unlink(file);
	close(opened);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_helpers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stays, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
