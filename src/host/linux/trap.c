/* host_set_trap_handler of the Linux host: SIGSEGV, SIGBUS, SIGFPE and SIGILL carry the exception vector, error code
 * and CR2 in their context, and the handler may send the thread elsewhere. A fault that is nobody's ends the program as
 * it would have. Compiled into the unit tests' host as well. */
#define _GNU_SOURCE
#include "host/linux/trap.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define TRAP_STACK_SIZE 65536

static host_trap_handler trap_handler;
static bool (*trap_pager)(u64 address);
static void (*trap_unclaimed)(int signal_number, const struct host_trap *trap);

static void on_signal(int signal_number, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	struct host_trap trap = {
		.pc = (u64)regs[REG_RIP],
		.vector = (u32)regs[REG_TRAPNO],
		.error_code = (u32)regs[REG_ERR],
		.address = (u64)regs[REG_CR2],
		.rflags = (u64)regs[REG_EFL],
	};
	bool (*pager)(u64 address) = __atomic_load_n(&trap_pager, __ATOMIC_ACQUIRE);
	if (signal_number == SIGSEGV && info->si_code > 0 && pager && pager((u64)(uintptr_t)info->si_addr))
		return;
	host_trap_handler handler = __atomic_load_n(&trap_handler, __ATOMIC_ACQUIRE);
	if (handler && handler(&trap)) {
		regs[REG_RIP] = (greg_t)trap.pc;
		return;
	}
	if (trap_unclaimed)
		trap_unclaimed(signal_number, &trap);
	/* Not generated code's: the default action, when the instruction faults again. */
	signal(signal_number, SIG_DFL);
	if (info->si_code <= 0)
		raise(signal_number); /* no instruction's fault, but sent by somebody */
}

static void install(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	sigemptyset(&action.sa_mask);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
}

void trap_thread_init(void)
{
	void *stack = mmap(NULL, TRAP_STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	stack_t alternate = { .ss_sp = stack, .ss_size = TRAP_STACK_SIZE };
	if (stack == MAP_FAILED || sigaltstack(&alternate, NULL))
		host_panic("no memory for the signal stack");
}

void host_set_trap_handler(host_trap_handler handler)
{
	if (__atomic_exchange_n(&trap_handler, handler, __ATOMIC_ACQ_REL) != handler)
		install();
}

void trap_set_pager(bool (*pager)(u64 address))
{
	__atomic_store_n(&trap_pager, pager, __ATOMIC_RELEASE);
	if (pager)
		install();
}

void trap_set_unclaimed(void (*unclaimed)(int signal_number, const struct host_trap *trap))
{
	trap_unclaimed = unclaimed;
}
