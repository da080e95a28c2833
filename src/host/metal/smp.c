/* Starting the other CPUs, one after the other: INIT, then the start-up interrupt twice. Intel SDM volume 3, "MP Initialization Protocol Algorithm". */
#include "host/metal/smp.h"

#include "host/metal/apic.h"
#include "host/metal/log.h"
#include "host/metal/machine_check.h"
#include "host/metal/map.h"
#include "host/metal/pages.h"
#include "host/metal/thread.h"
#include "host/metal/time.h"
#include "host/port.h"
#include "lib/string.h"

#define TRAMPOLINE 0x8000u /* trampoline.S */
#define STACK_SIZE 16384
#define MS 1000000ull
#define PATIENCE_NS (1000 * MS)

extern const u8 trampoline_start[], trampoline_data[], trampoline_end[]; /* trampoline.S */

/* What the new CPU finds in trampoline_data. */
struct start {
	u64 root;
	u64 stack;
	struct cpu *cpu;
	void (*entry)(struct cpu *cpu);
};

static void cpu_started(struct cpu *cpu)
{
	cpu_init(cpu);
	apic_enable();
	thread_adopt_idle(cpu);
	machine_check_init();
	thread_idle();
}

static bool wait_online(const struct cpu *cpu, u64 nanoseconds)
{
	u64 start = host_now();
	while (!__atomic_load_n(&cpu->online, __ATOMIC_ACQUIRE) && host_now() - start < nanoseconds)
		cpu_relax();
	return __atomic_load_n(&cpu->online, __ATOMIC_ACQUIRE);
}

static bool start_cpu(struct cpu *cpu)
{
	u8 *stack = area_alloc(STACK_SIZE);
	if (!stack)
		return false;
	struct start start = { map_root(), (u64)(uintptr_t)stack + STACK_SIZE, cpu, cpu_started };
	u8 *page = physical(TRAMPOLINE);
	memcpy(page, trampoline_start, (size_t)(trampoline_end - trampoline_start));
	memcpy(page + (trampoline_data - trampoline_start), &start, sizeof(start));
	apic_send_init(cpu->apic_id);
	time_delay(10 * MS);
	for (unsigned i = 0; i < 2; i++) {
		apic_send_startup(cpu->apic_id, TRAMPOLINE >> PAGE_SHIFT);
		if (wait_online(cpu, i ? PATIENCE_NS : MS))
			return true;
	}
	return false;
}

void smp_start(const struct acpi_info *info)
{
	if (!map_pages(TRAMPOLINE, TRAMPOLINE, PAGE_SIZE, MAP_EXEC))
		host_panic("no memory for page tables");
	for (unsigned i = 0; i < info->cpus; i++) {
		if (info->apic_id[i] == cpus[0]->apic_id)
			continue;
		struct cpu *cpu = cpu_create(cpu_count, info->apic_id[i]);
		if (!cpu)
			break;
		cpus[cpu_count] = cpu;
		if (start_cpu(cpu))
			__atomic_store_n(&cpu_count, cpu_count + 1, __ATOMIC_RELEASE);
		else
			log_line("warning: the CPU with APIC ID %u does not start", info->apic_id[i]);
	}
	unmap_pages(TRAMPOLINE, PAGE_SIZE);
}
