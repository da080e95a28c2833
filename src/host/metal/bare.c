/* The host port's bare CPU: what engines need that use the hardware's virtualization. */
#include "arch/exception.h"
#include "host/metal/apic.h"
#include "host/metal/cpu.h"
#include "host/metal/map.h"
#include "host/metal/pages.h"
#include "host/port.h"
#include "lib/string.h"

bool host_bare_cpu(const char **why)
{
	return true;
}

u64 host_physical_run(const void *p, u64 *size)
{
	return map_find_run((u64)(uintptr_t)p, size);
}

/* Pages of host_pages_create, which engines ask for at each entry, are where all of the host's memory is. */
u64 host_physical(const void *p)
{
	u64 size;
	return (u64)(uintptr_t)p >= PHYSICAL_BASE && (u64)(uintptr_t)p < PHYSICAL_END ? physical_of(p) : host_physical_run(p, &size);
}

void *host_pages_create(unsigned count)
{
	u64 address = pages_alloc(count, 1);
	return address == NO_PAGE ? NULL : memset(physical(address), 0, count * PAGE_SIZE);
}

void host_pages_destroy(void *pages, unsigned count)
{
	if (pages)
		pages_free(physical_of(pages), count);
}

void *host_virtual(u64 address)
{
	return physical(address);
}

unsigned host_cpus(void)
{
	return cpu_count;
}

u64 host_hold(void)
{
	return irq_save();
}

void host_release(u64 held)
{
	irq_restore(held);
}

unsigned host_cpu(void)
{
	return this_cpu()->index;
}

void **host_cpu_slot(void)
{
	return &this_cpu()->engine;
}

void host_nmi(void)
{
	__asm__ volatile("int %0" ::"i"(VEC_NMI) : "memory");
}

/* trap.S: INT n and RET, 4 bytes each. */
extern const u8 trap_raise[];

void host_interrupt(u8 vector)
{
	const u8 *raise = trap_raise + 4 * vector;
	__asm__ volatile("call *%0" ::"r"(raise) : "memory", "cc");
}

u8 host_notification(void)
{
	return VECTOR_POSTED;
}

void host_notify(unsigned cpu)
{
	if (cpu < cpu_count)
		apic_send(cpus[cpu]->apic_id, VECTOR_POSTED);
}

void host_cpu_call(unsigned cpu, void (*function)(void *opaque), void *opaque)
{
	cpu_call(cpu, function, opaque);
}

/* The other CPU looks at `stop` with interrupts off before it enters a guest, so it either sees it, or is interrupted in the guest. */
void host_space_stop(u32 *stop)
{
	struct host_run *run = container_of(stop, struct host_run, stop);
	__atomic_store_n(&run->stop, 1, __ATOMIC_SEQ_CST);
	u64 held = host_hold();
	u32 cpu = __atomic_load_n(&run->cpu, __ATOMIC_SEQ_CST);
	if (cpu != host_cpu() && cpu < cpu_count)
		apic_send(cpus[cpu]->apic_id, VECTOR_WAKE);
	host_release(held);
}
