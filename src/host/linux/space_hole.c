/* Where the hole of the spaces is: chosen at random, once, where neither this program nor what guests like to run has anything. In the VMM
 * it is reserved, and holds the executable mappings of code areas, so that their addresses are the same inside and outside of spaces. */
#define _GNU_SOURCE
#include "host/linux/space.h"
#include "host/linux/space_layout.h"

#include <pthread.h>
#include <sys/mman.h>

/* In units of the hole's size: above what is linked at fixed addresses, below position-independent programs at 0x55..., with their heaps,
 * and the libraries and stacks at 0x7f... */
#define FIRST 0x8000
#define LAST 0x13fff
#ifdef __SANITIZE_THREAD__
#define TRIES 0 /* it keeps for itself what lies between those places */
#else
#define TRIES 16
#endif
#define AREAS 512

static u8 *hole;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Taken areas, by address. */
static struct area {
	u8 *start;
	size_t size;
} area[AREAS];
static unsigned areas;

static void *reserve(void *where, size_t size, int more)
{
	return mmap(where, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | more, -1, 0);
}

u64 space_hole_choose(void)
{
	for (int i = 0; i < TRIES; i++) {
		u32 random;
		host_random(&random, sizeof(random));
		void *where = (void *)((FIRST + random % (LAST + 1 - FIRST)) * HOST_SPACE_HOLE);
		void *p = reserve(where, HOST_SPACE_HOLE, MAP_FIXED_NOREPLACE);
		if (p == where) {
			hole = p;
			return (u64)(uintptr_t)p;
		}
		if (p != MAP_FAILED) /* a kernel that does not know MAP_FIXED_NOREPLACE */
			munmap(p, HOST_SPACE_HOLE);
	}
	return 0;
}

/* The first gap that is large enough, and its index among the areas. */
static u8 *find_gap(size_t size, unsigned *index)
{
	u8 *start = hole + SPACE_CODE;
	for (*index = 0; *index < areas; ++*index) {
		const struct area *next = &area[*index];
		if ((size_t)(next->start - start) >= size)
			return start;
		start = next->start + next->size;
	}
	return (size_t)(hole + HOST_SPACE_HOLE - start) >= size ? start : NULL;
}

void *space_hole_take(size_t size)
{
	unsigned index;
	u8 *start = NULL;
	size = (size + PAGE_SIZE - 1) & PAGE_MASK;
	pthread_mutex_lock(&lock);
	if (hole && areas < AREAS)
		start = find_gap(size, &index);
	if (start) {
		for (unsigned i = areas++; i > index; i--)
			area[i] = area[i - 1];
		area[index] = (struct area){ start, size };
	}
	pthread_mutex_unlock(&lock);
	return start;
}

bool space_hole_give(void *p, size_t size)
{
	unsigned i = 0;
	pthread_mutex_lock(&lock);
	while (i < areas && area[i].start != p)
		i++;
	bool found = i < areas;
	if (found) {
		reserve(area[i].start, area[i].size, MAP_FIXED);
		areas--;
		for (; i < areas; i++)
			area[i] = area[i + 1];
	}
	pthread_mutex_unlock(&lock);
	return found;
}
