/* What is mapped in a space: a copy of the guest's page tables as far as it was needed, kept as a TLB is. What the guest invalidates is compared
 * with its tables before the space runs again, so that a flush costs a look at what is mapped, not a new fault for every page. */
#include "engine/bt/direct.h"

#include "arch/paging.h"

#define REGION_SHIFT 21
#define REGION_PAGES USER_PAGES_MAX
#define FIRST_FILL 8 /* pages, in a region where nothing was mapped yet; each further time twice as many */

/* Elsewhere the host may refuse to map. */
#define LOWEST BIT(20)
#define HIGHEST (HOST_SPACE_END - 2 * PAGE_SIZE)

#define SHADOW_MAPPED BIT(0)
#define SHADOW_WRITE BIT(1)

struct shadow_region {
	struct shadow_region *next; /* in its hash chain */
	u64 number; /* linear address >> REGION_SHIFT */
	u32 fills;
	bool large; /* it had pages larger than 4 KBytes */
	u64 page[REGION_PAGES]; /* guest physical address, SHADOW_* */
};

int memory_create(struct vcpu *vcpu, struct direct_space *s)
{
	const struct ram *ram = vcpu->ram;
	u64 end = 0;
	for (unsigned i = 0; i < ram->slots; i++)
		end = MAX(end, ram->slot[i].base + ram->slot[i].size);
	s->writable = host_alloc((end >> PAGE_SHIFT) / 8 + 1);
	s->unwritables = vcpu->mmu->unwritables;
	return s->writable ? 0 : -1;
}

/* The host has no room for more mappings: begin anew. */
static void unmap_all(struct direct_space *s)
{
	for (unsigned i = 0; i < SHADOW_HASH; i++)
		for (struct shadow_region *r = s->shadow[i]; r; r = r->next)
			__builtin_memset(r->page, 0, sizeof(r->page));
	host_space_unmap(s->host, 0, HOST_SPACE_END);
	s->full = false;
}

void memory_destroy(struct direct_space *s)
{
	for (unsigned i = 0; i < SHADOW_HASH; i++) {
		for (struct shadow_region *r = s->shadow[i], *next; r; r = next) {
			next = r->next;
			host_free(r);
		}
		s->shadow[i] = NULL;
	}
	if (s->tlb)
		s->tlb->stale.watched = false;
	host_free(s->writable);
}

static struct shadow_region *find_region(struct direct_space *s, u64 number, bool make)
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

/* ---- from the guest's tables to mappings ---- */

/* Pages in a row that are to be mapped alike, or unmapped (hva NULL), not told to the host yet. */
struct run {
	gla_t gla;
	u8 *hva;
	u64 size;
	bool write;
};

static void flush_run(struct vcpu *vcpu, struct direct_space *s, struct run *run)
{
	u64 *count = direct_of(vcpu)->count;
	if (run->size && run->hva)
		s->full |= host_space_map(s->host, run->gla, run->hva, run->size, run->write) < 0;
	else if (run->size)
		s->full |= host_space_unmap(s->host, run->gla, run->size) < 0;
	count[run->hva ? DIRECT_MAPPED : DIRECT_UNMAPPED] += run->size >> PAGE_SHIFT;
	run->size = 0;
}

static void add_to_run(struct vcpu *vcpu, struct direct_space *s, struct run *run, gla_t gla, const struct user_page *page)
{
	bool extends = run->size && run->gla + run->size == gla && !run->hva == !page->hva &&
		       (!page->hva || (run->hva + run->size == page->hva && run->write == page->write));
	if (!extends)
		flush_run(vcpu, s, run);
	if (!run->size)
		*run = (struct run){ .gla = gla, .hva = page->hva, .write = page->write };
	run->size += PAGE_SIZE;
}

static bool can_be_mapped(const struct vcpu *vcpu, gla_t gla, const u8 *hva)
{
	return gla >= LOWEST && gla <= HIGHEST && (u64)(hva - vcpu->ram->memory) < vcpu->ram->memory_size;
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
		if (page[i].hva && !can_be_mapped(vcpu, gla, page[i].hva))
			page[i].hva = NULL;
		u64 now = shadow_of(s, &page[i]);
		r->large |= page[i].page_shift != PAGE_SHIFT;
		if (now == *shadow)
			continue;
		*shadow = now;
		add_to_run(vcpu, s, &run, gla, &page[i]);
	}
	flush_run(vcpu, s, &run);
}

bool memory_fill(struct vcpu *vcpu, struct direct_space *s, gla_t gla, bool write)
{
	struct shadow_region *r = gla < HOST_SPACE_END ? find_region(s, gla >> REGION_SHIFT, true) : NULL;
	unsigned index = (unsigned)(gla >> PAGE_SHIFT & (REGION_PAGES - 1));
	u64 wanted = SHADOW_MAPPED | (write ? SHADOW_WRITE : 0);
	if (!r)
		return false;
	if (s->full)
		unmap_all(s);
	/* What is mapped as it should be, and yet faulted, the host could not map. */
	if ((r->page[index] & wanted) == wanted) {
		struct user_page page;
		mmu_user_pages(vcpu, gla & PAGE_MASK, 1, &page);
		u64 now = page.hva && can_be_mapped(vcpu, gla & PAGE_MASK, page.hva) ? shadow_of(s, &page) : 0;
		if (now == r->page[index] || !now)
			return false;
	}
	unsigned count = (unsigned)MIN(FIRST_FILL << MIN(r->fills, 16), REGION_PAGES);
	r->fills++;
	sync_region(vcpu, s, r, index & ~(count - 1), count, true);
	if (s->full) {
		unmap_all(s);
		sync_region(vcpu, s, r, index & ~(FIRST_FILL - 1u), FIRST_FILL, true);
	}
	return (r->page[index] & wanted) == wanted;
}

/* ---- invalidations ---- */

static void revalidate_all(struct vcpu *vcpu, struct direct_space *s)
{
	direct_of(vcpu)->count[DIRECT_REVALIDATED]++;
	for (unsigned i = 0; i < SHADOW_HASH; i++)
		for (struct shadow_region *r = s->shadow[i]; r; r = r->next)
			sync_region(vcpu, s, r, 0, REGION_PAGES, false);
	code_revalidate(vcpu, s, 0, HOST_SPACE_END);
}

static void revalidate_range(struct vcpu *vcpu, struct direct_space *s, gla_t start, gla_t end)
{
	for (gla_t at = start; at < end;) {
		gla_t stop = MIN(end, (at | (BIT(REGION_SHIFT) - 1)) + 1);
		struct shadow_region *r = find_region(s, at >> REGION_SHIFT, false);
		if (r && r->large)
			sync_region(vcpu, s, r, 0, REGION_PAGES, false);
		else if (r)
			sync_region(vcpu, s, r, (unsigned)(at >> PAGE_SHIFT & (REGION_PAGES - 1)), (unsigned)((stop - at) >> PAGE_SHIFT),
				    false);
		at = stop;
	}
	code_revalidate(vcpu, s, start, end);
}

static u8 *shadow_hva(struct vcpu *vcpu, u64 shadow, u8 **flags)
{
	struct ram_slot *slot = ram_find(vcpu->ram, shadow & PTE_ADDR);
	u64 offset = (shadow & PTE_ADDR) - slot->base;
	*flags = &slot->flags[offset >> PAGE_SHIFT];
	return slot->hva + offset;
}

/* A page that held code and was written since holds none, but lost PAGE_STORED: when code is found there again, nobody will be told. */
static bool is_writable(const u8 *flags)
{
	return (__atomic_load_n(flags, __ATOMIC_SEQ_CST) & (PAGE_CODE | PAGE_STORED)) == PAGE_STORED;
}

/* One page, or all that lost their write tags (NULL), is no longer writable. */
static void protect_region(struct vcpu *vcpu, struct direct_space *s, struct shadow_region *r, const u8 *hva)
{
	for (unsigned i = 0; i < REGION_PAGES; i++) {
		u8 *flags;
		if (!(r->page[i] & SHADOW_WRITE))
			continue;
		u8 *own = shadow_hva(vcpu, r->page[i], &flags);
		if (hva ? own != hva : is_writable(flags))
			continue;
		r->page[i] &= ~SHADOW_WRITE;
		struct run run = { .gla = r->number << REGION_SHIFT | (u64)i << PAGE_SHIFT, .size = PAGE_SIZE, .hva = own };
		flush_run(vcpu, s, &run);
	}
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
	if (hva && !may_be_writable(vcpu, s, hva))
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
		unmap_all(s);
}
