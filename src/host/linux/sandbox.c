/* Self-confinement (A7): a guest that broke out of the VMM would find a process that can neither open, execute, connect nor map
 * executable memory. An allow-list by seccomp for all threads alike. */
#define _GNU_SOURCE
#include "host/linux/sandbox.h"

#include "host/linux/log.h"
#include "host/linux/terminal.h"

#include <asm/prctl.h>
#include <errno.h>
#include <seccomp.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <termios.h>
#include <unistd.h>

/* As the C library of tomorrow asks and restores the terminal; their header does not go with termios.h. */
#define TCGETS2_REQUEST 0x802c542a
#define TCSETS2_REQUEST 0x402c542b

static const int allowed[] = {
	/* consoles, logs, events */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(lseek), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(close),
	SCMP_SYS(fstat), SCMP_SYS(newfstatat),
	SCMP_SYS(ftruncate),
	/* networks: frames, and what is waited for */
	SCMP_SYS(epoll_wait), SCMP_SYS(epoll_ctl),
	/* disks */
	SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(preadv2), SCMP_SYS(pwritev2), SCMP_SYS(pwrite64), SCMP_SYS(fdatasync), SCMP_SYS(fallocate),
	/* time and sleeping */
	SCMP_SYS(timerfd_settime), SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday),
	SCMP_SYS(futex), SCMP_SYS(sched_yield), SCMP_SYS(restart_syscall),
	/* memory given back or grown (never executable: see below) */
	SCMP_SYS(munmap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(mremap), SCMP_SYS(membarrier),
	/* ends of threads and of the process, faults of generated code */
	SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(sigaltstack), SCMP_SYS(getpid),
	SCMP_SYS(gettid), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(getrandom),
	/* whether we compete for a CPU with our own spaces */
	SCMP_SYS(getrusage),
	/* the C library counts CPUs before a thread's first malloc */
	SCMP_SYS(sched_getaffinity),
};

#define GRANTS_MAX 256

/* Calls that are allowed with one file as their first argument alone. */
static struct {
	int call, fd;
} grants[GRANTS_MAX];
static unsigned grant_count;

static void grant(int call, int fd)
{
	if (fd < 0 || grant_count == GRANTS_MAX)
		return;
	grants[grant_count].call = call;
	grants[grant_count++].fd = fd;
}

void sandbox_allow_accept(int fd)
{
	grant(SCMP_SYS(accept4), fd);
}

void sandbox_allow_sockets(const int *fd, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		grant(SCMP_SYS(sendto), fd[i]);
		grant(SCMP_SYS(recvfrom), fd[i]);
		grant(SCMP_SYS(shutdown), fd[i]);
	}
}

void sandbox_allow_messages(int fd)
{
	grant(SCMP_SYS(recvmsg), fd);
}

void sandbox_allow_ring(int fd)
{
	grant(SCMP_SYS(io_uring_enter), fd);
}

static bool plugging;

void sandbox_allow_plugging(void)
{
	plugging = true;
}

/* Without CLONE_THREAD a new process would be made. The C library's own way to make threads shows its flags to nobody; it has another. */
#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

static int add_plugging(scmp_filter_ctx filter)
{
	const struct {
		u32 action;
		int call;
		unsigned arguments;
		struct scmp_arg_cmp argument;
	} rows[] = {
		{ SCMP_ACT_ALLOW, SCMP_SYS(recvmsg), 0, { 0 } },
		{ SCMP_ACT_ALLOW, SCMP_SYS(flock), 0, { 0 } },
		{ SCMP_ACT_ALLOW, SCMP_SYS(statx), 0, { 0 } },
		{ SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1_64(SCMP_CMP_EQ, BLKGETSIZE64) },
		{ SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, SCMP_A0_64(SCMP_CMP_MASKED_EQ, THREAD_FLAGS | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET, THREAD_FLAGS) },
		{ SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0, { 0 } },
	};
	int error = 0;
	for (unsigned i = 0; plugging && !error && i < ARRAY_SIZE(rows); i++)
		error = seccomp_rule_add_array(filter, rows[i].action, rows[i].call, rows[i].arguments, &rows[i].argument);
	return error;
}

/* To run a vCPU, to move its state, to change what memory it sees. None makes a VM, a vCPU, a device, or a way around what nadir answers. */
static const u64 kvm_requests[] = {
	KVM_RUN, KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS, KVM_SET_SREGS, KVM_GET_SREGS2, KVM_SET_SREGS2, KVM_GET_XSAVE, KVM_SET_XSAVE,
	KVM_GET_XCRS, KVM_SET_XCRS, KVM_GET_MSRS, KVM_SET_MSRS, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS,
	KVM_SET_GUEST_DEBUG, KVM_INTERRUPT, KVM_NMI, KVM_SET_DEVICE_ATTR, KVM_SET_USER_MEMORY_REGION, KVM_GET_DIRTY_LOG,
};

static int kvm_file = -1;

void sandbox_allow_kvm(int file)
{
	kvm_file = file;
}

static int add_kvm(scmp_filter_ctx filter)
{
	int error = 0;
	for (unsigned i = 0; kvm_file >= 0 && !error && i < ARRAY_SIZE(kvm_requests); i++)
		error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 2, SCMP_A0_64(SCMP_CMP_GE, (scmp_datum_t)kvm_file),
					 SCMP_A1_64(SCMP_CMP_EQ, kvm_requests[i]));
	return error;
}

/* Calls whose arguments matter, and those that are refused without dying of it. */
static int add_conditions(scmp_filter_ctx filter, int space_socket)
{
	const struct {
		u32 action;
		int call;
		struct scmp_arg_cmp argument;
	} rows[] = {
		/* Memory, but never executable memory. */
		{ SCMP_ACT_ALLOW, SCMP_SYS(mmap), SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0) },
		{ SCMP_ACT_ALLOW, SCMP_SYS(mprotect), SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0) },
		/* Engines reach their vCPU through GS. */
		{ SCMP_ACT_ALLOW, SCMP_SYS(arch_prctl), SCMP_A0_64(SCMP_CMP_EQ, ARCH_SET_GS) },
		/* The terminal: ask and restore. */
		{ SCMP_ACT_ALLOW, SCMP_SYS(ioctl), SCMP_A1_64(SCMP_CMP_EQ, TCGETS) },
		{ SCMP_ACT_ALLOW, SCMP_SYS(ioctl), SCMP_A1_64(SCMP_CMP_EQ, TCSETS) },
		{ SCMP_ACT_ALLOW, SCMP_SYS(ioctl), SCMP_A1_64(SCMP_CMP_EQ, TCGETS2_REQUEST) },
		{ SCMP_ACT_ALLOW, SCMP_SYS(ioctl), SCMP_A1_64(SCMP_CMP_EQ, TCSETS2_REQUEST) },
		/* What frames from a tap interface may come with. */
		{ SCMP_ACT_ALLOW, SCMP_SYS(ioctl), SCMP_A1_64(SCMP_CMP_EQ, TUNSETOFFLOAD) },
		/* A thread chooses its own CPU. */
		{ SCMP_ACT_ALLOW, SCMP_SYS(sched_setaffinity), SCMP_A0_64(SCMP_CMP_EQ, 0) },
		/* Signals to itself alone, and no way around the handler below. */
		{ SCMP_ACT_ALLOW, SCMP_SYS(tgkill), SCMP_A0_64(SCMP_CMP_EQ, (scmp_datum_t)getpid()) },
		{ SCMP_ACT_ALLOW, SCMP_SYS(rt_sigaction), SCMP_A0_64(SCMP_CMP_NE, SIGSYS) },
	};
	/* The C library looks for a file when it gives memory back; it does well without. */
	int error = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(openat), 0);
	for (unsigned i = 0; !error && i < ARRAY_SIZE(rows); i++)
		error = seccomp_rule_add(filter, rows[i].action, rows[i].call, 1, rows[i].argument);
	for (unsigned i = 0; !error && i < grant_count; i++)
		error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, grants[i].call, 1, SCMP_A0_64(SCMP_CMP_EQ, (scmp_datum_t)grants[i].fd));
	/* Requests to the server of spaces. */
	if (!error && space_socket >= 0)
		error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(sendmsg), 1, SCMP_A0_64(SCMP_CMP_EQ, (scmp_datum_t)space_socket));
	if (!error && space_socket >= 0)
		error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(recvmsg), 1, SCMP_A0_64(SCMP_CMP_EQ, (scmp_datum_t)space_socket));
	/* Processes it was given, to be interrupted. */
	if (!error && space_socket >= 0)
		error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(pidfd_send_signal), 1, SCMP_A1_64(SCMP_CMP_EQ, SIGUSR1));
	return error;
}

static int add_rules(scmp_filter_ctx filter, int space_socket)
{
	int error = 0;
	for (unsigned i = 0; !error && i < ARRAY_SIZE(allowed); i++)
		error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
	error = error ? error : add_kvm(filter);
	error = error ? error : add_plugging(filter);
	return error ? error : add_conditions(filter, space_socket);
}

/* A call outside the list was not carried out. Leave the terminal usable, say which it was, and die of it: the signal that is raised here
 * comes when the handler returns, which the kernel has set back to the default action. */
static void on_violation(int number, siginfo_t *info, void *context)
{
	terminal_restore();
	host_log(LOG_ERROR, "bug: system call %d is outside the sandbox", info->si_syscall);
	raise(number);
}

int sandbox_enter(int space_socket)
{
	struct sigaction violation = { .sa_sigaction = on_violation, .sa_flags = SA_SIGINFO | SA_ONSTACK | (int)SA_RESETHAND };
	if (sigaction(SIGSYS, &violation, NULL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
	if (!filter)
		return -ENOMEM;
	int error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	/* System calls of other kinds of code, 32-bit ones for instance. */
	error = error ? error : seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	error = error ? error : add_rules(filter, space_socket);
	error = error ? error : seccomp_load(filter);
	seccomp_release(filter);
	return error;
}
