/* The confined process: what a running VM needs goes on working, and everything else ends the process by SIGSYS. Each
 * case is a child process that confines itself. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/linux/log.h"
#include "host/linux/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define DONE 42

static char said[512]; /* what the last child logged */
static pid_t parent;

/* Run `act` confined; its status as waitpid gives it. */
static int confined(void (*act)(void))
{
	int pipe_fd[2];
	assert_int_equal(pipe(pipe_fd), 0);
	parent = getpid();
	pid_t pid = fork();
	if (!pid) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
		log_set_fd(pipe_fd[1]);
		if (sandbox_enter(-1))
			_exit(1);
		act();
		_exit(DONE);
	}
	close(pipe_fd[1]);
	ssize_t n = read(pipe_fd[0], said, sizeof(said) - 1);
	said[n > 0 ? n : 0] = 0;
	close(pipe_fd[0]);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* ---- what must not be possible ---- */

static void do_execve(void)
{
	execl("/bin/true", "true", NULL);
}

static void do_socket(void)
{
	socket(AF_INET, SOCK_STREAM, 0);
}

static void do_fork(void)
{
	fork();
}

static void do_open(void)
{
	syscall(SYS_open, "/etc/passwd", O_RDONLY);
}

static void do_unlink(void)
{
	unlink("/nonexistent");
}

static void do_map_code(void)
{
	(void)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void do_map_everything(void)
{
	(void)mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void do_make_executable(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static void do_signal_another(void)
{
	syscall(SYS_tgkill, parent, parent, 0);
}

static void do_kill_another(void)
{
	kill(parent, 0);
}

static void do_move_another(void)
{
	u64 cpus = 1;
	syscall(SYS_sched_setaffinity, parent, sizeof(cpus), &cpus);
}

static void do_ptrace(void)
{
	syscall(SYS_ptrace, 0, 0, 0, 0);
}

static void do_process_write(void)
{
	syscall(SYS_process_vm_writev, 1, NULL, 0, NULL, 0, 0);
}

static void do_push_key(void)
{
	ioctl(0, TIOCSTI, "x");
}

static void do_move_fs(void)
{
	syscall(SYS_arch_prctl, 0x1002 /* ARCH_SET_FS */, 0);
}

static void do_prctl(void)
{
	prctl(PR_SET_DUMPABLE, 1);
}

static void do_memfd(void)
{
	memfd_create("x", 0);
}

static void do_take_over_sigsys(void)
{
	signal(SIGSYS, SIG_IGN);
}

static void do_block_sigsys(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGSYS);
	sigprocmask(SIG_BLOCK, &set, NULL);
	unlink("/nonexistent");
}

static void test_forbidden(void **state)
{
	static const struct {
		const char *name;
		void (*act)(void);
		int call; /* -1: no line is expected */
	} rows[] = {
		{ "execve", do_execve, SYS_execve },
		{ "socket", do_socket, SYS_socket },
		{ "fork", do_fork, SYS_clone },
		{ "open", do_open, SYS_open },
		{ "unlink", do_unlink, SYS_unlink },
		{ "mmap of code", do_map_code, SYS_mmap },
		{ "mmap of writable code", do_map_everything, SYS_mmap },
		{ "mprotect to code", do_make_executable, SYS_mprotect },
		{ "tgkill of another", do_signal_another, SYS_tgkill },
		{ "kill", do_kill_another, SYS_kill },
		{ "choosing CPUs for another process", do_move_another, SYS_sched_setaffinity },
		{ "ptrace", do_ptrace, SYS_ptrace },
		{ "process_vm_writev", do_process_write, SYS_process_vm_writev },
		{ "TIOCSTI", do_push_key, SYS_ioctl },
		{ "ARCH_SET_FS", do_move_fs, SYS_arch_prctl },
		{ "prctl", do_prctl, SYS_prctl },
		{ "memfd_create", do_memfd, SYS_memfd_create },
		{ "SIGSYS ignored", do_take_over_sigsys, SYS_rt_sigaction },
		{ "SIGSYS blocked", do_block_sigsys, -1 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		int status = confined(rows[i].act);
		char number[32];
		snprintf(number, sizeof(number), "system call %d ", rows[i].call);
		bool told = rows[i].call < 0 || strstr(said, number);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS || !told)
			print_error("%s: status %x, said %s\n", rows[i].name, status, said);
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGSYS);
		assert_true(told);
	}
}

/* The C library opens files behind our back, so that this one fails instead. */
static void do_openat(void)
{
	if (open("/etc/passwd", O_RDONLY) != -1 || errno != EACCES)
		_exit(1);
	if (openat(AT_FDCWD, "/tmp/nadir-sandbox-test", O_WRONLY | O_CREAT, 0600) != -1)
		_exit(2);
}

static void test_no_file(void **state)
{
	int status = confined(do_openat);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), DONE);
}

/* ---- what must go on ---- */

static pthread_barrier_t barrier;

/* Memory of many sizes, taken and given back. */
static void use_memory(void)
{
	char *block[200];
	for (size_t i = 0; i < ARRAY_SIZE(block); i++) {
		block[i] = malloc(i * 3000 + 1);
		memset(block[i], 1, i * 3000 + 1);
		block[i] = i & 1 ? realloc(block[i], i * 9000) : block[i];
	}
	for (size_t i = 0; i < ARRAY_SIZE(block); i++)
		free(block[i]);
}

/* A thread that was there before uses memory for the first time, and ends. */
static void *work(void *opaque)
{
	pthread_barrier_wait(&barrier);
	use_memory();
	return opaque;
}

static void print_json(void)
{
	struct json_object *root = json_object_new_object();
	for (int i = 0; i < 100; i++) {
		char key[16];
		snprintf(key, sizeof(key), "%d", i);
		json_object_object_add(root, key, json_object_new_int64(i));
	}
	host_log(LOG_ERROR, "%zu bytes, %s", strlen(json_object_to_json_string(root)), strerror(ENOENT));
	json_object_put(root);
}

/* The life of nadir run: threads first, then the filter for all of them. */
static void live(void)
{
	pthread_t thread[3];
	struct termios t;
	pthread_barrier_init(&barrier, NULL, ARRAY_SIZE(thread) + 1);
	for (size_t i = 0; i < ARRAY_SIZE(thread); i++)
		pthread_create(&thread[i], NULL, work, NULL);
	if (sandbox_enter(-1))
		_exit(1);
	pthread_barrier_wait(&barrier);
	for (size_t i = 0; i < ARRAY_SIZE(thread); i++)
		pthread_join(thread[i], NULL);
	use_memory();
	tcgetattr(0, &t);
	tcsetattr(0, TCSANOW, &t);
	print_json();
	fprintf(stdout, "%.3f\n", 1.5);
	exit(DONE);
}

static void test_allowed(void **state)
{
	pid_t pid = fork();
	if (!pid)
		live();
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), DONE);
}

/* Connections are taken at sockets that were named before, and nowhere else. */
static void accept_at(bool other)
{
	int fd[2];
	for (unsigned i = 0; i < 2; i++) {
		struct sockaddr_un name = { .sun_family = AF_UNIX };
		fd[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		if (fd[i] < 0 || bind(fd[i], (const void *)&name, sizeof(name.sun_family)) || listen(fd[i], 1))
			_exit(1);
	}
	sandbox_allow_accept(fd[0]);
	if (sandbox_enter(-1))
		_exit(1);
	_exit(accept4(fd[other], NULL, NULL, SOCK_CLOEXEC) < 0 && errno == EAGAIN ? DONE : 2);
}

static void test_accept(void **state)
{
	for (unsigned other = 0; other < 2; other++) {
		pid_t pid = fork();
		if (!pid) {
			setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
			accept_at(other);
		}
		int status;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(other ? WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS : WIFEXITED(status) && WEXITSTATUS(status) == DONE);
	}
}

/* Threads that were there before are confined, too. */
static void *disobey(void *opaque)
{
	pthread_barrier_wait(&barrier);
	socket(AF_INET, SOCK_STREAM, 0);
	_exit(DONE);
}

static void test_threads_confined(void **state)
{
	pid_t pid = fork();
	if (!pid) {
		pthread_t thread;
		setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
		pthread_barrier_init(&barrier, NULL, 2);
		pthread_create(&thread, NULL, disobey, NULL);
		if (sandbox_enter(-1))
			_exit(1);
		pthread_barrier_wait(&barrier);
		pthread_join(thread, NULL);
		_exit(2);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

/* Bugs still end the process in their own way. */
static void do_abort(void)
{
	abort();
}

static void test_abort(void **state)
{
	int status = confined(do_abort);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forbidden),        cmocka_unit_test(test_no_file), cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_threads_confined), cmocka_unit_test(test_abort),    cmocka_unit_test(test_accept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
