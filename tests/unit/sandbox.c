/* The confined process: what a running VM needs goes on working, and everything else ends the process by SIGSYS, whichever thread asks for it; what only
 * threads of other roles need fails. Each case is a child process that confines itself. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/linux/log.h"
#include "host/linux/sandbox.h"
#include "host/linux/sandbox_thread.h"

#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
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

struct deed {
	enum sandbox_role role;
	void (*act)(void);
};

static void *do_deed(void *opaque)
{
	const struct deed *d = opaque;
	if (d->role == SANDBOX_VCPU || d->role == SANDBOX_RING)
		sandbox_thread_confine(d->role);
	d->act();
	return NULL;
}

/* In a thread of that role, beside the main thread; that is there already. */
static void act_as(enum sandbox_role role, void (*act)(void), int space_socket)
{
	struct deed deed = { role, act };
	pthread_t thread;
	sandbox_threads_hold();
	if (role != SANDBOX_MAIN && sandbox_thread_create(&thread, role, do_deed, &deed))
		_exit(1);
	if (sandbox_enter(space_socket))
		_exit(1);
	if (role == SANDBOX_MAIN)
		act();
	else
		pthread_join(thread, NULL);
}

/* Run `act` confined; its status as waitpid gives it. */
static int confined(enum sandbox_role role, void (*act)(void))
{
	int pipe_fd[2];
	assert_int_equal(pipe(pipe_fd), 0);
	parent = getpid();
	pid_t pid = fork();
	if (!pid) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
		log_set_fd(pipe_fd[1]);
		act_as(role, act, -1);
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
	for (size_t n = 0; n < ARRAY_SIZE(rows) * SANDBOX_ROLES; n++) {
		size_t i = n / SANDBOX_ROLES;
		enum sandbox_role role = n % SANDBOX_ROLES;
		int status = confined(role, rows[i].act);
		char number[32];
		snprintf(number, sizeof(number), "system call %d ", rows[i].call);
		bool told = rows[i].call < 0 || strstr(said, number);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS || !told)
			print_error("%s, thread of %s: status %x, said %s\n", rows[i].name, sandbox_role_name(role), status, said);
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
	for (enum sandbox_role role = 0; role < SANDBOX_ROLES; role++) {
		int status = confined(role, do_openat);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), DONE);
	}
}

/* ---- what only some threads may do ---- */

#define MAIN BIT(SANDBOX_MAIN)
#define VCPU BIT(SANDBOX_VCPU)
#define DISK BIT(SANDBOX_DISK)
#define RING BIT(SANDBOX_RING)
#define NET BIT(SANDBOX_NET)
#define SHARE BIT(SANDBOX_SHARE)
#define VSOCK BIT(SANDBOX_VSOCK)
#define CONTROL BIT(SANDBOX_CONTROL)
#define PLUG BIT(SANDBOX_PLUG)
#define DEBUGGER BIT(SANDBOX_DEBUGGER)
#define REMOTE (DISK | VCPU | MAIN | CONTROL)
#define IMAGES (REMOTE | PLUG)
#define CABLES (NET | VSOCK | VCPU | MAIN | PLUG)
#define EVERYBODY (BIT(SANDBOX_ROLES) - 1)

/* Files with a meaning to the sandbox, which are no files. */
enum { AT_CONSOLE = 300, AT_CONTROL, AT_DEBUGGER, TO_SPACES, TO_DISK, TO_KEEPER, A_RING, A_KVM };

#define CLONE_THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

/* With arguments that make nothing happen: what is allowed fails in another way, or does not. */
static const struct {
	const char *name;
	long call, argument[4];
	u32 roles;
} matrix[] = {
	{ "accept at a console", SYS_accept4, { AT_CONSOLE }, MAIN },
	{ "accept at the control socket", SYS_accept4, { AT_CONTROL }, CONTROL },
	{ "accept a debugger", SYS_accept4, { AT_DEBUGGER }, DEBUGGER },
	{ "ask for a space", SYS_sendmsg, { TO_SPACES }, VCPU | MAIN },
	{ "take a space", SYS_recvmsg, { TO_SPACES }, VCPU | MAIN | NET | CONTROL | PLUG },
	{ "take a connection", SYS_recvmsg, { TO_KEEPER }, NET | VCPU | CONTROL | PLUG },
	{ "send to a remote disk", SYS_sendto, { TO_DISK }, REMOTE },
	{ "receive from a remote disk", SYS_recvfrom, { TO_DISK }, REMOTE },
	{ "use a ring", SYS_io_uring_enter, { A_RING }, RING },
	{ "run a vCPU by KVM", SYS_ioctl, { A_KVM, KVM_RUN }, VCPU | MAIN | CONTROL | DEBUGGER },
	{ "change memory by KVM", SYS_ioctl, { A_KVM, KVM_SET_USER_MEMORY_REGION }, VCPU | MAIN | CONTROL | DEBUGGER },
	{ "set GS", SYS_arch_prctl, { ARCH_SET_GS }, VCPU },
	{ "choose a CPU", SYS_sched_setaffinity, { 0 }, VCPU | MAIN },
	{ "take offloads of a tap", SYS_ioctl, { -1, TUNSETOFFLOAD }, CABLES },
	{ "send frames", SYS_writev, { -1 }, CABLES },
	{ "change what is waited for", SYS_epoll_ctl, { -1 }, CABLES },
	{ "wait for frames", SYS_epoll_wait, { -1 }, NET | VSOCK },
	{ "read an image", SYS_preadv2, { -1 }, IMAGES },
	{ "write an image", SYS_pwritev2, { -1 }, IMAGES },
	{ "make an image durable", SYS_fdatasync, { -1 }, IMAGES },
	{ "make a hole", SYS_fallocate, { -1 }, IMAGES },
	{ "cut a file", SYS_ftruncate, { -1 }, IMAGES },
	{ "close", SYS_close, { -1 }, EVERYBODY & ~DISK & ~RING & ~SHARE },
	{ "count waits", SYS_getrusage, { -1 }, VCPU | MAIN },
	{ "change the rules", SYS_seccomp, { 1 /* SECCOMP_SET_MODE_FILTER */ }, PLUG },
	{ "take a name", SYS_prctl, { PR_SET_NAME }, PLUG },
	{ "lock a file", SYS_flock, { -1 }, PLUG },
	{ "ask for the size of a device", SYS_ioctl, { -1, BLKGETSIZE64 }, PLUG },
	{ "make a thread", SYS_clone, { CLONE_THREAD_FLAGS | CLONE_PARENT_SETTID | CLONE_NEWPID }, PLUG },
	/* to raise an interrupt, to log, to touch memory of a snapshot, to take memory */
	{ "arm a timer", SYS_timerfd_settime, { -1 }, EVERYBODY },
	{ "interrupt a space", SYS_pidfd_send_signal, { -1, SIGUSR1 }, EVERYBODY },
	{ "write", SYS_write, { -1 }, EVERYBODY },
	{ "read", SYS_read, { -1 }, EVERYBODY },
	{ "read at a place", SYS_preadv, { -1 }, EVERYBODY },
	{ "map", SYS_mmap, { 0, 0, PROT_READ }, EVERYBODY },
	{ "show", SYS_mprotect, { 1, 0, PROT_READ }, EVERYBODY },
	{ "ask the terminal", SYS_ioctl, { -1, TCGETS }, EVERYBODY },
	{ "restore the terminal", SYS_ioctl, { -1, TCSETS }, EVERYBODY },
};

static struct {
	int result[ARRAY_SIZE(matrix)]; /* errno */
} *attempts; /* shared with the child */

static void attempt_all(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(matrix); i++) {
		const long *a = matrix[i].argument;
		attempts->result[i] = syscall(matrix[i].call, a[0], a[1], a[2], a[3], 0, 0) < 0 ? errno : 0;
	}
}

static void grant_all(void)
{
	sandbox_allow_accept(AT_CONSOLE, SANDBOX_MAIN);
	sandbox_allow_accept(AT_CONTROL, SANDBOX_CONTROL);
	sandbox_allow_accept(AT_DEBUGGER, SANDBOX_DEBUGGER);
	sandbox_allow_sockets((const int[]){ TO_DISK }, 1);
	sandbox_allow_messages(TO_KEEPER);
	sandbox_allow_ring(A_RING);
	sandbox_allow_kvm(A_KVM);
	sandbox_allow_plugging();
}

/* What a thread may not fails, and the process lives. */
static void test_roles(void **state)
{
	attempts = mmap(NULL, sizeof(*attempts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(attempts, MAP_FAILED);
	for (enum sandbox_role role = 0; role < SANDBOX_ROLES; role++) {
		pid_t pid = fork();
		if (!pid) {
			log_set_fd(-1);
			grant_all();
			act_as(role, attempt_all, TO_SPACES);
			_exit(DONE);
		}
		int status;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == DONE);
		for (size_t i = 0; i < ARRAY_SIZE(matrix); i++) {
			bool allowed = matrix[i].roles & BIT(role);
			if ((attempts->result[i] != EPERM) != allowed)
				print_error("%s, thread of %s: errno %d\n", matrix[i].name, sandbox_role_name(role), attempts->result[i]);
			assert_true((attempts->result[i] != EPERM) == allowed);
		}
	}
	munmap(attempts, sizeof(*attempts));
}

/* It is told, by the name of the role, and once. */
static void do_wrong_twice(void)
{
	fdatasync(-1);
	fdatasync(-1);
}

static void test_told_once(void **state)
{
	char line[128];
	int status = confined(SANDBOX_SHARE, do_wrong_twice);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == DONE);
	snprintf(line, sizeof(line), "nadir: error: bug: system call %d is not for a thread of the kind 'share', and failed\n", SYS_fdatasync);
	assert_string_equal(said, line);
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
	sandbox_allow_accept(fd[0], SANDBOX_MAIN);
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
	int status = confined(SANDBOX_MAIN, do_abort);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forbidden),        cmocka_unit_test(test_no_file), cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_threads_confined), cmocka_unit_test(test_abort),    cmocka_unit_test(test_accept),
		cmocka_unit_test(test_roles),		 cmocka_unit_test(test_told_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
