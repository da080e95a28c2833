/* Which pages of the guest may be run in place: those without sensitive instructions (sensitive.h), or with break points at these, as
 * long as they are not written. Their mappings are kept with all others (direct_shadow.h). */
#include "engine/bt/direct_shadow.h"

#include "arch/paging.h"
#include "engine/bt/sensitive.h"

#define EXEC_FILL 16 /* pages, naturally aligned */
#define CHURN_MAX 16
#define FORGIVE 100000 /* microseconds */
#define BREAK_AFTER_MAX 128

/* ---- sensitive instructions ---- */

static const u8 *place_bytes(struct vcpu *vcpu, struct direct_space *s, gla_t gla)
{
	const u64 *shadow = shadow_at(s, gla);
	return shadow && *shadow & SHADOW_KNOWN ? ram_pointer(vcpu->ram, *shadow & PTE_ADDR, PAGE_SIZE) : NULL;
}

/* The sensitive instructions of the page at gla, up to HOST_SPACE_BREAKS; more, if they are more. */
static unsigned sites_of(struct vcpu *vcpu, struct direct_space *s, gla_t gla, const u8 *bytes, u16 *site)
{
	const u8 *before = place_bytes(vcpu, s, gla - PAGE_SIZE), *behind = place_bytes(vcpu, s, gla + PAGE_SIZE);
	return sensitive_sites(bytes, before, behind, !vcpu->tsc_offset, site, HOST_SPACE_BREAKS);
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
			shadow_add(vcpu, s, &run, s->breaks[i] & PAGE_MASK, ram_pointer(vcpu->ram, *shadow & PTE_ADDR, PAGE_SIZE), SPACE_READ);
		}
	}
	shadow_flush(vcpu, s, &run);
	s->breaks_count = kept;
}

/* Break points at `sites` offsets in the page at gla. False: that cannot be, and nothing changed. */
static bool add_breaks(struct vcpu *vcpu, struct direct_space *s, gla_t gla, const u16 *site, unsigned sites)
{
	take_breaks(vcpu, s, false);
	if (s->breaks_count + sites > HOST_SPACE_BREAKS) {
		take_breaks(vcpu, s, true);
		s->break_after *= 2;
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

/* Code in place goes to a page with sensitive instructions. If it does so often, and they are few, break points make it a page like
 * others; but where pages have taken them from each other again and again, those that have none are translated from then on. */
static bool cross(struct vcpu *vcpu, struct direct_space *s, struct shadow_region *r, unsigned index)
{
	gla_t gla = r->number << REGION_SHIFT | (u64)index << PAGE_SHIFT;
	struct looked *place = &r->place[index];
	u8 *hva = ram_pointer(vcpu->ram, r->page[index] & PTE_ADDR, PAGE_SIZE);
	u16 site[HOST_SPACE_BREAKS];
	place->hopeless |= place->churn >= CHURN_MAX;
	if (place->hopeless || ++place->crossed < s->break_after)
		return false;
	place->crossed = 0;
	unsigned sites = sites_of(vcpu, s, gla, hva, site);
	place->hopeless = sites > HOST_SPACE_BREAKS || s->break_after > BREAK_AFTER_MAX;
	if (place->hopeless || !add_breaks(vcpu, s, gla, site, sites))
		return false;
	direct_of(vcpu)->count[DIRECT_BREAKS_SET]++;
	r->page[index] ^= SHADOW_SENSITIVE | SHADOW_EXEC;
	struct run run = { .gla = gla, .size = PAGE_SIZE, .hva = hva, .access = SPACE_EXEC };
	shadow_flush(vcpu, s, &run);
	return true;
}

/* ---- code in place ---- */

void shadow_forget_place(struct vcpu *vcpu, struct direct_space *s, struct run *run, gla_t gla)
{
	u64 *shadow = shadow_at(s, gla);
	bool mapped = shadow && *shadow & SHADOW_EXEC;
	if (!shadow || !(*shadow & SHADOW_KNOWN))
		return;
	*shadow &= ~(u64)SHADOW_KNOWN;
	if (mapped)
		shadow_add(vcpu, s, run, gla, ram_pointer(vcpu->ram, *shadow & PTE_ADDR, PAGE_SIZE), SPACE_READ);
}

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
	place->hopeless = false;
	s->churned |= place->churn >= CHURN_MAX;
	bool bad = place->churn >= CHURN_MAX || sites_of(vcpu, s, gla, page->hva, site);
	r->page[index] = page->gpa | SHADOW_MAPPED | (bad ? SHADOW_SENSITIVE : SHADOW_EXEC);
	direct_of(vcpu)->count[bad ? DIRECT_PLACES_REFUSED : DIRECT_PLACES]++;
}

bool memory_place(struct vcpu *vcpu, struct direct_space *s, gla_t gla)
{
	if (unlikely(s->tsc_offset != vcpu->tsc_offset)) {
		s->tsc_offset = vcpu->tsc_offset;
		shadow_unmap_all(s);
	}
	struct shadow_region *r = gla < HOST_SPACE_END ? shadow_region_at(s, gla >> REGION_SHIFT, true) : NULL;
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
		shadow_unmap_all(s);
	if (!r->place && !(r->place = host_alloc(REGION_PAGES * sizeof(*r->place))))
		return false;
	mmu_user_pages(vcpu, (r->number << REGION_SHIFT) + ((u64)first << PAGE_SHIFT), EXEC_FILL, page);
	for (unsigned i = 0; i < EXEC_FILL; i++) {
		const struct user_page *p = &page[i];
		u64 *shadow = &r->page[first + i];
		r->large |= p->page_shift > PAGE_SHIFT;
		/* What the guest writes is looked at when it comes to be executed. */
		gla_t at = (r->number << REGION_SHIFT) + ((u64)(first + i) << PAGE_SHIFT);
		if (!p->hva || !p->exec || !shadow_mappable(vcpu, at, p->hva) || (*shadow & SHADOW_KNOWN) ||
		    (p->write && first + i != index))
			continue;
		u64 old = *shadow;
		s->huge |= p->page_shift == 30;
		look_at(vcpu, s, r, first + i, p);
		if (*shadow != old)
			shadow_add(vcpu, s, &run, at, p->hva, shadow_access(*shadow));
	}
	shadow_flush(vcpu, s, &run);
	return r->page[index] & SHADOW_EXEC;
}

bool memory_hopeless(struct direct_space *s, gla_t gla)
{
	const u64 *shadow = shadow_at(s, gla);
	const struct shadow_region *r = shadow ? shadow_region_at(s, gla >> REGION_SHIFT, false) : NULL;
	return r && r->place && (*shadow & SHADOW_SENSITIVE) && r->place[gla >> PAGE_SHIFT & (REGION_PAGES - 1)].hopeless;
}

bool memory_refused(struct direct_space *s, gla_t gla)
{
	const u64 *shadow = shadow_at(s, gla);
	return shadow && *shadow & SHADOW_SENSITIVE;
}

void memory_forgive(struct direct_space *s, u64 now)
{
	if (likely(!s->churned || now - s->forgiven < direct_us(FORGIVE)))
		return;
	s->churned = false;
	s->forgiven = now;
	for (unsigned i = 0; i < SHADOW_HASH; i++)
		for (struct shadow_region *r = s->shadow[i]; r; r = r->next)
			for (unsigned j = 0; r->place && j < REGION_PAGES; j++) {
				if (r->place[j].churn >= CHURN_MAX)
					r->page[j] &= ~(u64)SHADOW_SENSITIVE;
				r->place[j].churn /= 2;
			}
	crossings_forget(s);
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
			shadow_add(vcpu, s, &run, gla, slot->hva + offset, SPACE_READ);
		shadow_forget_place(vcpu, s, &run, gla + PAGE_SIZE);
	}
	shadow_flush(vcpu, s, &run);
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
