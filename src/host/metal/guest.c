/* Guests: from modules to machines, and what becomes of them. */
#include "host/metal/guest.h"

#include "host/metal/log.h"
#include "host/metal/pages.h"
#include "host/metal/serial.h"
#include "host/metal/thread.h"
#include "host/port.h"
#include "lib/string.h"
#include "vm/report.h"
#include "vm/vm.h"

struct guest {
	struct vm *vm;
	u32 ended; /* atomic: 1 when the machine has ended */
	u32 running; /* vCPU threads that have not returned; atomic */
	struct guest_cpu {
		struct guest *guest;
		unsigned index;
	} cpu[VM_CPUS_MAX];
};

static struct guest guest;

static void guest_ended(void *opaque)
{
	struct guest *g = opaque;
	__atomic_store_n(&g->ended, 1, __ATOMIC_SEQ_CST);
	host_wake(&g->ended);
}

static void report_line(void *opaque, const char *line)
{
	log_line("%s", line);
}

static void put(void *opaque, u8 byte)
{
	serial_put(byte);
}

static bool get(void *opaque, u8 *byte)
{
	return serial_get(byte);
}

static void run_cpu(void *opaque)
{
	const struct guest_cpu *cpu = opaque;
	vm_run_vcpu(cpu->guest->vm, cpu->index);
	__atomic_fetch_sub(&cpu->guest->running, 1, __ATOMIC_SEQ_CST);
	host_wake(&cpu->guest->running);
}

static const char *end_name(const struct vm *vm)
{
	static const char *const names[] = { "runs", "powered itself off", "rebooted", "ended", "crashed", "was stopped", "could not go on" };
	return names[vm_ended(vm)];
}

static void start(struct guest *g)
{
	g->running = g->vm->config.cpus;
	for (unsigned i = 0; i < g->vm->config.cpus; i++) {
		g->cpu[i] = (struct guest_cpu){ g, i };
		struct thread_setup setup = { .name = "guest", .run = run_cpu, .opaque = &g->cpu[i], .vector = true, .pin = -1 };
		if (!thread_create(&setup))
			host_panic("no memory for a thread");
	}
}

void guests_run(const struct boot_info *info)
{
	char error[256];
	bool user_error;
	if (!info->modules) {
		log_line("there is no guest: the boot loader loaded no module");
		return;
	}
	const struct boot_module *kernel = &info->module[0];
	struct vm_config config = {
		.memory = 64 << 20,
		.cpus = 1,
		.cpu_model = "host",
		.engine = engine_find("step"),
		.direct = DIRECT_OFF,
		.boot = { .kernel = physical(kernel->base), .kernel_size = kernel->size, .cmdline = kernel->arguments },
		.backends = { .serial_put = put, .serial_get = get, .debug_put = put, .debug_exit = true },
		.hang_timeout = 30,
		.no_reboot = true,
		.ended = guest_ended,
		.report = report_line,
		.opaque = &guest,
	};
	guest.vm = vm_create(&config, error, sizeof(error), &user_error);
	if (!guest.vm) {
		log_line("%s", error);
		return;
	}
	start(&guest);
	while (!__atomic_load_n(&guest.ended, __ATOMIC_SEQ_CST))
		host_wait(&guest.ended, 0, HOST_NEVER);
	for (u32 n; (n = __atomic_load_n(&guest.running, __ATOMIC_SEQ_CST));)
		host_wait(&guest.running, n, HOST_NEVER);
	log_line("the guest %s, status %d", end_name(guest.vm), guest.vm->exit_status);
	vm_destroy(guest.vm);
}
