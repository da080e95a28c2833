/* The host port for unit tests: ordinary memory, a clock that stands still until the test moves it, no threads. */
#define _GNU_SOURCE
#include "fake_host.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct host_timer {
	void (*fire)(void *);
	void *opaque;
	u64 deadline;
	struct host_timer *next;
};

static u64 fake_now;
static struct host_timer *timers;
static char last_log[512];

void *host_alloc(size_t size)
{
	size_t rounded = (size + 63) & ~(size_t)63;
	void *p = aligned_alloc(64, rounded ? rounded : 64);
	if (p)
		memset(p, 0, rounded);
	return p;
}

void host_free(void *p)
{
	free(p);
}

void *host_table_create(u64 size)
{
	return host_ram_create(size);
}

void host_table_destroy(void *table, u64 size)
{
	munmap(table, size);
}

void host_table_discard(void *table, u64 size)
{
	madvise(table, size, MADV_DONTNEED);
}

void host_table_discard_of(u64 *table, u64 size, u64 value)
{
	for (u64 i = 0; i < size / sizeof(*table); i++)
		table[i] = value;
}

u64 *host_table_create_of(u64 size, u64 value)
{
	u64 *table = host_ram_create(size);
	if (table)
		host_table_discard_of(table, size, value);
	return table;
}

void host_code_discard(const struct host_code *code, size_t offset, size_t size)
{
	madvise(code->rw + offset, size, MADV_REMOVE);
}

/* Aligned to 2 MiB. */
void *host_ram_create(u64 size)
{
	u64 large = 2 << 20, rounded = (size + PAGE_SIZE - 1) & PAGE_MASK;
	u8 *p = mmap(NULL, rounded + large, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	u64 before = -(u64)(uintptr_t)p & (large - 1);
	if (before)
		munmap(p, before);
	munmap(p + before + rounded, large - before);
	return p + before;
}

void host_ram_destroy(void *hva, u64 size)
{
	munmap(hva, size);
}

void host_ram_discard(void *hva, u64 size)
{
	madvise(hva, size, MADV_DONTNEED);
}

void host_ram_ready(const void *hva, u64 size)
{
}

u8 *host_map_pair(u8 *first, u8 *second)
{
	return NULL;
}

void host_unmap_pair(u8 *pair)
{
}

/* Spaces cannot be had here. */
u64 host_space_hole(const char **why)
{
	*why = "this host has none";
	return 0;
}

u64 host_space_leave(void)
{
	return 0;
}

u64 host_space_enter_place(void)
{
	return 0;
}

struct host_space *host_space_create(const struct host_code *code, void *ram, u64 ram_size, size_t tables_size)
{
	return NULL;
}

void host_space_destroy(struct host_space *space)
{
}

int host_space_map(struct host_space *space, u64 gla, void *hva, u64 size, enum host_space_access access)
{
	return -1;
}

int host_space_unmap(struct host_space *space, u64 gla, u64 size)
{
	return -1;
}

bool host_space_runs_in_place(void)
{
	return false;
}

bool host_space_break(struct host_space *space, const u64 *address, unsigned count)
{
	(void)space, (void)address, (void)count;
	return false;
}

void host_space_stop(u32 *stop)
{
	__atomic_store_n(stop, 1, __ATOMIC_SEQ_CST);
}

enum host_space_exit host_space_run(struct host_space *space, struct host_trap *trap, bool in_place)
{
	return SPACE_BROKEN;
}

int host_code_create(struct host_code *code, size_t size)
{
	int fd = memfd_create("code", 0);
	if (fd < 0)
		return -1;
	int ok = ftruncate(fd, (off_t)size) == 0;
	void *rw = ok ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
	void *rx = ok ? mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0) : MAP_FAILED;
	close(fd);
	if (rw == MAP_FAILED || rx == MAP_FAILED)
		return -1;
	*code = (struct host_code){ .rw = rw, .rx = rx, .size = size };
	return 0;
}

void host_code_destroy(struct host_code *code)
{
	munmap(code->rw, code->size);
	munmap(code->rx, code->size);
}

void host_lock_init(struct host_lock *lock)
{
	lock->opaque[0] = 0;
}

void host_lock(struct host_lock *lock)
{
	if (lock->opaque[0]++)
		host_panic("fake host: lock taken twice");
}

void host_unlock(struct host_lock *lock)
{
	if (--lock->opaque[0])
		host_panic("fake host: lock released twice");
}

u64 host_now(void)
{
	return fake_now;
}

u64 host_wallclock(void)
{
	return 1700000000ull * 1000000000ull + fake_now;
}

u64 host_tsc_hz(void)
{
	return 2000000000ull;
}

struct host_timer *host_timer_create(void (*fire)(void *opaque), void *opaque)
{
	struct host_timer *t = host_alloc(sizeof(*t));
	if (!t)
		return NULL;
	*t = (struct host_timer){ .fire = fire, .opaque = opaque, .deadline = HOST_NEVER, .next = timers };
	timers = t;
	return t;
}

void host_timer_arm(struct host_timer *timer, u64 deadline)
{
	timer->deadline = deadline;
}

void host_timer_destroy(struct host_timer *timer)
{
	for (struct host_timer **t = &timers; *t; t = &(*t)->next) {
		if (*t != timer)
			continue;
		*t = timer->next;
		host_free(timer);
		return;
	}
}

void fake_host_set_now(u64 now)
{
	for (;;) {
		struct host_timer *first = NULL;
		for (struct host_timer *t = timers; t; t = t->next)
			if (t->deadline <= now && (!first || t->deadline < first->deadline))
				first = t;
		if (!first)
			break;
		if (first->deadline > fake_now)
			fake_now = first->deadline;
		first->deadline = HOST_NEVER;
		first->fire(first->opaque);
	}
	fake_now = now;
}

void fake_host_advance(u64 nanoseconds)
{
	fake_host_set_now(fake_now + nanoseconds);
}

static void (*idle)(void *opaque);
static void *idle_opaque;
static u64 idle_until;

void fake_host_set_idle(void (*hook)(void *opaque), void *opaque)
{
	idle = hook;
	idle_opaque = opaque;
}

u64 fake_host_idle_until(void)
{
	return idle_until;
}

void host_wait(u32 *word, u32 expected, u64 deadline)
{
	if (*word != expected)
		return;
	idle_until = deadline;
	if (idle)
		idle(idle_opaque);
	else if (deadline == HOST_NEVER)
		host_panic("fake host: nobody will wake this thread");
	if (*word == expected && deadline != HOST_NEVER && deadline > fake_now)
		fake_host_set_now(deadline);
}

void host_wake(u32 *word)
{
}

void host_yield(void)
{
	sched_yield();
}

static u64 fake_run_delay;

void fake_host_set_run_delay(u64 nanoseconds)
{
	fake_run_delay = nanoseconds;
}

static unsigned fake_cpus;

void fake_host_set_cpus(unsigned cpus)
{
	fake_cpus = cpus;
}

bool host_may_look_out(unsigned busy)
{
	return fake_cpus > busy;
}

u64 host_run_delay(void)
{
	return fake_run_delay;
}

void host_set_gs_base(void *base)
{
	__asm__ volatile("wrgsbase %0" ::"r"(base));
}

void *host_gs_base(void)
{
	void *base;
	__asm__ volatile("rdgsbase %0" : "=r"(base));
	return base;
}

void host_log(enum host_log_level level, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	vsnprintf(last_log, sizeof(last_log), fmt, args);
	va_end(args);
	if (getenv("NADIR_TEST_LOG"))
		fprintf(stderr, "%s\n", last_log);
}

void host_note_code(const void *code, size_t size, u64 guest)
{
}

const char *fake_host_last_log(void)
{
	return last_log;
}

void host_panic(const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	abort();
}

int host_snprintf(char *buf, size_t size, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(buf, size, fmt, args);
	va_end(args);
	return n;
}

void host_random(void *buf, size_t size)
{
	static u64 state = 88172645463325252ull;
	u8 *p = buf;
	for (size_t i = 0; i < size; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		p[i] = (u8)state;
	}
}
