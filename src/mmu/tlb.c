/* The software TLB: one direct-mapped table per address space (PCID) and privilege view, and the functions that fill
 * and flush it. Global pages are entered into the table of each address space that uses them; what flushes global pages
 * therefore visits all tables.
 * Intel SDM volume 3, "Caching Translation Information"; volume 2, INVLPG, INVPCID. */
#include "mmu/tlb.h"

#include "host/port.h"
#include "mmu/journal.h"

/* Groups of entries of all tables together that may have been touched before memory is given back: 9 to 13 KBytes each. */
#define REGIONS_MAX 384

/* Memory that is only read is not there yet: where nothing can be stored, the array of write tags costs nothing. */
static void set_write_tag(struct tlb_table *t, unsigned index, u64 tag)
{
	if (t->write[index] != tag)
		t->write[index] = tag;
}

static void entry_invalidate(struct tlb_table *t, unsigned index)
{
	t->read[index] = tlb_no_tag(index);
	set_write_tag(t, index, tlb_no_tag(index));
	t->info[index] &= TLB_LISTED(0) | TLB_LISTED(1);
}

/* ---- salts ---- */

#define SALT_MAX 0xffff

static void salts_take(struct mmu *mmu, struct exec_notes *notes)
{
	notes->salt = ++mmu->salt_last;
	notes->narrow_salt = ++mmu->salt_last;
}

/* Salts have run out: begin anew. */
static void salts_restart(struct vcpu *vcpu)
{
	struct mmu *mmu = vcpu->mmu;
	if (vcpu->jump_cache)
		for (unsigned i = 0; i < JUMP_CACHE_ENTRIES; i++)
			vcpu->jump_cache[i] = 1;
	mmu->salt_last = 0;
	salts_take(mmu, &mmu->supervisor);
	for (unsigned i = 0; i < MMU_CONTEXTS && mmu->context[i]; i++)
		salts_take(mmu, &mmu->context[i]->user);
}

/* What is remembered by these notes' salt is no longer true. With 57 linear bits a salt would overlap the address. */
static void salt_renew(struct vcpu *vcpu, struct exec_notes *notes)
{
	struct mmu *mmu = vcpu->mmu;
	*notes = (struct exec_notes){ 0 };
	if (mmu->salt_last >= SALT_MAX - 1 || (vcpu->cr4 & CR4_LA57))
		salts_restart(vcpu);
	else
		salts_take(mmu, notes);
	if (notes == &mmu->supervisor)
		mmu->supervisor_local = false;
	mmu_update_salt(vcpu);
}

static bool was_executed(const struct exec_notes *notes, gla_t gla)
{
	if (gla > notes->last || gla < ~notes->first_inverted)
		return false;
	if (notes->large[gla >> 27 & 3] & (BIT(gla >> 21 & 63) | BIT((gla ^ BIT(21)) >> 21 & 63)))
		return true;
	return notes->page[gla >> 18 & 15] & BIT(gla >> PAGE_SHIFT & 63);
}

/* Where memory is zero only the first entry could match an address. */
static void tables_init(struct tlb *tlb)
{
	for (unsigned view = 0; view < VIEW_COUNT; view++)
		entry_invalidate(&tlb->table[view], 0);
}

static struct tlb *tlb_create(void)
{
	struct tlb *tlb = host_table_create(sizeof(*tlb));
	if (tlb)
		tables_init(tlb);
	return tlb;
}

int mmu_create(struct vcpu *vcpu)
{
	struct mmu *mmu = host_alloc(sizeof(*mmu));
	if (!mmu)
		return -1;
	mmu->context[0] = tlb_create();
	if (!mmu->context[0]) {
		host_free(mmu);
		return -1;
	}
	mmu->current = mmu->context[0];
	mmu->context_used = 1;
	salts_take(mmu, &mmu->supervisor);
	salts_take(mmu, &mmu->current->user);
	vcpu->mmu = mmu;
	mmu_update_view(vcpu);
	return 0;
}

void mmu_destroy(struct vcpu *vcpu)
{
	if (!vcpu->mmu)
		return;
	for (unsigned i = 0; i < vcpu->mmu->context_used; i++)
		host_table_destroy(vcpu->mmu->context[i], sizeof(struct tlb));
	host_free(vcpu->mmu->journal);
	host_free(vcpu->mmu);
	vcpu->mmu = NULL;
}

/* ---- large pages ----
 * They are entered in pieces of 4 KBytes, but INVLPG anywhere in one removes it whole. A filter of hashed regions says
 * whether a region may have such pieces, so that the common INVLPG looks at one entry a view. */

static unsigned huge_hash(gla_t gla)
{
	return (unsigned)((gla >> 30) * 0x9e3779b97f4a7c15 >> 58);
}

static void filter_add(struct tlb *tlb, unsigned list, gla_t gla, unsigned page_shift)
{
	u64 *large = &tlb->large[list][gla >> 27 & 3];
	if (page_shift == PAGE_SHIFT)
		return;
	if (page_shift == 30) {
		tlb->huge[list] |= BIT(huge_hash(gla));
		return;
	}
	/* A 4-MByte page is two neighbouring regions of 2 MBytes. */
	*large |= BIT(gla >> 21 & 63);
	if (page_shift == 22)
		*large |= BIT((gla ^ BIT(21)) >> 21 & 63);
}

/* ---- what spaces must hear of ---- */

static void stale_page(struct stale *s, gla_t gla)
{
	gla_t page = gla & PAGE_MASK;
	if (!s->watched || s->all || page >> 47)
		return;
	if (s->ranges && s->range[s->ranges - 1].end == page) {
		s->range[s->ranges - 1].end += PAGE_SIZE;
	} else if (s->ranges == STALE_RANGES) {
		s->all = true;
	} else {
		s->range[s->ranges].start = page;
		s->range[s->ranges++].end = page + PAGE_SIZE;
	}
}

/* ---- what engines must hear of that let the hardware translate ---- */

static void invalid_page(struct invalid *invalid, gla_t gla)
{
	if (invalid->pages < INVALID_PAGES)
		invalid->page[invalid->pages++] = gla;
	else
		invalid->all = true;
}

/* ---- flushing ---- */

#define LIST_NONGLOBAL BIT(0)
#define LIST_GLOBAL BIT(1)
#define LIST_BOTH (LIST_NONGLOBAL | LIST_GLOBAL)

static unsigned list_of(u8 info)
{
	return !!(info & TLB_GLOBAL);
}

static bool in_lists(u8 info, unsigned lists)
{
	return (info & TLB_VALID) && (lists & BIT(list_of(info)));
}

static void list_drop(struct tlb_table *t, unsigned list)
{
	struct tlb_list *l = &t->list[list];
	for (unsigned i = 0; i < l->count; i++) {
		unsigned index = l->index[i];
		if (in_lists(t->info[index], BIT(list)))
			entry_invalidate(t, index);
		t->info[index] &= (u8)~TLB_LISTED(list);
	}
	l->count = 0;
}

static void lists_drop(struct tlb *tlb, unsigned lists)
{
	for (unsigned list = 0; list < 2; list++) {
		if (!(lists & BIT(list)))
			continue;
		for (unsigned view = 0; view < VIEW_COUNT; view++)
			list_drop(&tlb->table[view], list);
		__builtin_memset(tlb->large[list], 0, sizeof(tlb->large[list]));
		tlb->huge[list] = 0;
	}
}

/* Drop the entry if it is one of `lists` and of the guest's page that contains gla. */
static void entry_drop(struct tlb_table *t, unsigned index, unsigned lists, gla_t gla)
{
	u8 info = t->info[index];
	if (in_lists(info, lists) && (t->read[index] ^ gla) >> tlb_page_shift(info) == 0)
		entry_invalidate(t, index);
}

/* Pieces of large pages: all entries within 4 MBytes. */
static void drop_large(struct tlb_table *t, unsigned lists, gla_t gla)
{
	unsigned first = tlb_index(gla) & ~1023u;
	if (!(t->regions[first / 512 / 64] >> (first / 512 % 64) & 3))
		return;
	for (unsigned i = first; i < first + 1024; i++)
		if (t->info[i] & TLB_VALID)
			entry_drop(t, i, lists, gla);
}

static void drop_huge(struct tlb_table *t, unsigned lists, gla_t gla)
{
	for (unsigned list = 0; list < 2; list++)
		for (unsigned i = 0; i < t->list[list].count; i++)
			entry_drop(t, t->list[list].index[i], lists, gla);
}

static void tlb_drop_page(struct vcpu *vcpu, struct tlb *tlb, gla_t gla, unsigned lists)
{
	u64 large = 0, huge = 0;
	if ((lists & LIST_NONGLOBAL) || tlb->stale.global)
		stale_page(&tlb->stale, gla);
	if (was_executed(&tlb->user, gla))
		salt_renew(vcpu, &tlb->user);
	if (was_executed(&vcpu->mmu->supervisor, gla))
		salt_renew(vcpu, &vcpu->mmu->supervisor);
	for (unsigned list = 0; list < 2; list++) {
		if (lists & BIT(list)) {
			large |= tlb->large[list][gla >> 27 & 3] & BIT(gla >> 21 & 63);
			huge |= tlb->huge[list] & BIT(huge_hash(gla));
		}
	}
	for (unsigned view = 0; view < VIEW_COUNT; view++) {
		struct tlb_table *t = &tlb->table[view];
		entry_drop(t, tlb_index(gla), lists, gla);
		if (unlikely(large))
			drop_large(t, lists, gla);
		if (unlikely(huge))
			drop_huge(t, lists, gla);
	}
}

static void tlb_flush(struct vcpu *vcpu, struct tlb *tlb, unsigned lists)
{
	struct mmu *mmu = vcpu->mmu;
	tlb->stale.all = true;
	salt_renew(vcpu, &tlb->user);
	if ((lists & LIST_GLOBAL) || mmu->supervisor_local)
		salt_renew(vcpu, &mmu->supervisor);
	lists_drop(tlb, lists);
}

static void sweep_all(struct vcpu *vcpu, unsigned lists)
{
	struct mmu *mmu = vcpu->mmu;
	mmu->flushes++;
	mmu->invalid.local = true;
	mmu->invalid.all |= !!(lists & LIST_GLOBAL);
	for (unsigned i = 0; i < mmu->context_used; i++)
		tlb_flush(vcpu, mmu->context[i], lists);
}

void mmu_flush_all(struct vcpu *vcpu)
{
	sweep_all(vcpu, LIST_BOTH);
}

void mmu_flush_nonglobal(struct vcpu *vcpu)
{
	vcpu->mmu->flushes++;
	vcpu->mmu->invalid.local = true;
	tlb_flush(vcpu, vcpu->mmu->current, LIST_NONGLOBAL);
}

void mmu_flush_page(struct vcpu *vcpu, gla_t gla)
{
	struct mmu *mmu = vcpu->mmu;
	invalid_page(&mmu->invalid, gla);
	for (unsigned i = 0; i < mmu->context_used; i++)
		tlb_drop_page(vcpu, mmu->context[i], gla, mmu->context[i] == mmu->current ? LIST_BOTH : LIST_GLOBAL);
}

static struct tlb *context_find(struct mmu *mmu, u16 pcid)
{
	for (unsigned i = 0; i < mmu->context_used; i++)
		if (mmu->context_pcid[i] == pcid)
			return mmu->context[i];
	return NULL;
}

enum invpcid_type { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL_GLOBAL, INVPCID_ALL };

void mmu_invpcid(struct vcpu *vcpu, unsigned type, u16 pcid, gla_t gla)
{
	struct tlb *tlb = context_find(vcpu->mmu, pcid);
	switch (type) {
	case INVPCID_ADDRESS:
		invalid_page(&vcpu->mmu->invalid, gla);
		if (tlb)
			tlb_drop_page(vcpu, tlb, gla, LIST_NONGLOBAL);
		break;
	case INVPCID_CONTEXT:
		vcpu->mmu->flushes++;
		vcpu->mmu->invalid.local = true;
		if (tlb)
			tlb_flush(vcpu, tlb, LIST_NONGLOBAL);
		break;
	case INVPCID_ALL_GLOBAL:
		sweep_all(vcpu, LIST_BOTH);
		break;
	case INVPCID_ALL:
		sweep_all(vcpu, LIST_NONGLOBAL);
		break;
	}
}

/* ---- debugging ---- */

void mmu_watch_page(struct vcpu *vcpu, gla_t page, bool reads)
{
	unsigned index = tlb_index(page);
	for (unsigned i = 0; i < vcpu->mmu->context_used; i++) {
		for (unsigned view = 0; view < VIEW_COUNT; view++) {
			struct tlb_table *t = &vcpu->mmu->context[i]->table[view];
			if (t->read[index] != page)
				continue;
			if (reads)
				t->read[index] = tlb_no_tag(index);
			set_write_tag(t, index, tlb_no_tag(index));
		}
	}
}

void mmu_forget_exec(struct vcpu *vcpu)
{
	struct mmu *mmu = vcpu->mmu;
	salt_renew(vcpu, &mmu->supervisor);
	for (unsigned i = 0; i < mmu->context_used; i++)
		salt_renew(vcpu, &mmu->context[i]->user);
}

/* ---- address spaces ---- */

/* The number of a context for a new PCID: a free one, else the next in turn that is not in use now. */
static unsigned context_take(struct vcpu *vcpu)
{
	struct mmu *mmu = vcpu->mmu;
	if (mmu->context_used < MMU_CONTEXTS) {
		struct tlb *tlb = tlb_create();
		if (tlb) {
			mmu->context[mmu->context_used++] = tlb;
			salt_renew(vcpu, &tlb->user);
			return mmu->context_used - 1u;
		}
	}
	unsigned taken = mmu->context_next % mmu->context_used;
	if (mmu->context[taken] == mmu->current)
		taken = (taken + 1) % mmu->context_used;
	mmu->context_next = (u8)(taken + 1);
	mmu->context[taken]->stale.all = true;
	salt_renew(vcpu, &mmu->context[taken]->user);
	lists_drop(mmu->context[taken], LIST_BOTH);
	return taken;
}

void mmu_load_cr3(struct vcpu *vcpu, bool noflush)
{
	struct mmu *mmu = vcpu->mmu;
	u16 pcid = (vcpu->cr4 & CR4_PCIDE) ? vcpu->cr3 & CR3_PCID_MASK : 0;
	struct tlb *tlb = context_find(mmu, pcid);
	mmu->invalid.local = true;
	if (mmu->supervisor_local)
		salt_renew(vcpu, &mmu->supervisor);
	if (!tlb) {
		unsigned taken = context_take(vcpu);
		mmu->context_pcid[taken] = pcid;
		mmu->current = mmu->context[taken];
		mmu_update_view(vcpu);
		return;
	}
	mmu->current = tlb;
	mmu_update_view(vcpu);
	if (!noflush)
		mmu_flush_nonglobal(vcpu);
}

/* ---- filling ---- */

/* Stores may go to a page without asking only if the guest's D is set, and its own dirty flag where dirty pages are
 * logged. */
static bool store_needs_nothing(const struct walk *walk, const struct ram_slot *slot, u8 flags)
{
	return walk->dirty && !slot->readonly && !(flags & PAGE_READONLY) && (!slot->log_dirty || (flags & PAGE_DIRTY));
}

/* Where code is protected, a page that holds some gets no write tag, and one that gets a tag is remembered. */
static bool may_store_to_code(const struct ram *ram, u8 *flags)
{
	if (!ram->protect_code)
		return true;
	u8 old = __atomic_load_n(flags, __ATOMIC_SEQ_CST);
	if (!(old & (PAGE_CODE | PAGE_STORED)))
		old = __atomic_fetch_or(flags, PAGE_STORED, __ATOMIC_SEQ_CST);
	return !(old & PAGE_CODE);
}

bool mmu_may_store(struct vcpu *vcpu, const struct translation *page)
{
	return may_store_to_code(vcpu->ram, page->flags);
}

static u8 size_code(unsigned page_shift)
{
	return page_shift == PAGE_SHIFT ? 0 : page_shift == 30 ? 3 : (u8)(page_shift - 20);
}

/* ---- memory ---- */

#define REGION_ENTRIES (PAGE_SIZE / sizeof(u64))

static bool region_unused(const struct tlb_table *t, unsigned region)
{
	u64 any = 0, word;
	for (unsigned i = 0; i < REGION_ENTRIES; i += sizeof(word)) {
		__builtin_memcpy(&word, &t->info[region * REGION_ENTRIES + i], sizeof(word));
		any |= word;
	}
	return !any;
}

static void region_discard(struct tlb_table *t, unsigned region)
{
	unsigned first = region * REGION_ENTRIES;
	host_table_discard(&t->read[first], PAGE_SIZE);
	host_table_discard(&t->write[first], PAGE_SIZE);
	host_table_discard(&t->addend[first], PAGE_SIZE);
	t->regions[region / 64] &= ~BIT(region % 64);
}

/* Give back what flushes have left without any valid entry; but not the first region, where what is not valid is not all zero. */
static unsigned discard_unused(struct tlb_table *t)
{
	unsigned count = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(t->regions); i++) {
		for (u64 left = t->regions[i] & (i ? ~0ull : ~1ull); left; left &= left - 1) {
			unsigned region = i * 64 + (unsigned)__builtin_ctzll(left);
			if (!region_unused(t, region))
				continue;
			region_discard(t, region);
			count++;
		}
	}
	return count;
}

static void context_discard_unused(struct mmu *mmu, struct tlb *tlb)
{
	unsigned count = 0;
	for (unsigned view = 0; view < VIEW_COUNT; view++)
		count += discard_unused(&tlb->table[view]);
	tlb->regions -= count;
	mmu->regions -= count;
}

/* Empty the tables of an address space and give their memory back. What flushes are there for stays true: nothing is held that should not be. */
static void tables_discard(struct mmu *mmu, struct tlb *tlb)
{
	host_table_discard(tlb->table, sizeof(tlb->table));
	tables_init(tlb);
	__builtin_memset(tlb->large, 0, sizeof(tlb->large));
	__builtin_memset(tlb->huge, 0, sizeof(tlb->huge));
	mmu->regions -= tlb->regions;
	tlb->regions = 0;
}

void mmu_discard(struct vcpu *vcpu)
{
	struct mmu *mmu = vcpu->mmu;
	for (unsigned i = 0; i < mmu->context_used; i++)
		tables_discard(mmu, mmu->context[i]);
}

/* There is enough memory in use: the address space that has most of it loses its, but the current one only if there is no other of any size. */
static void make_room(struct mmu *mmu)
{
	struct tlb *most = NULL;
	for (unsigned i = 0; i < mmu->context_used; i++)
		context_discard_unused(mmu, mmu->context[i]);
	if (mmu->regions <= REGIONS_MAX / 8 * 7)
		return;
	for (unsigned i = 0; i < mmu->context_used; i++)
		if (mmu->context[i] != mmu->current && (!most || mmu->context[i]->regions > most->regions))
			most = mmu->context[i];
	tables_discard(mmu, most && most->regions >= REGIONS_MAX / 16 ? most : mmu->current);
}

/* Account for the memory of an entry that is about to be used, in the current address space. */
static void note_region(struct mmu *mmu, struct tlb_table *t, unsigned index)
{
	u64 *word = &t->regions[index / 512 / 64], bit = BIT(index / 512 % 64);
	if (likely(*word & bit))
		return;
	if (mmu->regions >= REGIONS_MAX)
		make_room(mmu);
	*word |= bit;
	mmu->regions++;
	mmu->current->regions++;
}

static void note_used(struct tlb_table *t, unsigned index, u8 info)
{
	unsigned list = list_of(info);
	struct tlb_list *l = &t->list[list];
	u8 listed = t->info[index] & (TLB_LISTED(0) | TLB_LISTED(1));
	if (!(listed & TLB_LISTED(list))) {
		if (l->count == TLB_LIST_MAX) {
			list_drop(t, list);
			listed = t->info[index] & TLB_LISTED(!list);
		}
		l->index[l->count++] = index;
	}
	t->info[index] = info | listed | TLB_LISTED(list);
}

bool tlb_may_store(const struct vcpu *vcpu, const struct walk *walk, const struct ram_slot *slot, u8 *flags)
{
	return store_needs_nothing(walk, slot, *flags) && may_store_to_code(vcpu->ram, flags);
}

void tlb_fill(struct vcpu *vcpu, enum tlb_view view, gla_t gla, const struct walk *walk, struct ram_slot *slot)
{
	struct tlb *tlb = vcpu->mmu->current;
	struct tlb_table *t = &tlb->table[view];
	unsigned index = tlb_index(gla);
	gla_t page = gla & PAGE_MASK;
	u64 number = (walk->gpa - slot->base) >> PAGE_SHIFT;
	u8 *flags = &slot->flags[number];
	bool watched = unlikely(vcpu->debug.watches) && debug_watches(&vcpu->debug, page, false);
	bool write = !watched && walk_permits(vcpu, walk, view, ACCESS_WRITE) && tlb_may_store(vcpu, walk, slot, flags);
	if (!walk_permits(vcpu, walk, view, ACCESS_READ) || (watched && debug_watches(&vcpu->debug, page, true)))
		return;
	if (write && unlikely(vcpu->mmu->journal))
		write = journal_allows(vcpu->mmu->journal, slot->hva + (walk->gpa - slot->base), t, index);
	note_region(vcpu->mmu, t, index);
	u8 info = (u8)(TLB_VALID | TLB_SIZE(size_code(walk->page_shift)) | (walk->global ? TLB_GLOBAL : 0) |
		       (walk_permits(vcpu, walk, view, ACCESS_EXEC) ? TLB_EXEC : 0));
	note_used(t, index, info);
	t->read[index] = page;
	set_write_tag(t, index, write ? page : tlb_no_tag(index));
	t->addend[index] = (u64)(uintptr_t)slot->hva + (walk->gpa - slot->base) - page;
	filter_add(tlb, list_of(info), gla, walk->page_shift);
}
