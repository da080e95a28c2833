/* Physical memory: which pages are free. One bit a page. */
#ifndef NADIR_HOST_METAL_PAGES_H
#define NADIR_HOST_METAL_PAGES_H

#include "host/metal/boot_info.h"

#define NO_PAGE (~0ull)
#define LARGE_SHIFT 21
#define LARGE_SIZE BIT(LARGE_SHIFT)

/* Take over all RAM but the first MiB, this program and the modules; only what is below 4 GiB can be had until pages_use_all. */
const char *pages_init(const struct boot_info *info);
void pages_use_all(void);

/* The physical address of `count` free pages in a row, aligned to `align` pages (a power of two), as low as possible, now taken; or NO_PAGE.
 * What is in them is left over from whoever had them. */
u64 pages_alloc(u64 count, u64 align);
/* The same for pages of guests: as high as possible. */
u64 pages_alloc_high(u64 count, u64 align);
void pages_free(u64 address, u64 count);

/* How many there are, and how many are free. */
u64 pages_total(void);
u64 pages_available(void);

/* Where host memory can be reached: at its physical address at first, then above PHYSICAL_BASE. Guests' memory is not there. */
#define PHYSICAL_BASE 0xffff800000000000ull
#define PHYSICAL_END 0xffffc00000000000ull
extern u64 physical_base;
static inline void *physical(u64 address)
{
	return (void *)(uintptr_t)(physical_base + address);
}
static inline u64 physical_of(const void *p)
{
	return (u64)(uintptr_t)p - physical_base;
}

#endif
