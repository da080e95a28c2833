/* The software TLB: one direct-mapped table per address space (PCID) and privilege view, and the functions that fill
 * and flush it. Global pages are entered into the table of each address space that uses them; what flushes global pages
 * therefore visits all tables.
 * Intel SDM volume 3, "Caching Translation Information"; volume 2, INVLPG, INVPCID. */
#include "mmu/tlb.h"

#include "host/port.h"

static void entry_invalidate(struct tlb_entry *e, unsigned index)
{
	e->read = e->write = e->exec = tlb_no_tag(index);
}

/* ---- salts ---- */

#define SALT_MAX 0xffff

/* Salts have run out: begin anew. */
static void salts_restart(struct vcpu *vcpu)
{
	struct mmu *mmu = vcpu->mmu;
	if (vcpu->jump_cache)
		for (unsigned i = 0; i < JUMP_CACHE_ENTRIES; i++)
			vcpu->jump_cache[i] = 1;
	mmu->supervisor.salt = mmu->salt_last = 1;
	for (unsigned i = 0; i < mmu->context_used; i++)
		mmu->context[i]->user.salt = ++mmu->salt_last;
}

/* What is remembered by these notes' salt is no longer true. With 57 linear bits a salt would overlap the address. */
static void salt_renew(struct vcpu *vcpu, struct exec_notes *notes)
{
	struct mmu *mmu = vcpu->mmu;
	*notes = (struct exec_notes){ 0 };
	if (mmu->salt_last == SALT_MAX || (vcpu->cr4 & CR4_LA57))
		salts_restart(vcpu);
	else
		notes->salt = ++mmu->salt_last;
	if (notes == &mmu->supervisor)
		mmu->supervisor_local = false;
	vcpu->jump_salt = vcpu->cpl == 3 ? mmu->current->user.salt : mmu->supervisor.salt;
}

static bool was_executed(const struct exec_notes *notes, gla_t gla)
{
	if (notes->large[gla >> 27 & 3] & (BIT(gla >> 21 & 63) | BIT((gla ^ BIT(21)) >> 21 & 63)))
		return true;
	return notes->page[gla >> 18 & 15] & BIT(gla >> PAGE_SHIFT & 63);
}

static struct tlb *tlb_create(void)
{
	struct tlb *tlb = host_alloc(sizeof(*tlb));
	if (!tlb)
		return NULL;
	for (unsigned view = 0; view < VIEW_COUNT; view++)
		for (unsigned i = 0; i < TLB_ENTRIES; i++)
			entry_invalidate(&tlb->entry[view][i], i);
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
	mmu->supervisor.salt = 1;
	mmu->salt_last = mmu->current->user.salt = 2;
	vcpu->mmu = mmu;
	mmu_update_view(vcpu);
	return 0;
}

void mmu_destroy(struct vcpu *vcpu)
{
	if (!vcpu->mmu)
		return;
	for (unsigned i = 0; i < MMU_CONTEXTS; i++)
		host_free(vcpu->mmu->context[i]);
	host_free(vcpu->mmu);
	vcpu->mmu = NULL;
}

/* ---- large pages ----
 * They are entered in pieces of 4 KBytes, but INVLPG anywhere in one removes it whole. A filter of hashed regions says
 * whether a region may have such pieces, so that the common INVLPG looks at one entry a view. */

static u64 *filter_word(struct tlb *tlb, gla_t gla, unsigned shift)
{
	return shift == 30 ? &tlb->huge : &tlb->large[gla >> 27 & 3];
}

static u64 filter_bit(gla_t gla, unsigned shift)
{
	return BIT(gla >> shift & 63);
}

static void filter_add(struct tlb *tlb, gla_t gla, unsigned page_shift)
{
	if (page_shift == PAGE_SHIFT)
		return;
	if (page_shift == 30) {
		tlb->huge |= filter_bit(gla, 30);
		return;
	}
	/* A 4-MByte page is two neighbouring regions of 2 MBytes. */
	*filter_word(tlb, gla, 21) |= filter_bit(gla, 21);
	if (page_shift == 22)
		*filter_word(tlb, gla, 21) |= filter_bit(gla ^ BIT(21), 21);
}

static bool filter_hit(struct tlb *tlb, gla_t gla)
{
	return (*filter_word(tlb, gla, 21) & filter_bit(gla, 21)) || (tlb->huge & filter_bit(gla, 30));
}

/* ---- flushing ---- */

/* The page that the entry is for. False: it is for none. */
static bool entry_page(const struct tlb_entry *e, unsigned index, gla_t *page)
{
	*page = tlb_tag_valid(e->read, index) ? e->read : e->exec;
	return tlb_tag_valid(*page, index);
}

/* Visit the entries in use and drop those that `drop` names. The filter is made anew from what stays. */
static void tlb_sweep(struct tlb *tlb, bool (*drop)(const struct tlb_entry *e, gla_t page, gla_t gla), gla_t gla)
{
	__builtin_memset(tlb->large, 0, sizeof(tlb->large));
	tlb->huge = 0;
	for (unsigned i = 0; i < VIEW_COUNT * TLB_ENTRIES / 64; i++) {
		u64 *used = &tlb->used[0][0] + i;
		for (u64 left = *used; left; left &= left - 1) {
			unsigned bit = (unsigned)__builtin_ctzll(left);
			unsigned index = (i * 64 + bit) % TLB_ENTRIES;
			struct tlb_entry *e = &tlb->entry[0][0] + i * 64 + bit;
			gla_t page;
			if (entry_page(e, index, &page) && !drop(e, page, gla)) {
				filter_add(tlb, page, e->page_shift);
				continue;
			}
			entry_invalidate(e, index);
			*used &= ~BIT(bit);
		}
	}
}

static bool is_any(const struct tlb_entry *e, gla_t page, gla_t gla)
{
	return true;
}

static bool is_nonglobal(const struct tlb_entry *e, gla_t page, gla_t gla)
{
	return !e->global;
}

/* Whether the guest's page that the entry is (a piece of) contains gla. */
static bool is_of_page(const struct tlb_entry *e, gla_t page, gla_t gla)
{
	return (page ^ gla) >> e->page_shift == 0;
}

static bool is_nonglobal_of_page(const struct tlb_entry *e, gla_t page, gla_t gla)
{
	return !e->global && is_of_page(e, page, gla);
}

static bool is_global_of_page(const struct tlb_entry *e, gla_t page, gla_t gla)
{
	return e->global && is_of_page(e, page, gla);
}

static void tlb_drop_page(struct vcpu *vcpu, struct tlb *tlb, gla_t gla,
			  bool (*drop)(const struct tlb_entry *e, gla_t page, gla_t gla))
{
	if (was_executed(&tlb->user, gla))
		salt_renew(vcpu, &tlb->user);
	if (was_executed(&vcpu->mmu->supervisor, gla))
		salt_renew(vcpu, &vcpu->mmu->supervisor);
	if (filter_hit(tlb, gla)) {
		tlb_sweep(tlb, drop, gla);
		return;
	}
	unsigned index = tlb_index(gla);
	for (unsigned view = 0; view < VIEW_COUNT; view++) {
		struct tlb_entry *e = &tlb->entry[view][index];
		gla_t page;
		if (entry_page(e, index, &page) && drop(e, page, gla))
			entry_invalidate(e, index);
	}
}

static void tlb_flush(struct vcpu *vcpu, struct tlb *tlb, bool (*drop)(const struct tlb_entry *e, gla_t page, gla_t gla))
{
	struct mmu *mmu = vcpu->mmu;
	salt_renew(vcpu, &tlb->user);
	if (drop == is_any || mmu->supervisor_local)
		salt_renew(vcpu, &mmu->supervisor);
	tlb_sweep(tlb, drop, 0);
}

static void sweep_all(struct vcpu *vcpu, bool (*drop)(const struct tlb_entry *e, gla_t page, gla_t gla))
{
	struct mmu *mmu = vcpu->mmu;
	mmu->flushes++;
	for (unsigned i = 0; i < mmu->context_used; i++)
		tlb_flush(vcpu, mmu->context[i], drop);
}

void mmu_flush_all(struct vcpu *vcpu)
{
	sweep_all(vcpu, is_any);
}

void mmu_flush_nonglobal(struct vcpu *vcpu)
{
	vcpu->mmu->flushes++;
	tlb_flush(vcpu, vcpu->mmu->current, is_nonglobal);
}

void mmu_flush_page(struct vcpu *vcpu, gla_t gla)
{
	struct mmu *mmu = vcpu->mmu;
	for (unsigned i = 0; i < mmu->context_used; i++)
		tlb_drop_page(vcpu, mmu->context[i], gla, mmu->context[i] == mmu->current ? is_of_page : is_global_of_page);
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
		if (tlb)
			tlb_drop_page(vcpu, tlb, gla, is_nonglobal_of_page);
		break;
	case INVPCID_CONTEXT:
		vcpu->mmu->flushes++;
		if (tlb)
			tlb_flush(vcpu, tlb, is_nonglobal);
		break;
	case INVPCID_ALL_GLOBAL:
		sweep_all(vcpu, is_any);
		break;
	case INVPCID_ALL:
		sweep_all(vcpu, is_nonglobal);
		break;
	}
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
	salt_renew(vcpu, &mmu->context[taken]->user);
	tlb_sweep(mmu->context[taken], is_any, 0);
	return taken;
}

void mmu_load_cr3(struct vcpu *vcpu, bool noflush)
{
	struct mmu *mmu = vcpu->mmu;
	u16 pcid = (vcpu->cr4 & CR4_PCIDE) ? vcpu->cr3 & CR3_PCID_MASK : 0;
	struct tlb *tlb = context_find(mmu, pcid);
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
	return walk->dirty && !slot->readonly && (!slot->log_dirty || (flags & PAGE_DIRTY));
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

struct tlb_entry *tlb_fill(struct vcpu *vcpu, enum tlb_view view, gla_t gla, const struct walk *walk,
			   struct ram_slot *slot)
{
	struct tlb *tlb = vcpu->mmu->current;
	unsigned index = tlb_index(gla);
	gla_t page = gla & PAGE_MASK;
	u64 number = (walk->gpa - slot->base) >> PAGE_SHIFT;
	u8 *flags = &slot->flags[number];
	bool write = walk_permits(vcpu, walk, view, ACCESS_WRITE) && store_needs_nothing(walk, slot, *flags) &&
		     may_store_to_code(vcpu->ram, flags);
	u64 none = tlb_no_tag(index);

	tlb->entry[view][index] = (struct tlb_entry){
		.read = walk_permits(vcpu, walk, view, ACCESS_READ) ? page : none,
		.write = write ? page : none,
		.exec = walk_permits(vcpu, walk, view, ACCESS_EXEC) ? page : none,
		.host = slot->hva + (walk->gpa - slot->base),
		.gpa = walk->gpa,
		.flags = flags,
		.generation = &slot->generation[number],
		.global = walk->global,
		.page_shift = walk->page_shift,
	};
	tlb->used[view][index / 64] |= BIT(index % 64);
	filter_add(tlb, gla, walk->page_shift);
	return &tlb->entry[view][index];
}
