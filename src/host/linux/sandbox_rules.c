/* The table of system calls (sandbox_rules.h). Whoever needs a new one adds it here, for the roles that need it.
 *
 * Many are everybody's, for reasons that are not seen where a thread's work is: any thread may raise an interrupt (arm a timer, interrupt a space, wake
 * a vCPU), be the first to touch RAM of a snapshot (read and unpack it, show it), take memory, log, or panic (restore the terminal, abort). */
#define _GNU_SOURCE
#include "host/linux/sandbox_rules.h"

#include "host/linux/sandbox_thread.h"

#include <asm/prctl.h>
#include <errno.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
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

#define ALL SANDBOX_EVERYBODY
#define PROCESS SANDBOX_PROCESS
#define MAIN BIT(SANDBOX_MAIN)
#define VCPU BIT(SANDBOX_VCPU)
#define DISK BIT(SANDBOX_DISK)
#define NET BIT(SANDBOX_NET)
#define VSOCK BIT(SANDBOX_VSOCK)
#define CONTROL BIT(SANDBOX_CONTROL)
#define PLUG BIT(SANDBOX_PLUG)
#define DEBUGGER BIT(SANDBOX_DEBUGGER)
/* Images: the disks' threads; vCPUs, who do at once what is quick; who flushes disks before a pause, a snapshot or the end; who opens them. */
#define IMAGES (DISK | VCPU | MAIN | CONTROL | PLUG)
/* Frames and packets: who sends them, who waits for them, and who says hello. */
#define CABLES (NET | VSOCK | VCPU | MAIN | PLUG)
/* Spaces: their vCPUs, and who takes them down at the end. */
#define SPACES (VCPU | MAIN)

static const struct {
	int call;
	u32 roles;
} calls[] = {
	/* files that are open; memory of a snapshot, and the run queue's delay, are read at a place */
	{ SCMP_SYS(read), ALL },
	{ SCMP_SYS(write), ALL },
	{ SCMP_SYS(preadv), ALL },
	{ SCMP_SYS(fstat), ALL },
	{ SCMP_SYS(newfstatat), ALL },
	/* for somebody to read a console's output */
	{ SCMP_SYS(poll), ALL },
	{ SCMP_SYS(ppoll), ALL },
	/* time and sleeping */
	{ SCMP_SYS(timerfd_settime), ALL },
	{ SCMP_SYS(clock_gettime), ALL },
	{ SCMP_SYS(clock_nanosleep), ALL },
	{ SCMP_SYS(nanosleep), ALL },
	{ SCMP_SYS(gettimeofday), ALL },
	{ SCMP_SYS(futex), ALL },
	{ SCMP_SYS(sched_yield), ALL },
	{ SCMP_SYS(restart_syscall), ALL },
	/* memory given back or grown (never executable: see below) */
	{ SCMP_SYS(munmap), ALL },
	{ SCMP_SYS(madvise), ALL },
	{ SCMP_SYS(brk), ALL },
	{ SCMP_SYS(mremap), ALL },
	{ SCMP_SYS(membarrier), ALL },
	/* ends of threads and of the process, faults of generated code */
	{ SCMP_SYS(exit), ALL },
	{ SCMP_SYS(exit_group), ALL },
	{ SCMP_SYS(rt_sigreturn), ALL },
	{ SCMP_SYS(rt_sigprocmask), ALL },
	{ SCMP_SYS(sigaltstack), ALL },
	{ SCMP_SYS(getpid), ALL },
	{ SCMP_SYS(gettid), ALL },
	{ SCMP_SYS(set_robust_list), ALL },
	{ SCMP_SYS(rseq), ALL },
	{ SCMP_SYS(getrandom), ALL },
	/* the C library counts CPUs before a thread's first malloc */
	{ SCMP_SYS(sched_getaffinity), ALL },
	/* connections that end */
	{ SCMP_SYS(close), ALL & ~DISK & ~BIT(SANDBOX_RING) & ~BIT(SANDBOX_SHARE) },
	/* consoles' files are cut and begun anew; the control socket reads the same file again and again; holes of an image */
	{ SCMP_SYS(lseek), IMAGES },
	{ SCMP_SYS(ftruncate), IMAGES },
	/* disks, and variables of firmware */
	{ SCMP_SYS(preadv2), IMAGES },
	{ SCMP_SYS(pwritev), IMAGES },
	{ SCMP_SYS(pwritev2), IMAGES },
	{ SCMP_SYS(pwrite64), IMAGES },
	{ SCMP_SYS(fdatasync), IMAGES },
	{ SCMP_SYS(fallocate), IMAGES },
	/* networks: frames, and what is waited for */
	{ SCMP_SYS(writev), CABLES },
	{ SCMP_SYS(epoll_ctl), CABLES },
	{ SCMP_SYS(epoll_wait), NET | VSOCK },
	/* whether we compete for a CPU with our own spaces, and have waited for a disk */
	{ SCMP_SYS(getrusage), VCPU | MAIN },
};

#define ARGUMENTS 2

/* Calls whose arguments matter. */
struct rule {
	int call;
	u32 roles;
	unsigned arguments;
	struct scmp_arg_cmp argument[ARGUMENTS];
};

static const struct rule rules[] = {
	/* Memory, but never executable memory. */
	{ SCMP_SYS(mmap), ALL, 1, { SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0) } },
	{ SCMP_SYS(mprotect), ALL, 1, { SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0) } },
	/* Engines reach their vCPU through GS. */
	{ SCMP_SYS(arch_prctl), VCPU, 1, { SCMP_A0_64(SCMP_CMP_EQ, ARCH_SET_GS) } },
	/* The terminal: ask and restore. */
	{ SCMP_SYS(ioctl), ALL, 1, { SCMP_A1_64(SCMP_CMP_EQ, TCGETS) } },
	{ SCMP_SYS(ioctl), ALL, 1, { SCMP_A1_64(SCMP_CMP_EQ, TCSETS) } },
	{ SCMP_SYS(ioctl), ALL, 1, { SCMP_A1_64(SCMP_CMP_EQ, TCGETS2_REQUEST) } },
	{ SCMP_SYS(ioctl), ALL, 1, { SCMP_A1_64(SCMP_CMP_EQ, TCSETS2_REQUEST) } },
	/* What frames from a tap interface may come with. */
	{ SCMP_SYS(ioctl), CABLES, 1, { SCMP_A1_64(SCMP_CMP_EQ, TUNSETOFFLOAD) } },
	/* A thread chooses its own CPU. */
	{ SCMP_SYS(sched_setaffinity), VCPU | MAIN, 1, { SCMP_A0_64(SCMP_CMP_EQ, 0) } },
	/* No way around what says which call was refused. */
	{ SCMP_SYS(rt_sigaction), ALL, 1, { SCMP_A0_64(SCMP_CMP_NE, SIGSYS) } },
	/* Spaces are interrupted. */
	{ SCMP_SYS(pidfd_send_signal), ALL, 1, { SCMP_A1_64(SCMP_CMP_EQ, SIGUSR1) } },
	/* Threads give themselves names, and up what they do not need. */
	{ SCMP_SYS(prctl), PROCESS | PLUG, 1, { SCMP_A0_64(SCMP_CMP_EQ, PR_SET_NAME) } },
	{ SCMP_SYS(seccomp), PROCESS | PLUG, 2, { SCMP_A0_64(SCMP_CMP_EQ, SECCOMP_SET_MODE_FILTER), SCMP_A1_64(SCMP_CMP_EQ, 0) } },
};

/* Without CLONE_THREAD a new process would be made. */
#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

/* Disks and networks come with messages; they are looked at, locked, and get threads. */
static const struct rule plugging[] = {
	{ SCMP_SYS(recvmsg), CONTROL | PLUG | NET | VCPU, 0, { { 0 } } },
	{ SCMP_SYS(flock), PLUG, 0, { { 0 } } },
	{ SCMP_SYS(statx), PLUG, 0, { { 0 } } },
	{ SCMP_SYS(ioctl), PLUG, 1, { SCMP_A1_64(SCMP_CMP_EQ, BLKGETSIZE64) } },
	{ SCMP_SYS(clone), PLUG, 1, { SCMP_A0_64(SCMP_CMP_MASKED_EQ, THREAD_FLAGS | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET, THREAD_FLAGS) } },
};

/* To run a vCPU, to move its state, to change what memory it sees. None makes a VM, a vCPU, a device, or a way around what nadir answers. */
static const u64 kvm_requests[] = {
	KVM_RUN, KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS, KVM_SET_SREGS, KVM_GET_SREGS2, KVM_SET_SREGS2, KVM_GET_XSAVE, KVM_SET_XSAVE,
	KVM_GET_XCRS, KVM_SET_XCRS, KVM_GET_MSRS, KVM_SET_MSRS, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS,
	KVM_SET_GUEST_DEBUG, KVM_INTERRUPT, KVM_NMI, KVM_SET_DEVICE_ATTR, KVM_SET_USER_MEMORY_REGION, KVM_GET_DIRTY_LOG,
};

/* Who runs vCPUs, and who looks at them or moves their memory while they stand still. */
#define KVM (VCPU | MAIN | CONTROL | DEBUGGER)

#define GRANTS_MAX 256

/* Calls that are allowed with one file as their first argument alone. Filled before the process is confined. */
static struct {
	struct rule grant[GRANTS_MAX];
	unsigned grants;
	int kvm;
	bool plugging;
} open_files = { .kvm = -1 };

void sandbox_rules_grant(int call, int fd, u32 roles)
{
	if (fd < 0 || open_files.grants == GRANTS_MAX)
		return;
	open_files.grant[open_files.grants++] = (struct rule){ call, roles, 1, { SCMP_A0_64(SCMP_CMP_EQ, (scmp_datum_t)fd) } };
}

void sandbox_rules_use_kvm(int file)
{
	open_files.kvm = file;
}

void sandbox_rules_use_plugging(void)
{
	open_files.plugging = true;
}

static struct rule kvm_rule(u64 request)
{
	return (struct rule){ SCMP_SYS(ioctl), KVM, 2, { SCMP_A0_64(SCMP_CMP_GE, (scmp_datum_t)open_files.kvm), SCMP_A1_64(SCMP_CMP_EQ, request) } };
}

/* Signals to itself alone. */
static struct rule own_signals(void)
{
	return (struct rule){ SCMP_SYS(tgkill), ALL, 1, { SCMP_A0_64(SCMP_CMP_EQ, (scmp_datum_t)getpid()) } };
}

/* ---- filters ---- */

static int add(scmp_filter_ctx filter, u32 roles, const struct rule *r)
{
	return r->roles & roles ? seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, r->call, r->arguments, r->argument) : 0;
}

static int add_plugging(scmp_filter_ctx filter, u32 roles)
{
	int error = 0;
	for (unsigned i = 0; !error && i < ARRAY_SIZE(plugging); i++)
		error = add(filter, roles, &plugging[i]);
	/* The C library's own way to make threads shows its flags to nobody; it has another. */
	if (!error && roles & PLUG)
		error = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	return error;
}

static int add_files(scmp_filter_ctx filter, u32 roles)
{
	int error = 0;
	for (unsigned i = 0; !error && i < open_files.grants; i++)
		error = add(filter, roles, &open_files.grant[i]);
	for (unsigned i = 0; open_files.kvm >= 0 && !error && i < ARRAY_SIZE(kvm_requests); i++) {
		const struct rule r = kvm_rule(kvm_requests[i]);
		error = add(filter, roles, &r);
	}
	return error;
}

int sandbox_rules_add(scmp_filter_ctx filter, u32 roles)
{
	const struct rule signals = own_signals();
	/* The C library looks for a file when it gives memory back; it does well without. */
	int error = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(openat), 0);
	for (unsigned i = 0; !error && i < ARRAY_SIZE(calls); i++)
		error = calls[i].roles & roles ? seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i].call, 0) : 0;
	for (unsigned i = 0; !error && i < ARRAY_SIZE(rules); i++)
		error = add(filter, roles, &rules[i]);
	error = error ? error : add(filter, roles, &signals);
	error = error || !open_files.plugging ? error : add_plugging(filter, roles);
	return error ? error : add_files(filter, roles);
}

/* ---- looking one up ---- */

static bool holds(const struct scmp_arg_cmp *c, u64 value)
{
	switch (c->op) {
	case SCMP_CMP_EQ:
		return value == c->datum_a;
	case SCMP_CMP_NE:
		return value != c->datum_a;
	case SCMP_CMP_GE:
		return value >= c->datum_a;
	case SCMP_CMP_MASKED_EQ:
		return (value & c->datum_a) == c->datum_b;
	default:
		return false;
	}
}

static bool matches(const struct rule *r, int call, const u64 *argument, u32 roles)
{
	bool good = r->call == call && r->roles & roles;
	for (unsigned i = 0; good && i < r->arguments; i++)
		good = holds(&r->argument[i], argument[r->argument[i].arg]);
	return good;
}

bool sandbox_rules_match(int call, const u64 *argument, u32 roles)
{
	const struct rule signals = own_signals();
	bool found = matches(&signals, call, argument, roles);
	for (unsigned i = 0; !found && i < ARRAY_SIZE(calls); i++)
		found = calls[i].call == call && calls[i].roles & roles;
	for (unsigned i = 0; !found && i < ARRAY_SIZE(rules); i++)
		found = matches(&rules[i], call, argument, roles);
	for (unsigned i = 0; open_files.plugging && !found && i < ARRAY_SIZE(plugging); i++)
		found = matches(&plugging[i], call, argument, roles);
	for (unsigned i = 0; !found && i < open_files.grants; i++)
		found = matches(&open_files.grant[i], call, argument, roles);
	for (unsigned i = 0; open_files.kvm >= 0 && !found && i < ARRAY_SIZE(kvm_requests); i++) {
		const struct rule r = kvm_rule(kvm_requests[i]);
		found = matches(&r, call, argument, roles);
	}
	return found;
}
