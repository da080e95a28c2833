/* The host port's memory in small pieces: sizes up to half a page come from pages cut up for one size each, larger ones are whole pages in a
 * row. In front of what is given out stands how large it is. */
#include "host/metal/pages.h"
#include "host/metal/spinlock.h"
#include "host/port.h"
#include "lib/string.h"

#define HEADER 64 /* and the alignment */
#define SMALLEST_SHIFT 7
#define CLASSES 5 /* 128 to 2048 bytes */
#define MAGIC 0x70616568u

struct piece {
	u32 magic;
	u32 class; /* CLASSES: whole pages */
	u64 pages;
	struct piece *next; /* while it is free */
};

static struct {
	struct spinlock lock;
	struct piece *free[CLASSES];
} heap;

static unsigned class_of(size_t size)
{
	unsigned class = 0;
	while (class < CLASSES && size > (128u << class))
		class++;
	return class;
}

/* Cut a page up. The lock is held. */
static void refill(unsigned class)
{
	u64 page = pages_alloc(1, 1);
	for (u64 offset = 0; page != NO_PAGE && offset < PAGE_SIZE; offset += 128u << class) {
		struct piece *piece = physical(page + offset);
		*piece = (struct piece){ .class = class, .next = heap.free[class] };
		heap.free[class] = piece;
	}
}

static struct piece *take_small(unsigned class)
{
	u64 flags = spin_lock(&heap.lock);
	if (!heap.free[class])
		refill(class);
	struct piece *piece = heap.free[class];
	if (piece)
		heap.free[class] = piece->next;
	spin_unlock(&heap.lock, flags);
	return piece;
}

static struct piece *take_pages(size_t size)
{
	u64 count = (size + PAGE_SIZE - 1) >> PAGE_SHIFT, address = pages_alloc(count, 1);
	if (address == NO_PAGE)
		return NULL;
	struct piece *piece = physical(address);
	*piece = (struct piece){ .class = CLASSES, .pages = count };
	return piece;
}

void *host_alloc(size_t size)
{
	if (size > SIZE_MAX / 2)
		return NULL;
	unsigned class = class_of(size + HEADER);
	struct piece *piece = class < CLASSES ? take_small(class) : take_pages(size + HEADER);
	if (!piece)
		return NULL;
	piece->magic = MAGIC;
	return memset((u8 *)piece + HEADER, 0, size);
}

void host_free(void *p)
{
	if (!p)
		return;
	struct piece *piece = (struct piece *)((u8 *)p - HEADER);
	if (piece->magic != MAGIC)
		host_panic("%p is freed, which is nobody's", p);
	piece->magic = 0;
	if (piece->class == CLASSES) {
		pages_free(physical_of(piece), piece->pages);
		return;
	}
	u64 flags = spin_lock(&heap.lock);
	piece->next = heap.free[piece->class];
	heap.free[piece->class] = piece;
	spin_unlock(&heap.lock, flags);
}
