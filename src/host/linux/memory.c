/* The host port's memory: guest RAM as a lazily filled memfd, code memory mapped twice. */
#define _GNU_SOURCE
#include "host/linux/memory.h"

#include "host/linux/log.h"
#include "host/linux/memory_lazy.h"
#include "host/linux/space.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CACHE_LINE 64

/* calloc leaves large pieces untouched until they are used. In front of what is given out lies what free wants. */
void *host_alloc(size_t size)
{
	if (size > SIZE_MAX - CACHE_LINE)
		return NULL;
	uintptr_t raw = (uintptr_t)calloc(1, size + CACHE_LINE);
	if (!raw)
		return NULL;
	uintptr_t p = (raw + CACHE_LINE) & ~(uintptr_t)(CACHE_LINE - 1);
	((uintptr_t *)p)[-1] = raw;
	return (void *)p;
}

void host_free(void *p)
{
	if (p)
		free((void *)((uintptr_t *)p)[-1]);
}

/* ---- files, by the address of their mapping ---- */

static struct object {
	const void *p;
	int fd;
} object[512];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct object *find_object(const void *p)
{
	for (unsigned i = 0; i < ARRAY_SIZE(object); i++)
		if (object[i].p == p)
			return &object[i];
	return NULL;
}

int memory_file(const void *p)
{
	pthread_mutex_lock(&lock);
	const struct object *o = p ? find_object(p) : NULL;
	int fd = o ? o->fd : -1;
	pthread_mutex_unlock(&lock);
	return fd;
}

/* Keep the file if there is room, which there is in any ordinary program. */
static void remember_file(const void *p, int fd)
{
	pthread_mutex_lock(&lock);
	struct object *o = find_object(NULL);
	if (o)
		*o = (struct object){ p, fd };
	pthread_mutex_unlock(&lock);
	if (!o)
		close(fd);
}

static void forget_file(const void *p)
{
	pthread_mutex_lock(&lock);
	struct object *o = p ? find_object(p) : NULL;
	if (o) {
		close(o->fd);
		o->p = NULL;
	}
	pthread_mutex_unlock(&lock);
}

static int make_file(const char *name, u64 size)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	if (fd < 0)
		return -1;
	if (ftruncate(fd, (off_t)size) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* ---- tables ---- */

/* Never in huge pages, which would make a table as large as it looks. */
void *host_table_create(u64 size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	(void)madvise(p, size, MADV_NOHUGEPAGE);
	return p;
}

void host_table_destroy(void *table, u64 size)
{
	munmap(table, size);
}

void host_table_discard(void *table, u64 size)
{
	if (madvise(table, size, MADV_DONTNEED) < 0)
		memset(table, 0, size);
}

#define PATTERN_SIZE 65536

/* A file of a few pages that hold the value, mapped privately over and over: what was not written is in these pages. */
static bool map_pattern(u8 *table, u64 size, u64 value)
{
	u64 pattern[PATTERN_SIZE / sizeof(u64)];
	int fd = make_file("nadir-pattern", PATTERN_SIZE);
	for (unsigned i = 0; i < ARRAY_SIZE(pattern); i++)
		pattern[i] = value;
	bool good = fd >= 0 && write(fd, pattern, sizeof(pattern)) == sizeof(pattern);
	for (u64 at = 0; good && at < size; at += PATTERN_SIZE)
		good = mmap(table + at, PATTERN_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd, 0) != MAP_FAILED;
	if (fd >= 0)
		close(fd);
	return good;
}

u64 *host_table_create_of(u64 size, u64 value)
{
	u8 *p = host_table_create(size);
	if (!p || map_pattern(p, size, value))
		return (u64 *)(void *)p;
	host_table_destroy(p, size);
	return NULL;
}

void host_table_discard_of(u64 *table, u64 size, u64 value)
{
	if (!madvise(table, size, MADV_DONTNEED))
		return;
	for (u64 i = 0; i < size / sizeof(*table); i++)
		table[i] = value;
}

/* ---- guest RAM ---- */

void *host_ram_create(u64 size)
{
	int fd = make_file("nadir-ram", size);
	if (fd < 0)
		return NULL;
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (p == MAP_FAILED) {
		close(fd);
		return NULL;
	}
	remember_file(p, fd);
	return p;
}

void host_ram_destroy(void *hva, u64 size)
{
	forget_file(hva);
	munmap(hva, size);
}

void host_ram_discard(void *hva, u64 size)
{
	lazy_discard(hva, size);
	/* On a shared mapping only MADV_REMOVE frees the object's pages. */
	if (madvise(hva, size, MADV_REMOVE) < 0)
		memset(hva, 0, size);
}

u8 *host_map_pair(u8 *first, u8 *second)
{
	lazy_ready(first, PAGE_SIZE);
	lazy_ready(second, PAGE_SIZE);
	u8 *pair = mmap(NULL, 2 * PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pair == MAP_FAILED)
		return NULL;
	/* An old size of 0 makes a second mapping of a shared page. */
	if (mremap(first, 0, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, pair) != MAP_FAILED &&
	    mremap(second, 0, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, pair + PAGE_SIZE) != MAP_FAILED)
		return pair;
	munmap(pair, 2 * PAGE_SIZE);
	return NULL;
}

void host_unmap_pair(u8 *pair)
{
	munmap(pair, 2 * PAGE_SIZE);
}

/* ---- code ---- */

/* In the hole if there is one, so that code has the same address in every space. */
static void *map_code(int fd, size_t size)
{
	void *where = space_hole_take(size);
	void *rx = mmap(where, size, PROT_READ | PROT_EXEC, MAP_SHARED | (where ? MAP_FIXED : 0), fd, 0);
	if (rx == MAP_FAILED && where)
		space_hole_give(where, size);
	return rx;
}

/* Code that perf is to name (--perf-map) lies in no file: perf takes names for anonymous memory alone. So no space can map it. */
static int create_named(struct host_code *code, size_t size)
{
	void *rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	void *rx = rw == MAP_FAILED ? MAP_FAILED : mremap(rw, 0, size, MREMAP_MAYMOVE); /* a second mapping */
	if (rx == MAP_FAILED || mprotect(rx, size, PROT_READ | PROT_EXEC) < 0) {
		if (rw != MAP_FAILED)
			munmap(rw, size);
		if (rx != MAP_FAILED)
			munmap(rx, size);
		return -1;
	}
	*code = (struct host_code){ .rw = rw, .rx = rx, .size = size };
	return 0;
}

int host_code_create(struct host_code *code, size_t size)
{
	if (log_has_code_map())
		return create_named(code, size);
	int fd = make_file("nadir-code", size);
	if (fd < 0)
		return -1;
	void *rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	void *rx = rw == MAP_FAILED ? MAP_FAILED : map_code(fd, size);
	if (rx == MAP_FAILED) {
		close(fd);
		if (rw != MAP_FAILED)
			munmap(rw, size);
		return -1;
	}
	remember_file(rx, fd);
	*code = (struct host_code){ .rw = rw, .rx = rx, .size = size };
	return 0;
}

void host_code_discard(const struct host_code *code, size_t offset, size_t size)
{
	(void)madvise(code->rw + offset, size, MADV_REMOVE);
}

void host_code_destroy(struct host_code *code)
{
	forget_file(code->rx);
	munmap(code->rw, code->size);
	if (!space_hole_give(code->rx, code->size))
		munmap(code->rx, code->size);
}
