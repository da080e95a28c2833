/* By which entries of the trees the guest could write to a page of the host's memory. An entry that changes is not taken off the list: what is on it is looked at
 * again before it is believed. */
#include "engine/hw/shadow.h"

#define WRITER_LARGE BIT(63)

static u64 page_of(u64 entry)
{
	entry &= ~PTE_NX;
	return (entry & PTE_PS) ? (entry & PTE_ADDR) >> hw_shift(1) | WRITER_LARGE : (entry & PTE_ADDR) >> PAGE_SHIFT;
}

static bool writes(const struct writer *w)
{
	u64 entry = hw_load(w->where);
	return (entry & PTE_P) && (entry & PTE_W) && page_of(entry) == w->page;
}

static u32 *bucket_of(struct shadow *s, u64 page)
{
	return &s->writer_bucket[page * 0x9e3779b97f4a7c15 >> 51];
}

static_assert(WRITER_BUCKETS == 1u << 13, "bucket_of takes 13 bits");

bool shadow_add_writer(struct shadow *s, u64 *where)
{
	u64 page = page_of(hw_load(where));
	u32 *bucket = bucket_of(s, page), number = *bucket;
	for (; number; number = s->writer[number - 1].next) {
		struct writer *w = &s->writer[number - 1];
		if (w->page == page && w->where == where)
			return true;
		if (writes(w))
			continue;
		w->page = page;
		w->where = where;
		return true;
	}
	if (s->writers == WRITERS_MAX)
		return false;
	s->writer[s->writers] = (struct writer){ .page = page, .where = where, .next = *bucket };
	*bucket = ++s->writers;
	return true;
}

static void take(struct shadow *s, u64 page)
{
	for (u32 number = *bucket_of(s, page); number; number = s->writer[number - 1].next) {
		struct writer *w = &s->writer[number - 1];
		if (w->page == page && writes(w))
			hw_store(w->where, hw_load(w->where) & ~PTE_W);
	}
}

void shadow_take_writers(struct shadow *s, u64 physical)
{
	take(s, physical >> PAGE_SHIFT);
	take(s, physical >> hw_shift(1) | WRITER_LARGE);
}
