/* What is mapped in a space: a copy of the guest's page tables as far as it was needed, kept as a TLB is. What the guest invalidates is compared
 * with its tables before the space runs again, so that a flush costs a look at what is mapped, not a new fault for every page. */
#include "engine/bt/direct.h"

#include "arch/paging.h"
#include "engine/bt/sensitive.h"

#define REGION_SHIFT 21
#define REGION_PAGES USER_PAGES_MAX
#define FIRST_FILL 8 /* pages, in a region where nothing was mapped yet; each further time twice as many */

/* Elsewhere the host may refuse to map. */
#define LOWEST BIT(20)
#define HIGHEST (HOST_SPACE_END - 2 * PAGE_SIZE)

#define SHADOW_MAPPED BIT(0)
#define SHADOW_WRITE BIT(1)
#define SHADOW_EXEC BIT(2) /* code in place: it may be run as it is as long as it is not written */
#define SHADOW_SENSITIVE BIT(3) /* it was looked at, and may not */
#define SHADOW_KNOWN (SHADOW_EXEC | SHADOW_SENSITIVE)
#define EXEC_FILL 16 /* pages, naturally aligned */
#define CHURN_MAX 16
#define BREAK_AFTER 8 /* crossings to a page with sensitive instructions; more once there were no break points left */
#define BREAK_AFTER_MAX 4096

struct looked {
	u32 seen; /* generation of what was looked at */
	u16 crossed; /* how often code in place went there although it may not be run so */
	u8 churn; /* how often it was written since */
};

struct shadow_region {
	struct shadow_region *next; /* in its hash chain */
	u64 number; /* linear address >> REGION_SHIFT */
	u32 fills;
	bool large; /* it had pages larger than 4 KBytes */
	u64 page[REGION_PAGES]; /* guest physical address, SHADOW_* */
	struct looked *place; /* of each page, if there is code in place */
};

int memory_create(struct vcpu *vcpu, struct direct_space *s)
{
	const struct ram *ram = vcpu->ram;
	u64 end = 0;
	for (unsigned i = 0; i < ram->slots; i++)
		end = MAX(end, ram->slot[i].base + ram->slot[i].size);
	s->writable = host_alloc((end >> PAGE_SHIFT) / 8 + 1);
	s->unwritables = vcpu->mmu->unwritables;
	s->break_after = BREAK_AFTER;
	return s->writable ? 0 : -1;
}

/* The host has no room for more mappings: begin anew. */
static void unmap_all(struct direct_space *s)
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

static u64 *shadow_at(struct direct_space *s, gla_t gla)
{
	struct shadow_region *r = gla < HOST_SPACE_END ? find_region(s, gla >> REGION_SHIFT, false) : NULL;
	return r ? &r->page[gla >> PAGE_SHIFT & (REGION_PAGES - 1)] : NULL;
}

/* ---- from the guest's tables to mappings ---- */

/* Pages in a row that are to be mapped alike, or unmapped (hva NULL), not told to the host yet. */
struct run {
	gla_t gla;
	u8 *hva;
	u64 size;
	enum host_space_access access;
};

static void flush_run(struct vcpu *vcpu, struct direct_space *s, struct run *run)
{
	u64 *count = direct_of(vcpu)->count;
	if (run->size && run->hva)
		s->full |= host_space_map(s->host, run->gla, run->hva, run->size, run->access) < 0;
	else if (run->size)
		s->full |= host_space_unmap(s->host, run->gla, run->size) < 0;
	count[run->hva ? DIRECT_MAPPED : DIRECT_UNMAPPED] += run->size >> PAGE_SHIFT;
	run->size = 0;
}

static void add_to_run(struct vcpu *vcpu, struct direct_space *s, struct run *run, gla_t gla, u8 *hva, enum host_space_access access)
{
	bool extends = run->size && run->gla + run->size == gla && !run->hva == !hva &&
		       (!hva || (run->hva + run->size == hva && run->access == access));
	if (!extends)
		flush_run(vcpu, s, run);
	if (!run->size)
		*run = (struct run){ .gla = gla, .hva = hva, .access = access };
	run->size += PAGE_SIZE;
}

static bool can_be_mapped(const struct vcpu *vcpu, gla_t gla, const u8 *hva)
{
	return gla >= LOWEST && gla <= HIGHEST && (u64)(hva - vcpu->ram->memory) < vcpu->ram->memory_size;
}

static enum host_space_access access_of(u64 shadow)
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

/* What was found in the page at gla depended on the page before. */
static void forget_place(struct vcpu *vcpu, struct direct_space *s, struct run *run, gla_t gla)
{
	u64 *shadow = shadow_at(s, gla);
	bool mapped = shadow && *shadow & SHADOW_EXEC;
	if (!shadow || !(*shadow & SHADOW_KNOWN))
		return;
	*shadow &= ~(u64)SHADOW_KNOWN;
	if (mapped)
		add_to_run(vcpu, s, run, gla, ram_pointer(vcpu->ram, *shadow & PTE_ADDR, PAGE_SIZE), SPACE_READ);
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
		u64 now = shadow_of(s, &page[i]), old = *shadow;
		r->large |= page[i].page_shift != PAGE_SHIFT;
		if (page[i].exec && !((now ^ *shadow) & PTE_ADDR))
			now |= *shadow & SHADOW_KNOWN;
		if (now & SHADOW_EXEC)
			now &= ~SHADOW_WRITE;
		if (now == *shadow)
			continue;
		*shadow = now;
		add_to_run(vcpu, s, &run, gla, page[i].hva, access_of(now));
		if (old & ~now & SHADOW_KNOWN)
			forget_place(vcpu, s, &run, gla + PAGE_SIZE);
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
		if (!((now ^ r->page[index]) & ~(u64)SHADOW_KNOWN) || !now)
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

/* ---- sensitive instructions ---- */

static const u8 *place_bytes(struct vcpu *vcpu, struct direct_space *s, gla_t gla)
{
	const u64 *shadow = shadow_at(s, gla);
	return shadow && *shadow & SHADOW_KNOWN ? ram_pointer(vcpu->ram, *shadow & PTE_ADDR, PAGE_SIZE) : NULL;
}

/* The sensitive instructions of the page at gla, up to HOST_SPACE_BREAKS; more, if they are more. */
static unsigned sites_of(struct vcpu *vcpu, struct direct_space *s, gla_t gla, const u8 *bytes, u16 *site)
{
	return sensitive_sites(bytes, place_bytes(vcpu, s, gla - PAGE_SIZE), place_bytes(vcpu, s, gla + PAGE_SIZE), !vcpu->tsc_offset, site, HOST_SPACE_BREAKS);
}

/* ---- break points ---- */

/* Pages with break points are sensitive again; those that are no longer code lose theirs alone. */
static void take_breaks(struct vcpu *vcpu, struct direct_space *s, bool all)
{
	struct run run = { 0 };
	unsigned kept = 0;
	for (unsigned i = 0; i < s->breaks_count; i++) {
		u64 *shadow = shadow_at(s, s->breaks[i]);
		bool in_use = shadow && *shadow & SHADOW_EXEC;
		if (in_use && !all)
			s->breaks[kept++] = s->breaks[i];
		else if (in_use) {
			*shadow ^= SHADOW_EXEC | SHADOW_SENSITIVE;
			add_to_run(vcpu, s, &run, s->breaks[i] & PAGE_MASK, ram_pointer(vcpu->ram, *shadow & PTE_ADDR, PAGE_SIZE), SPACE_READ);
		}
	}
	flush_run(vcpu, s, &run);
	s->breaks_count = kept;
}

/* Break points at `sites` offsets in the page at gla. False: that cannot be, and nothing changed. */
static bool add_breaks(struct vcpu *vcpu, struct direct_space *s, gla_t gla, const u16 *site, unsigned sites)
{
	take_breaks(vcpu, s, false);
	if (s->breaks_count + sites > HOST_SPACE_BREAKS) {
		take_breaks(vcpu, s, true);
		s->break_after = MIN(2 * s->break_after, BREAK_AFTER_MAX);
	}
	for (unsigned i = 0; i < sites; i++)
		s->breaks[s->breaks_count + i] = gla + site[i];
	if (host_space_break(s->host, s->breaks, s->breaks_count + sites)) {
		s->breaks_count += sites;
		return true;
	}
	take_breaks(vcpu, s, true);
	s->break_after = ~0u;
	return false;
}

/* Code in place goes to a page with sensitive instructions. If it does so often, and they are few, break points make it a page like others. */
static bool cross(struct vcpu *vcpu, struct direct_space *s, struct shadow_region *r, unsigned index)
{
	gla_t gla = r->number << REGION_SHIFT | (u64)index << PAGE_SHIFT;
	struct looked *place = &r->place[index];
	u8 *hva = ram_pointer(vcpu->ram, r->page[index] & PTE_ADDR, PAGE_SIZE);
	u16 site[HOST_SPACE_BREAKS];
	if (place->churn >= CHURN_MAX || ++place->crossed < s->break_after)
		return false;
	place->crossed = 0;
	unsigned sites = sites_of(vcpu, s, gla, hva, site);
	if (sites > HOST_SPACE_BREAKS || !add_breaks(vcpu, s, gla, site, sites))
		return false;
	direct_of(vcpu)->count[DIRECT_BREAKS_SET]++;
	r->page[index] ^= SHADOW_SENSITIVE | SHADOW_EXEC;
	struct run run = { .gla = gla, .size = PAGE_SIZE, .hva = hva, .access = SPACE_EXEC };
	flush_run(vcpu, s, &run);
	return true;
}

/* ---- code in place ---- */

/* The page, which the user may execute, becomes code: from here on stores to it are noticed, as for translated code. */
static void look_at(struct vcpu *vcpu, struct direct_space *s, struct shadow_region *r, unsigned index, const struct user_page *page)
{
	gla_t gla = r->number << REGION_SHIFT | (u64)index << PAGE_SHIFT;
	struct translation t = { .gpa = page->gpa, .hva = page->hva, .flags = page->flags, .generation = page->generation };
	struct looked *place = &r->place[index];
	do {
		mmu_protect_code(vcpu, &t);
		place->seen = __atomic_load_n(t.generation, __ATOMIC_SEQ_CST);
	} while (!(__atomic_load_n(t.flags, __ATOMIC_SEQ_CST) & PAGE_CODE));
	u16 site[HOST_SPACE_BREAKS];
	bool bad = place->churn >= CHURN_MAX || sites_of(vcpu, s, gla, page->hva, site);
	r->page[index] = page->gpa | SHADOW_MAPPED | (bad ? SHADOW_SENSITIVE : SHADOW_EXEC);
	direct_of(vcpu)->count[bad ? DIRECT_PLACES_REFUSED : DIRECT_PLACES]++;
}

bool memory_place(struct vcpu *vcpu, struct direct_space *s, gla_t gla)
{
	if (unlikely(s->tsc_offset != vcpu->tsc_offset)) {
		s->tsc_offset = vcpu->tsc_offset;
		unmap_all(s);
	}
	struct shadow_region *r = gla < HOST_SPACE_END ? find_region(s, gla >> REGION_SHIFT, true) : NULL;
	unsigned index = (unsigned)(gla >> PAGE_SHIFT & (REGION_PAGES - 1)), first = index & ~(EXEC_FILL - 1u);
	struct user_page page[EXEC_FILL];
	struct run run = { 0 };
	if (!r)
		return false;
	if (r->page[index] & SHADOW_EXEC)
		return true;
	if (r->page[index] & SHADOW_SENSITIVE)
		return cross(vcpu, s, r, index);
	if (s->full)
		unmap_all(s);
	if (!r->place && !(r->place = host_alloc(REGION_PAGES * sizeof(*r->place))))
		return false;
	mmu_user_pages(vcpu, (r->number << REGION_SHIFT) + ((u64)first << PAGE_SHIFT), EXEC_FILL, page);
	for (unsigned i = 0; i < EXEC_FILL; i++) {
		const struct user_page *p = &page[i];
		u64 *shadow = &r->page[first + i];
		r->large |= p->page_shift > PAGE_SHIFT;
		/* What the guest writes is looked at when it comes to be executed. */
		if (!p->hva || !p->exec || !can_be_mapped(vcpu, (r->number << REGION_SHIFT) + ((u64)(first + i) << PAGE_SHIFT), p->hva) || (*shadow & SHADOW_KNOWN) || (p->write && first + i != index))
			continue;
		u64 old = *shadow;
		s->huge |= p->page_shift == 30;
		look_at(vcpu, s, r, first + i, p);
		if (*shadow != old)
			add_to_run(vcpu, s, &run, (r->number << REGION_SHIFT) + ((u64)(first + i) << PAGE_SHIFT), p->hva, access_of(*shadow));
	}
	flush_run(vcpu, s, &run);
	return r->page[index] & SHADOW_EXEC;
}

bool memory_refused(struct direct_space *s, gla_t gla)
{
	const u64 *shadow = shadow_at(s, gla);
	return shadow && *shadow & SHADOW_SENSITIVE;
}

/* What was written is data until it is executed again. */
static void follow_region(struct vcpu *vcpu, struct direct_space *s, struct shadow_region *r)
{
	struct run run = { 0 };
	for (unsigned i = 0; r->place && i < REGION_PAGES; i++) {
		u64 shadow = r->page[i];
		struct ram_slot *slot = shadow & SHADOW_KNOWN ? ram_find(vcpu->ram, shadow & PTE_ADDR) : NULL;
		u64 offset = slot ? (shadow & PTE_ADDR) - slot->base : 0;
		if (!slot || r->place[i].seen == __atomic_load_n(&slot->generation[offset >> PAGE_SHIFT], __ATOMIC_SEQ_CST))
			continue;
		r->page[i] &= ~(u64)SHADOW_KNOWN;
		r->place[i].churn = (u8)MIN(r->place[i].churn + 1, CHURN_MAX);
		gla_t gla = r->number << REGION_SHIFT | (u64)i << PAGE_SHIFT;
		if (shadow & SHADOW_EXEC)
			add_to_run(vcpu, s, &run, gla, slot->hva + offset, SPACE_READ);
		forget_place(vcpu, s, &run, gla + PAGE_SIZE);
	}
	flush_run(vcpu, s, &run);
}

void memory_follow_writes(struct vcpu *vcpu, struct direct_space *s)
{
	u64 logged = __atomic_load_n(&vcpu->ram->code_logged, __ATOMIC_SEQ_CST);
	if (likely(logged == s->places_logged))
		return;
	s->places_logged = logged;
	for (unsigned i = 0; i < SHADOW_HASH; i++)
		for (struct shadow_region *r = s->shadow[i]; r; r = r->next)
			follow_region(vcpu, s, r);
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
