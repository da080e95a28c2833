/* The server: a process forked from the VMM before that opens, maps or confines anything. It waits for requests at its socket, forks the
 * processes that become spaces, and tells of their ends. It is the parent of all spaces and takes them along when it ends; it ends when
 * the VMM's end of the socket is closed, however the VMM ended. */
#define _GNU_SOURCE
#include "host/linux/space.h"
#include "host/linux/space_layout.h"

#include <asm/prctl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define SPACE_REPLACED_FD 100 /* above what the server has open */

struct server {
	u64 hole;
	u8 *shared;
	int socket, slots, signals;
	pid_t self;
	pid_t pid[SPACE_SLOTS]; /* 0: none */
};

static struct server server;

static u8 *slot_part(unsigned slot, u64 part)
{
	return server.shared + (u64)slot * SPACE_SLOT_SIZE + part - SPACE_WINDOW;
}

/* ---- in the new process ---- */

static void *in_hole(u64 part)
{
	return (void *)(uintptr_t)(server.hole + part);
}

static bool map_part(unsigned slot, u64 part, u64 end, int protection)
{
	off_t offset = (off_t)slot * SPACE_SLOT_SIZE + (off_t)(part - SPACE_WINDOW);
	return end == part ||
	       mmap(in_hole(part), end - part, protection, MAP_SHARED | MAP_FIXED, server.slots, offset) != MAP_FAILED;
}

static bool map_hole(const struct space_request *r, int code)
{
	return map_part(r->slot, SPACE_WINDOW, SPACE_CONTROL, PROT_READ | PROT_WRITE) &&
	       map_part(r->slot, SPACE_CONTROL, SPACE_ANSWER, PROT_READ) &&
	       map_part(r->slot, SPACE_ANSWER, SPACE_TABLES, PROT_READ | PROT_WRITE) &&
	       map_part(r->slot, SPACE_TABLES, SPACE_TABLES + r->tables_size, PROT_READ) &&
	       mmap((void *)(uintptr_t)r->code, r->code_size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, code, 0) != MAP_FAILED;
}

static bool set_signals(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SPACE_STOP_SIGNAL };
	stack_t stack = { .ss_sp = in_hole(SPACE_SIGNAL_STACK), .ss_size = SPACE_SIGNAL_STACK_SIZE };
	/* What stops code in place is blocked while the runtime has the pass. */
	struct sigaction action = { .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	sigset_t stop;
	sigemptyset(&stop);
	sigaddset(&stop, SPACE_STOP_SIGNAL);
	action.sa_sigaction = (void (*)(int, siginfo_t *, void *))in_hole(SPACE_RUNTIME + space_runtime_trap);
	bool good = !sigaltstack(&stack, NULL);
	for (unsigned i = 0; good && i < ARRAY_SIZE(signals); i++)
		good = !sigaction(signals[i], &action, NULL);
	return good && !sigprocmask(SIG_SETMASK, &stop, NULL);
}

/* Once the VMM has set `block`, system calls of code that is not the runtime's come back as signals, before the filter and whatever their
 * number is: there are some that the kernel has no filter look at (uretprobe, uprobe). Where the kernel cannot do it, it has none of
 * those either. */
static void block_calls(void)
{
	prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, in_hole(SPACE_RUNTIME), SPACE_RUNTIME_SIZE, in_hole(SPACE_CONTROL + CONTROL_BLOCK));
}

static bool keep_two_files(int ram, int ring)
{
	/* Out of the way first. */
	int files[] = { dup2(ram, SPACE_REPLACED_FD), dup2(ring, SPACE_REPLACED_FD + 1) };
	return files[0] >= 0 && files[1] >= 0 && dup2(files[0], SPACE_RAM_FD) == SPACE_RAM_FD && dup2(files[1], SPACE_RING_FD) == SPACE_RING_FD &&
	       !close_range(0, SPACE_RAM_FD - 1, 0) && !close_range(SPACE_RING_FD + 1, ~0u, 0);
}

static _Noreturn void become_space(const struct space_request *r, const int *files, int ring)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "nadir-space");
	if (getppid() != server.self || !map_hole(r, files[SPACE_FILE_CODE]) || !set_signals() || !keep_two_files(files[SPACE_FILE_RAM], ring) ||
	    syscall(SYS_arch_prctl, ARCH_SET_GS, in_hole(SPACE_WINDOW)))
		_exit(1);
	block_calls();
	if (space_filter_enter(server.hole, r->pass))
		_exit(1);
	((void (*)(void))in_hole(SPACE_RUNTIME))();
	_exit(1);
}

/* ---- the server itself ---- */

/* Not waiting for anything that the space does: it cannot. */
static void tell_end(unsigned slot)
{
	struct space_control *control = (struct space_control *)(void *)slot_part(slot, SPACE_CONTROL);
	struct space_answer *answer = (struct space_answer *)(void *)slot_part(slot, SPACE_ANSWER);
	server.pid[slot] = 0;
	__atomic_store_n(&control->dead, 1, __ATOMIC_SEQ_CST);
	/* Whoever is about to sleep on the old value does not. */
	__atomic_fetch_xor(&answer->done, 0x80000000, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &answer->done, FUTEX_WAKE, 1);
}

/* By `process` the VMM interrupts it. False: the VMM is gone. */
static bool reply(int process, int ring)
{
	char there = process >= 0 && ring >= 0;
	union {
		char bytes[CMSG_SPACE(SPACE_REPLY_FILES * sizeof(int))];
		struct cmsghdr header;
	} control = { { 0 } };
	const int files[SPACE_REPLY_FILES] = { [SPACE_FILE_PROCESS] = process, [SPACE_FILE_RING] = ring };
	struct iovec data = { &there, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };
	if (there) {
		control.header = (struct cmsghdr){ CMSG_LEN(sizeof(files)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.header), files, sizeof(files));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	return sendmsg(server.socket, &message, MSG_NOSIGNAL) == 1;
}

static bool create(const struct space_request *r, const int *files)
{
	int ring = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pid_t pid = ring < 0 ? -1 : fork();
	if (!pid)
		become_space(r, files, ring);
	int process = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
	server.pid[r->slot] = pid;
	bool told = reply(process, ring);
	if (pid < 0)
		tell_end(r->slot);
	if (process >= 0)
		close(process);
	if (ring >= 0)
		close(ring);
	return told;
}

/* ---- break points ---- */

static bool debug_register(pid_t pid, unsigned n, u64 value)
{
	return !ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[0]) + n * sizeof(u64), value);
}

/* Local, of instructions: length and kind are zero. Whoever detaches leaves them as they are. */
static bool set_breaks(pid_t pid, const struct space_request *r)
{
	u64 enabled = 0;
	bool good = debug_register(pid, 7, 0);
	for (unsigned i = 0; good && i < r->breaks_count; i++) {
		good = debug_register(pid, i, r->breaks[i]);
		enabled |= 1ull << 2 * i;
	}
	good = good && debug_register(pid, 7, enabled);
	return good || (debug_register(pid, 7, 0) && false);
}

/* The space waits for a request; its debug registers are ours while it stands still. */
static bool change_breaks(const struct space_request *r)
{
	pid_t pid = server.pid[r->slot];
	int status;
	if (!pid || r->breaks_count > HOST_SPACE_BREAKS || ptrace(PTRACE_SEIZE, pid, 0, 0) < 0)
		return false;
	bool stopped = !ptrace(PTRACE_INTERRUPT, pid, 0, 0) && waitpid(pid, &status, __WALL) == pid;
	if (stopped && !WIFSTOPPED(status)) {
		tell_end(r->slot);
		return false;
	}
	bool good = stopped && set_breaks(pid, r);
	return !ptrace(PTRACE_DETACH, pid, 0, 0) && good;
}

/* ---- requests ---- */

static void reap(void)
{
	pid_t pid;
	struct signalfd_siginfo info;
	(void)!read(server.signals, &info, sizeof(info));
	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		for (unsigned slot = 0; slot < SPACE_SLOTS; slot++)
			if (server.pid[slot] == pid)
				tell_end(slot);
}

/* False: the VMM has closed its end, or says nonsense. */
static bool serve(void)
{
	struct space_request request;
	union {
		char bytes[CMSG_SPACE(SPACE_FILES * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec data = { &request, sizeof(request) };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	if (recvmsg(server.socket, &message, MSG_CMSG_CLOEXEC) != sizeof(request) || request.slot >= SPACE_SLOTS)
		return false;
	pid_t pid = server.pid[request.slot];
	if (request.operation == SPACE_KILL)
		return !pid || !kill(pid, SIGKILL);
	if (request.operation == SPACE_BREAK)
		return send(server.socket, &(char){ change_breaks(&request) }, 1, MSG_NOSIGNAL) == 1;
	const struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
	int files[SPACE_FILES];
	if (pid || !rights || rights->cmsg_len != CMSG_LEN(sizeof(files)) || request.tables_size > SPACE_TABLES_MAX)
		return false;
	memcpy(files, CMSG_DATA(rights), sizeof(files));
	bool told = create(&request, files);
	for (unsigned i = 0; i < SPACE_FILES; i++)
		close(files[i]);
	return told;
}

/* The C library has the kernel write to this thread's memory whenever it is rescheduled; there will be none of it in a space. */
static bool forget_rseq(void)
{
	if (!__rseq_size)
		return true;
	struct rseq *area = (struct rseq *)(void *)((u8 *)__builtin_thread_pointer() + __rseq_offset);
	return !syscall(SYS_rseq, area, sizeof(*area), RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
}

static bool map_runtime(void)
{
	int fd = memfd_create("nadir-space", MFD_CLOEXEC);
	bool good = fd >= 0 && write(fd, space_runtime, space_runtime_size) == (ssize_t)space_runtime_size &&
		    mmap(in_hole(SPACE_RUNTIME), SPACE_RUNTIME_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0) != MAP_FAILED;
	close(fd);
	return good;
}

static bool watch_children(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	server.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return server.signals >= 0 && !sigprocmask(SIG_BLOCK, &set, NULL);
}

static bool close_between(int low, int high)
{
	return high == low + 1 || !close_range((unsigned)low + 1, (unsigned)high - 1, 0);
}

/* Only the two files that it was given, and not the terminal's signals. */
static bool detach(void)
{
	int low = MIN(server.socket, server.slots), high = MAX(server.socket, server.slots);
	setsid();
	signal(SIGCHLD, SIG_DFL);
	prctl(PR_SET_NAME, "nadir-spaces");
	return !setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 }) && close_between(-1, low) && close_between(low, high) &&
	       close_between(high, INT_MAX);
}

_Noreturn void space_server(int socket, int slots, u8 *shared, u64 hole)
{
	server = (struct server){ .hole = hole, .shared = shared, .socket = socket, .slots = slots, .self = getpid() };
	if (!detach() || !watch_children() || !map_runtime() || !forget_rseq() || write(socket, "", 1) != 1 ||
	    space_filter_enter_server())
		_exit(1);
	for (;;) {
		struct pollfd on[] = { { .fd = socket, .events = POLLIN }, { .fd = server.signals, .events = POLLIN } };
		if (poll(on, ARRAY_SIZE(on), -1) < 0)
			continue;
		if (on[1].revents)
			reap();
		if (on[0].revents && !serve())
			_exit(0);
	}
}
