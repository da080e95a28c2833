/* The host port's bare CPU: a process has none. */
#include "host/port.h"

bool host_bare_cpu(const char **why)
{
	*why = "nadir is a process of another system here; the hardware's virtualization is that system's to use";
	return false;
}

u64 host_physical(const void *p)
{
	return ~0ull;
}

u64 host_physical_run(const void *p, u64 *size)
{
	*size = 0;
	return ~0ull;
}

void *host_pages_create(unsigned count)
{
	return NULL;
}

void host_pages_destroy(void *pages, unsigned count)
{
}

void *host_virtual(u64 physical)
{
	return NULL;
}

unsigned host_cpus(void)
{
	return 0;
}

u64 host_hold(void)
{
	return 0;
}

void host_release(u64 held)
{
}

unsigned host_cpu(void)
{
	return 0;
}

void **host_cpu_slot(void)
{
	return NULL;
}

void host_nmi(void)
{
}

u64 host_timer_due(void)
{
	return HOST_NEVER;
}

void host_timer_now(void)
{
}

void host_interrupt(u8 vector)
{
}

u8 host_notification(void)
{
	return 0;
}

void host_notify(unsigned cpu)
{
}

void host_cpu_call(unsigned cpu, void (*function)(void *opaque), void *opaque)
{
}
