/* What is mapped in a space: a copy of the guest's page tables as far as it was needed, kept as a TLB is. What the guest invalidates is
 * compared with its tables before the space runs again, so that a flush costs a look at what is mapped, not a new fault for every page. */
#include "engine/bt/direct_shadow.h"

#include "arch/paging.h"

#define FIRST_FILL 8 /* pages, in a region where nothing was mapped yet; each further time twice as many */

/* Elsewhere the host may refuse to map. */
#define LOWEST BIT(20)
#define HIGHEST (HOST_SPACE_END - 2 * PAGE_SIZE)

/* Only RAM is ever mapped: no ROM, and no memory of a device, which may move. */
static bool is_mappable(const struct ram *ram, const u8 *hva)
{
	return (u64)(hva - ram->memory) < ram->memory_size;
}

int memory_create(struct vcpu *vcpu, struct direct_space *s)
{
	const struct ram *ram = vcpu->ram;
	u64 end = 0;
	for (unsigned i = 0; i < ram->slots; i++)
		if (is_mappable(ram, ram->slot[i].hva))
			end = MAX(end, ram->slot[i].base + ram->slot[i].size);
	s->writable = host_alloc((end >> PAGE_SHIFT) / 8 + 1);
	s->unwritables = vcpu->mmu->unwritables;
	s->break_after = BREAK_AFTER;
	return s->writable ? 0 : -1;
}

void shadow_unmap_all(struct direct_space *s)
{
	for (unsigned i = 0; i < SHADOW_HASH; i++)
		for (struct shadow_region *r = s->shadow[i]; r; r = r->next)
			__builtin_memset(r->page, 0, sizeof(r->page));
	host_space_unmap(s->host, 0, HOST_SPACE_END);
	s->breaks_count = 0;
	s->full = false;
}

void memory_destroy(struct direct_space *s)
{
	for (unsigned i = 0; i < SHADOW_HASH; i++) {
		for (struct shadow_region *r = s->shadow[i], *next; r; r = next) {
			next = r->next;
			host_free(r->place);
			host_free(r);
		}
		s->shadow[i] = NULL;
	}
	if (s->tlb)
		s->tlb->stale.watched = false;
	host_free(s->writable);
}

struct shadow_region *shadow_region_at(struct direct_space *s, u64 number, bool make)
{
	struct shadow_region **head = &s->shadow[number % SHADOW_HASH], *r = *head;
	while (r && r->number != number)
		r = r->next;
	if (r || !make)
		return r;
	r = host_alloc(sizeof(*r));
	if (!r)
		return NULL;
	r->next = *head;
	r->number = number;
	return *head = r;
}

u64 *shadow_at(struct direct_space *s, gla_t gla)
{
	struct shadow_region *r = gla < HOST_SPACE_END ? shadow_region_at(s, gla >> REGION_SHIFT, false) : NULL;
	return r ? &r->page[gla >> PAGE_SHIFT & (REGION_PAGES - 1)] : NULL;
}

/* ---- from the guest's tables to mappings ---- */

void shadow_flush(struct vcpu *vcpu, struct direct_space *s, struct run *run)
{
	u64 *count = direct_of(vcpu)->count;
	if (run->size && run->hva)
		s->full |= host_space_map(s->host, run->gla, run->hva, run->size, run->access) < 0;
	else if (run->size)
		s->full |= host_space_unmap(s->host, run->gla, run->size) < 0;
	count[run->hva ? DIRECT_MAPPED : DIRECT_UNMAPPED] += run->size >> PAGE_SHIFT;
	run->size = 0;
}

void shadow_add(struct vcpu *vcpu, struct direct_space *s, struct run *run, gla_t gla, u8 *hva, enum host_space_access access)
{
	bool extends = run->size && run->gla + run->size == gla && !run->hva == !hva &&
		       (!hva || (run->hva + run->size == hva && run->access == access));
	if (!extends)
		shadow_flush(vcpu, s, run);
	if (!run->size)
		*run = (struct run){ .gla = gla, .hva = hva, .access = access };
	run->size += PAGE_SIZE;
}

bool shadow_mappable(const struct vcpu *vcpu, gla_t gla, const u8 *hva)
{
	return gla >= LOWEST && gla <= HIGHEST && is_mappable(vcpu->ram, hva);
}

enum host_space_access shadow_access(u64 shadow)
{
	return shadow & SHADOW_EXEC ? SPACE_EXEC : shadow & SHADOW_WRITE ? SPACE_WRITE : SPACE_READ;
}

static u64 shadow_of(struct direct_space *s, const struct user_page *page)
{
	if (!page->hva)
		return 0;
	if (page->write)
		s->writable[page->gpa >> PAGE_SHIFT >> 3] |= (u8)(1u << (page->gpa >> PAGE_SHIFT & 7));
	s->huge |= page->page_shift == 30;
	return page->gpa | SHADOW_MAPPED | (page->write ? SHADOW_WRITE : 0);
}

/* Make pages [first, first + count) of a region as the guest's tables say: all, or only those that are mapped. */
static void sync_region(struct vcpu *vcpu, struct direct_space *s, struct shadow_region *r, unsigned first, unsigned count, bool all)
{
	struct user_page page[REGION_PAGES];
	struct run run = { 0 };
	gla_t base = r->number << REGION_SHIFT;
	mmu_user_pages(vcpu, base + ((u64)first << PAGE_SHIFT), count, page);
	for (unsigned i = 0; i < count; i++) {
		u64 *shadow = &r->page[first + i];
		gla_t gla = base + ((u64)(first + i) << PAGE_SHIFT);
		if (!*shadow && (!all || !page[i].hva))
			continue;
		if (page[i].hva && !shadow_mappable(vcpu, gla, page[i].hva))
			page[i].hva = NULL;
		u64 now = shadow_of(s, &page[i]), old = *shadow;
		r->large |= page[i].page_shift != PAGE_SHIFT;
		if (page[i].exec && !((now ^ *shadow) & PTE_ADDR))
			now |= *shadow & SHADOW_KNOWN;
		if (now & SHADOW_EXEC)
			now &= ~SHADOW_WRITE;
		if (now == *shadow)
			continue;
		*shadow = now;
		shadow_add(vcpu, s, &run, gla, page[i].hva, shadow_access(now));
		if (old & ~now & SHADOW_KNOWN)
			shadow_forget_place(vcpu, s, &run, gla + PAGE_SIZE);
	}
	shadow_flush(vcpu, s, &run);
}

bool memory_fill(struct vcpu *vcpu, struct direct_space *s, gla_t gla, bool write)
{
	struct shadow_region *r = gla < HOST_SPACE_END ? shadow_region_at(s, gla >> REGION_SHIFT, true) : NULL;
	unsigned index = (unsigned)(gla >> PAGE_SHIFT & (REGION_PAGES - 1));
	u64 wanted = SHADOW_MAPPED | (write ? SHADOW_WRITE : 0);
	if (!r)
		return false;
	if (s->full)
		shadow_unmap_all(s);
	/* What is mapped as it should be, and yet faulted, the host could not map. */
	if ((r->page[index] & wanted) == wanted) {
		struct user_page page;
		mmu_user_pages(vcpu, gla & PAGE_MASK, 1, &page);
		u64 now = page.hva && shadow_mappable(vcpu, gla & PAGE_MASK, page.hva) ? shadow_of(s, &page) : 0;
		if (!((now ^ r->page[index]) & ~(u64)SHADOW_KNOWN) || !now)
			return false;
	}
	unsigned count = (unsigned)MIN(FIRST_FILL << MIN(r->fills, 16), REGION_PAGES);
	r->fills++;
	sync_region(vcpu, s, r, index & ~(count - 1), count, true);
	if (s->full) {
		shadow_unmap_all(s);
		sync_region(vcpu, s, r, index & ~(FIRST_FILL - 1u), FIRST_FILL, true);
	}
	return (r->page[index] & wanted) == wanted;
}

/* ---- invalidations ---- */

static unsigned pages_of_code(const struct direct_space *s)
{
	unsigned count = 0;
	for (unsigned i = 0; i < SHADOW_HASH; i++)
		for (const struct shadow_region *r = s->shadow[i]; r; r = r->next)
			for (unsigned j = 0; r->place && j < REGION_PAGES; j++)
				count += !!(r->page[j] & SHADOW_KNOWN);
	return count;
}

static void revalidate_all(struct vcpu *vcpu, struct direct_space *s)
{
	unsigned before = pages_of_code(s);
	direct_of(vcpu)->count[DIRECT_REVALIDATED]++;
	for (unsigned i = 0; i < SHADOW_HASH; i++)
		for (struct shadow_region *r = s->shadow[i]; r; r = r->next)
			sync_region(vcpu, s, r, 0, REGION_PAGES, false);
	code_revalidate(vcpu, s, 0, HOST_SPACE_END);
	if (pages_of_code(s) < before / 2) /* it is another program */
		space_wasted(s);
}

static void revalidate_range(struct vcpu *vcpu, struct direct_space *s, gla_t start, gla_t end)
{
	for (gla_t at = start; at < end;) {
		gla_t stop = MIN(end, (at | (BIT(REGION_SHIFT) - 1)) + 1);
		struct shadow_region *r = shadow_region_at(s, at >> REGION_SHIFT, false);
		if (r && r->large)
			sync_region(vcpu, s, r, 0, REGION_PAGES, false);
		else if (r)
			sync_region(vcpu, s, r, (unsigned)(at >> PAGE_SHIFT & (REGION_PAGES - 1)), (unsigned)((stop - at) >> PAGE_SHIFT),
				    false);
		at = stop;
	}
	code_revalidate(vcpu, s, start, end);
}

/* Where the page is, and whether it may stay writable. A page that held code and was written since holds none, but lost PAGE_STORED: when code is
 * found there again, nobody will be told. */
static u8 *shadow_hva(struct vcpu *vcpu, u64 shadow, bool *writable)
{
	struct ram_slot *slot = ram_find(vcpu->ram, shadow & PTE_ADDR);
	u64 offset = (shadow & PTE_ADDR) - slot->base;
	u8 flags = __atomic_load_n(&slot->flags[offset >> PAGE_SHIFT], __ATOMIC_SEQ_CST);
	*writable = (flags & (PAGE_CODE | PAGE_STORED)) == PAGE_STORED && (!slot->log_dirty || (flags & PAGE_DIRTY));
	return slot->hva + offset;
}

/* One page, or all that lost their write tags (NULL), is no longer writable. */
static void protect_region(struct vcpu *vcpu, struct direct_space *s, struct shadow_region *r, const u8 *hva)
{
	struct run run = { 0 };
	for (unsigned i = 0; i < REGION_PAGES; i++) {
		bool writable;
		if (!(r->page[i] & SHADOW_WRITE))
			continue;
		u8 *own = shadow_hva(vcpu, r->page[i], &writable);
		if (hva ? own != hva : writable)
			continue;
		r->page[i] &= ~SHADOW_WRITE;
		shadow_add(vcpu, s, &run, r->number << REGION_SHIFT | (u64)i << PAGE_SHIFT, own, SPACE_READ);
	}
	shadow_flush(vcpu, s, &run);
}

static bool may_be_writable(struct vcpu *vcpu, const struct direct_space *s, const u8 *hva)
{
	const struct ram *ram = vcpu->ram;
	for (unsigned i = 0; i < ram->slots; i++) {
		const struct ram_slot *slot = &ram->slot[i];
		u64 offset = (u64)(hva - slot->hva), page = (slot->base + offset) >> PAGE_SHIFT;
		if (hva >= slot->hva && offset < slot->size)
			return s->writable[page >> 3] & (1u << (page & 7));
	}
	return true;
}

static void protect(struct vcpu *vcpu, struct direct_space *s, const u8 *hva)
{
	if (hva && (!is_mappable(vcpu->ram, hva) || !may_be_writable(vcpu, s, hva)))
		return;
	for (unsigned i = 0; i < SHADOW_HASH; i++)
		for (struct shadow_region *r = s->shadow[i]; r; r = r->next)
			protect_region(vcpu, s, r, hva);
}

static void heed_unwritable(struct vcpu *vcpu, struct direct_space *s)
{
	const struct mmu *mmu = vcpu->mmu;
	if (mmu->unwritables - s->unwritables > UNWRITABLE_LOG) {
		s->unwritables = mmu->unwritables;
		protect(vcpu, s, NULL);
	}
	for (; s->unwritables != mmu->unwritables; s->unwritables++)
		protect(vcpu, s, mmu->unwritable[s->unwritables % UNWRITABLE_LOG]);
}

void memory_bind(struct vcpu *vcpu, struct direct_space *s)
{
	struct tlb *tlb = vcpu->mmu->current;
	struct direct *d = direct_of(vcpu);
	if (s->tlb == tlb)
		return;
	for (unsigned i = 0; i < DIRECT_SPACES; i++)
		if (d->space[i] && d->space[i]->tlb == tlb)
			d->space[i]->tlb = NULL;
	if (s->tlb)
		s->tlb->stale.watched = false;
	s->tlb = tlb;
	tlb->stale.watched = tlb->stale.all = true;
}

static void heed_stale(struct vcpu *vcpu, struct direct_space *s)
{
	struct stale *stale = &s->tlb->stale;
	if (!stale->all && !stale->ranges)
		return;
	bool all = stale->all || s->huge;
	unsigned ranges = stale->ranges;
	stale->all = false;
	stale->ranges = 0;
	if (all)
		revalidate_all(vcpu, s);
	for (unsigned i = 0; !all && i < ranges; i++)
		revalidate_range(vcpu, s, stale->range[i].start, stale->range[i].end);
}

/* Where the host refused to take something away, nothing may stay: the space is going to run. */
void memory_update(struct vcpu *vcpu, struct direct_space *s)
{
	heed_unwritable(vcpu, s);
	heed_stale(vcpu, s);
	if (unlikely(s->full))
		shadow_unmap_all(s);
}
