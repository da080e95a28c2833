/* The host port's memory: guest RAM as a lazily filled memfd, code memory mapped twice. */
#define _GNU_SOURCE
#include "host/port.h"

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

/* A mapping of `size` bytes of a new memory object; the object lives as long as its mappings. */
static int memory_object(const char *name, u64 size)
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

void *host_ram_create(u64 size)
{
	int fd = memory_object("nadir-ram", size);
	if (fd < 0)
		return NULL;
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	close(fd);
	return p == MAP_FAILED ? NULL : p;
}

void host_ram_destroy(void *hva, u64 size)
{
	munmap(hva, size);
}

void host_ram_discard(void *hva, u64 size)
{
	/* On a shared mapping only MADV_REMOVE frees the object's pages. */
	if (madvise(hva, size, MADV_REMOVE) < 0)
		memset(hva, 0, size);
}

u8 *host_map_pair(u8 *first, u8 *second)
{
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

int host_code_create(struct host_code *code, size_t size)
{
	int fd = memory_object("nadir-code", size);
	if (fd < 0)
		return -1;
	void *rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	void *rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	close(fd);
	if (rw == MAP_FAILED || rx == MAP_FAILED) {
		if (rw != MAP_FAILED)
			munmap(rw, size);
		if (rx != MAP_FAILED)
			munmap(rx, size);
		return -1;
	}
	*code = (struct host_code){ .rw = rw, .rx = rx, .size = size };
	return 0;
}

void host_code_destroy(struct host_code *code)
{
	munmap(code->rw, code->size);
	munmap(code->rx, code->size);
}
