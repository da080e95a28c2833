/* Self-confinement (A7): a guest that broke out of the VMM would find a process that can neither open, execute, connect nor map
 * executable memory. An allow-list by seccomp for the process, made of all its threads need, and a shorter one for each thread, of what its role
 * needs (sandbox_rules.c). What the process may not do ends it; what only this thread may not do fails, is told once, and the machine goes on: it does no
 * harm, and a rule that was forgotten for a rare case shall not end a machine. */
#define _GNU_SOURCE
#include "host/linux/sandbox.h"

#include "host/linux/log.h"
#include "host/linux/sandbox_rules.h"
#include "host/linux/sandbox_thread.h"
#include "host/linux/terminal.h"

#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <ucontext.h>
#include <unistd.h>

void sandbox_allow_accept(int fd, enum sandbox_role role)
{
	sandbox_rules_grant(SCMP_SYS(accept4), fd, BIT(role));
}

void sandbox_allow_sockets(const int *fd, unsigned count)
{
	/* A disk's: used by its threads, and by who flushes or closes it. */
	const u32 roles = BIT(SANDBOX_DISK) | BIT(SANDBOX_VCPU) | BIT(SANDBOX_MAIN) | BIT(SANDBOX_CONTROL);
	for (unsigned i = 0; i < count; i++) {
		sandbox_rules_grant(SCMP_SYS(sendto), fd[i], roles);
		sandbox_rules_grant(SCMP_SYS(recvfrom), fd[i], roles);
		sandbox_rules_grant(SCMP_SYS(shutdown), fd[i], roles);
	}
}

void sandbox_allow_messages(int fd)
{
	sandbox_rules_grant(SCMP_SYS(recvmsg), fd, BIT(SANDBOX_NET) | BIT(SANDBOX_VCPU));
}

void sandbox_allow_sending(int fd)
{
	sandbox_rules_grant(SCMP_SYS(sendmsg), fd, BIT(SANDBOX_PLUG));
}

void sandbox_allow_ring(int fd)
{
	sandbox_rules_grant(SCMP_SYS(io_uring_enter), fd, BIT(SANDBOX_RING));
}

void sandbox_allow_plugging(void)
{
	sandbox_rules_use_plugging();
	sandbox_role_expect(SANDBOX_DISK);
}

void sandbox_allow_kvm(int file)
{
	sandbox_rules_use_kvm(file);
}

/* Requests to the server of spaces: a vCPU's, and at the end. */
static void allow_spaces(int socket)
{
	sandbox_rules_grant(SCMP_SYS(sendmsg), socket, BIT(SANDBOX_VCPU) | BIT(SANDBOX_MAIN));
	sandbox_rules_grant(SCMP_SYS(recvmsg), socket, BIT(SANDBOX_VCPU) | BIT(SANDBOX_MAIN));
}

/* ---- what is refused ---- */

#define CALLS_TOLD 1024

/* For this thread alone: it fails. Told once for each call. */
static bool fails(int call, greg_t *regs)
{
	static u64 told[CALLS_TOLD / 64];
	const u64 argument[] = { (u64)regs[REG_RDI], (u64)regs[REG_RSI], (u64)regs[REG_RDX], (u64)regs[REG_R10], (u64)regs[REG_R8], (u64)regs[REG_R9] };
	if (!sandbox_rules_match(call, argument, SANDBOX_EVERYBODY | SANDBOX_PROCESS))
		return false;
	const u64 bit = BIT(call % 64);
	if (!(__atomic_fetch_or(&told[call / 64 % ARRAY_SIZE(told)], bit, __ATOMIC_RELAXED) & bit))
		host_log(LOG_ERROR, "bug: system call %d is not for a thread of the kind '%s', and failed", call, sandbox_role_name(sandbox_thread_role()));
	regs[REG_RAX] = -EPERM;
	return true;
}

/* It was not carried out. Leave the terminal usable, say which it was, and die of it: kill is outside the sandbox, too, and while this signal is being
 * handled the kernel takes another one for the end. */
static void on_violation(int number, siginfo_t *info, void *context)
{
	const int saved = errno;
	if (!fails(info->si_syscall, ((ucontext_t *)context)->uc_mcontext.gregs)) {
		terminal_restore();
		host_log(LOG_ERROR, "bug: system call %d is outside the sandbox", info->si_syscall);
		kill(getpid(), number);
	}
	errno = saved;
}

/* ---- filters ---- */

static scmp_filter_ctx make_filter(u32 roles)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
	if (!filter)
		return NULL;
	/* Those for all threads are for those that there are, too. System calls of other kinds of code are 32-bit ones, for instance. */
	int error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	error = error ? error : seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	error = error ? error : sandbox_rules_add(filter, roles);
	if (!error)
		return filter;
	seccomp_release(filter);
	return NULL;
}

/* A role's, as the kernel takes it. The file is for the library to write to. */
static int compile(int file, enum sandbox_role role, struct sock_fprog *program)
{
	scmp_filter_ctx filter = make_filter(BIT(role));
	off_t begin = lseek(file, 0, SEEK_END), end;
	int error = filter ? seccomp_export_bpf(filter, file) : -ENOMEM;
	seccomp_release(filter);
	end = lseek(file, 0, SEEK_END);
	if (error || begin < 0 || end < begin)
		return error ? error : -EIO;
	program->len = (unsigned short)((size_t)(end - begin) / sizeof(*program->filter));
	program->filter = malloc((size_t)(end - begin));
	if (!program->filter)
		return -ENOMEM;
	return pread(file, program->filter, (size_t)(end - begin), begin) == end - begin ? 0 : -EIO;
}

static int compile_all(struct sock_fprog *programs)
{
	int file = memfd_create("nadir-filters", MFD_CLOEXEC), error = file < 0 ? -errno : 0;
	for (enum sandbox_role role = 0; !error && role < SANDBOX_ROLES; role++)
		if (sandbox_role_used(role))
			error = compile(file, role, &programs[role]);
	if (file >= 0)
		close(file);
	return error;
}

int sandbox_enter(int space_socket)
{
	static struct sock_fprog programs[SANDBOX_ROLES]; /* for good: threads may come later */
	struct sigaction violation = { .sa_sigaction = on_violation, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	if (sigaction(SIGSYS, &violation, NULL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	allow_spaces(space_socket);
	int error = compile_all(programs);
	scmp_filter_ctx filter = error ? NULL : make_filter(SANDBOX_EVERYBODY | SANDBOX_PROCESS);
	if (!filter)
		return error ? error : -ENOMEM;
	error = seccomp_load(filter);
	seccomp_release(filter);
	if (error)
		return error;
	sandbox_threads_release(programs);
	sandbox_thread_confine(SANDBOX_MAIN);
	return 0;
}
