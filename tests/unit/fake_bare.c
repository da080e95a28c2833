/* The bare CPU of the fake host: pages whose physical addresses are their addresses here, below 2 GiB as on a machine whose host has its
 * memory there, and nothing that would need privileges. */
#define _GNU_SOURCE
#include "fake_bare.h"

#include <sys/mman.h>

static unsigned pages, pages_left = ~0u, barriers;
static u64 run_size = PAGE_SIZE;

void fake_host_set_run(u64 size)
{
	run_size = size;
}

void fake_host_limit_pages(unsigned count)
{
	pages_left = count;
}

unsigned fake_host_pages(void)
{
	return pages;
}

unsigned fake_host_barriers(void)
{
	return barriers;
}

void host_barrier_all(void)
{
	barriers++;
}

bool host_bare_cpu(const char **why)
{
	*why = "this host is a fake";
	return false;
}

u64 host_physical(const void *p)
{
	return (u64)(uintptr_t)p;
}

u64 host_physical_run(const void *p, u64 *size)
{
	*size = run_size - ((u64)(uintptr_t)p & (run_size - 1));
	return (u64)(uintptr_t)p;
}

void *host_pages_create(unsigned count)
{
	if (pages_left < count)
		return NULL;
	void *p = mmap(NULL, count * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	pages += count;
	pages_left -= pages_left == ~0u ? 0 : count;
	return p;
}

void host_pages_destroy(void *p, unsigned count)
{
	if (!p)
		return;
	munmap(p, count * PAGE_SIZE);
	pages -= count;
}

void *host_virtual(u64 physical)
{
	return (void *)(uintptr_t)physical;
}

unsigned host_cpus(void)
{
	return 1;
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
	static void *slot;
	return &slot;
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
	function(opaque);
}
