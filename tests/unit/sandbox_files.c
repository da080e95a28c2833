/* The walls around a confined process that hold without seccomp: Landlock alone, and namespaces alone. Each case is a child process, which
 * says by its exit status whether it got anywhere. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/linux/sandbox.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REFUSED = 40, REACHED, NOT_HERE };

static char folder[] = "/tmp/nadir-sandbox-XXXXXX", file[64], place[64];
static int listening, abstract;
static in_port_t port;

/* ---- what an intruder would try; true: it worked ---- */

static bool reads(void)
{
	return open(file, O_RDONLY) >= 0;
}

static bool writes(void)
{
	return open(file, O_WRONLY | O_APPEND) >= 0;
}

static bool lists(void)
{
	return open(folder, O_RDONLY | O_DIRECTORY) >= 0;
}

static bool makes(void)
{
	char name[80];
	snprintf(name, sizeof(name), "%s/new", folder);
	return open(name, O_WRONLY | O_CREAT, 0600) >= 0 || mkdir(name, 0700) == 0 || symlink("x", name) == 0;
}

static bool removes(void)
{
	return unlink(file) == 0;
}

static bool renames(void)
{
	return rename(file, place) == 0;
}

static bool truncates(void)
{
	return truncate(file, 0) == 0;
}

static bool executes(void)
{
	char *const arguments[] = { "sh", "-c", "exit 41" /* REACHED */, NULL };
	execv("/bin/sh", arguments);
	return false;
}

static bool connects_tcp(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	return connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&to, sizeof(to)) == 0;
}

static bool listens_tcp(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	return bind(socket(AF_INET, SOCK_STREAM, 0), (void *)&at, sizeof(at)) == 0;
}

static bool sends_udp(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	return sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, (void *)&to, sizeof(to)) == 1;
}

static struct sockaddr_un abstract_name(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "%s", folder);
	return name;
}

static bool connects_abstract(void)
{
	struct sockaddr_un name = abstract_name();
	return connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&name, sizeof(name)) == 0;
}

static bool connects_unix(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	snprintf(name.sun_path, sizeof(name.sun_path), "%s", place);
	return connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&name, sizeof(name)) == 0;
}

static const struct {
	const char *name;
	bool (*act)(void);
	unsigned landlock; /* the version that refuses it; 0: none */
	bool namespaces; /* they do */
} rows[] = {
	{ "reading", reads, 1, true },
	{ "writing", writes, 1, true },
	{ "listing", lists, 1, true },
	{ "making", makes, 1, true },
	{ "removing", removes, 1, true },
	{ "renaming", renames, 1, true },
	{ "truncating", truncates, 3, true },
	{ "executing", executes, 1, true },
	{ "connecting by TCP", connects_tcp, 4, true },
	{ "binding by TCP", listens_tcp, 4, false }, /* a network of its own has nobody in it */
	{ "sending by UDP", sends_udp, 0, true },
	{ "an abstract socket", connects_abstract, 6, true },
	{ "a Unix socket", connects_unix, 0, true },
};

/* ---- the world, made anew for each case ---- */

static int setup(void **state)
{
	memcpy(folder + strlen(folder) - 6, "XXXXXX", 6);
	if (!mkdtemp(folder))
		return -1;
	snprintf(file, sizeof(file), "%s/file", folder);
	snprintf(place, sizeof(place), "%s/socket", folder);
	close(open(file, O_WRONLY | O_CREAT, 0600));
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_un name = { .sun_family = AF_UNIX }, hidden = abstract_name();
	socklen_t size = sizeof(at);
	listening = socket(AF_INET, SOCK_STREAM, 0);
	abstract = socket(AF_UNIX, SOCK_STREAM, 0);
	int unix_socket = socket(AF_UNIX, SOCK_STREAM, 0);
	snprintf(name.sun_path, sizeof(name.sun_path), "%s", place);
	bool ok = bind(listening, (void *)&at, sizeof(at)) == 0 && listen(listening, 9) == 0 && getsockname(listening, (void *)&at, &size) == 0 &&
		  bind(abstract, (void *)&hidden, sizeof(hidden)) == 0 && listen(abstract, 9) == 0 &&
		  bind(unix_socket, (void *)&name, sizeof(name)) == 0 && listen(unix_socket, 9) == 0;
	port = at.sin_port;
	return ok ? 0 : -1;
}

static int teardown(void **state)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	close(listening);
	close(abstract);
	return system(command);
}

static bool open_world(void)
{
	return true;
}

static bool landlocked(void)
{
	return sandbox_landlock_version() && !sandbox_lock_files();
}

static void *nothing(void *opaque)
{
	bool (*act)(void) = *(bool (**)(void))opaque;
	_exit(act() ? REACHED : REFUSED);
}

/* On a thread that is made after the wall. */
static int behind(bool (*wall)(void), bool (*act)(void))
{
	pid_t pid = fork();
	if (!pid) {
		pthread_t thread;
		if (!wall())
			_exit(NOT_HERE);
		pthread_create(&thread, NULL, nothing, &act);
		pthread_join(thread, NULL);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void expect(const char *name, int got, int want)
{
	if (got != want)
		print_error("%s: %d, expected %d\n", name, got, want);
	assert_int_equal(got, want);
}

/* The cases mean something: without a wall all of them work. */
static void test_open(void **state)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		expect(rows[i].name, behind(open_world, rows[i].act), REACHED);
		teardown(state);
		assert_int_equal(setup(state), 0);
	}
}

static void test_landlock(void **state)
{
	unsigned version = sandbox_landlock_version();
	if (!version)
		skip();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].landlock && rows[i].landlock <= version)
			expect(rows[i].name, behind(landlocked, rows[i].act), REFUSED);
}

static void test_namespaces(void **state)
{
	if (behind(sandbox_leave_namespaces, reads) == NOT_HERE)
		skip();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].namespaces)
			expect(rows[i].name, behind(sandbox_leave_namespaces, rows[i].act), REFUSED);
}

/* What is open stays usable, and nothing is gained: no capabilities, no way out of the root. */
static bool escapes(void)
{
	return chroot(".") == 0 || sethostname("x", 1) == 0 || mount("none", "/", "tmpfs", 0, NULL) == 0;
}

static bool uses_open_files(void)
{
	char byte;
	int pair[2];
	return pipe(pair) == 0 && write(pair[1], "x", 1) == 1 && read(pair[0], &byte, 1) == 1 && fcntl(listening, F_GETFL) >= 0;
}

static void test_rest(void **state)
{
	if (behind(sandbox_leave_namespaces, reads) != NOT_HERE)
		expect("escaping", behind(sandbox_leave_namespaces, escapes), REFUSED);
	if (behind(sandbox_leave_namespaces, reads) != NOT_HERE)
		expect("open files", behind(sandbox_leave_namespaces, uses_open_files), REACHED);
	if (sandbox_landlock_version())
		expect("open files", behind(landlocked, uses_open_files), REACHED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_open, setup, teardown),
		cmocka_unit_test_setup_teardown(test_landlock, setup, teardown),
		cmocka_unit_test_setup_teardown(test_namespaces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rest, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
