/* Reading guest RAM from a snapshot on demand (memory_lazy.h).
 *
 * A chunk is read through a second mapping of the RAM's file, and shown when it is complete, so that other threads see all of it or fault. Whoever
 * faults in a chunk that another thread is reading waits for it. Runs of zero chunks are shown together. */
#define _GNU_SOURCE
#include "host/linux/memory_lazy.h"

#include "host/linux/memory.h"
#include "host/linux/trap.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { ABSENT, BUSY, PRESENT };

/* Set before other threads begin, but for `state` and `left`. */
static struct {
	u8 *ram, *window; /* the same file: as it is shown, and always accessible */
	u64 size;
	const struct snapshot *snapshot;
	u8 *state; /* of each chunk, atomic */
	u64 left; /* chunks not yet PRESENT, atomic */
	void (*failed)(const char *why);
} lazy;

static bool take(u64 chunk)
{
	u8 absent = ABSENT;
	return __atomic_compare_exchange_n(&lazy.state[chunk], &absent, BUSY, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static bool is_zero(u64 chunk)
{
	return lazy.snapshot->index[chunk].kind == CHUNK_ZERO;
}

/* Show chunks that were taken. */
static void show(u64 first, u64 end)
{
	u64 from = first * lazy.snapshot->chunk_size, to = MIN(end * lazy.snapshot->chunk_size, lazy.size);
	if (mprotect(lazy.ram + from, to - from, PROT_READ | PROT_WRITE) < 0)
		lazy.failed("the host has no memory left");
	for (u64 i = first; i < end; i++)
		__atomic_store_n(&lazy.state[i], PRESENT, __ATOMIC_RELEASE);
	__atomic_fetch_sub(&lazy.left, end - first, __ATOMIC_RELEASE);
}

static void wait_for(u64 chunk)
{
	while (__atomic_load_n(&lazy.state[chunk], __ATOMIC_ACQUIRE) == BUSY)
		sched_yield();
}

static void fetch(u64 chunk)
{
	u64 end = chunk + 1;
	if (!take(chunk)) {
		wait_for(chunk);
		return;
	}
	if (is_zero(chunk)) {
		while (end < lazy.snapshot->chunks && is_zero(end) && take(end))
			end++;
	} else {
		const char *why = snapshot_read_chunk(lazy.snapshot, chunk, lazy.window + chunk * lazy.snapshot->chunk_size);
		if (why)
			lazy.failed(why);
	}
	show(chunk, end);
}

/* ---- who asks ---- */

static bool on_fault(u64 address)
{
	u64 offset = address - (u64)(uintptr_t)lazy.ram;
	if (!__atomic_load_n(&lazy.snapshot, __ATOMIC_RELAXED) || offset >= lazy.size)
		return false;
	/* If it is there already, another thread was faster; no other fault comes from RAM. */
	int saved = errno;
	fetch(offset / lazy.snapshot->chunk_size);
	errno = saved;
	return true;
}

/* Chunks that have a byte of [p, p + size): first and end; false if there is nothing to do. */
static bool chunks_of(const void *p, u64 size, u64 *first, u64 *end)
{
	if (!lazy.snapshot || !size || !__atomic_load_n(&lazy.left, __ATOMIC_ACQUIRE))
		return false;
	u64 offset = (u64)((const u8 *)p - lazy.ram);
	if (offset >= lazy.size)
		return false;
	*first = offset / lazy.snapshot->chunk_size;
	*end = (MIN(offset + size, lazy.size) + lazy.snapshot->chunk_size - 1) / lazy.snapshot->chunk_size;
	return true;
}

void lazy_ready(const void *p, u64 size)
{
	u64 first, end;
	if (!chunks_of(p, size, &first, &end))
		return;
	for (; first < end; first++)
		if (__atomic_load_n(&lazy.state[first], __ATOMIC_ACQUIRE) != PRESENT)
			fetch(first);
}

void host_ram_ready(const void *hva, u64 size)
{
	lazy_ready(hva, size);
}

void lazy_discard(void *p, u64 size)
{
	u64 first, end;
	if (!chunks_of(p, size, &first, &end))
		return;
	for (; first < end; first++) {
		u8 *from = lazy.ram + first * lazy.snapshot->chunk_size;
		bool whole = from >= (u8 *)p && from + snapshot_chunk_bytes(lazy.snapshot, first) <= (u8 *)p + size;
		if (whole && take(first))
			show(first, first + 1);
		else
			fetch(first);
	}
}

void lazy_finish(void)
{
	lazy_ready(lazy.ram, lazy.size);
}

/* ---- life ---- */

int lazy_start(void *ram, const struct snapshot *snapshot, void (*failed)(const char *why))
{
	u64 size = snapshot->memory_size;
	int fd = memory_file(ram);
	u8 *state = calloc(snapshot->chunks, 1);
	u8 *window = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (!state || window == MAP_FAILED || mprotect(ram, size, PROT_NONE) < 0) {
		int error = -errno;
		if (window != MAP_FAILED)
			munmap(window, size);
		free(state);
		return error;
	}
	lazy.ram = ram;
	lazy.window = window;
	lazy.size = size;
	lazy.state = state;
	lazy.left = snapshot->chunks;
	lazy.failed = failed;
	__atomic_store_n(&lazy.snapshot, snapshot, __ATOMIC_RELEASE);
	trap_set_pager(on_fault);
	return 0;
}

void lazy_forget(void)
{
	if (!lazy.snapshot)
		return;
	trap_set_pager(NULL);
	munmap(lazy.window, lazy.size);
	free(lazy.state);
	lazy.snapshot = NULL;
}
