/* Pages that hold code lose their write tags, on every vCPU, before their bytes are read: a store to them then takes a slow path and is
 * noticed. A vCPU that runs drops its write tags when asked and says so; one that does not run drops them when it starts. */
#include "host/port.h"
#include "mmu/mmu.h"

/* Drop the write tags of one page in a table, or of all (NULL). */
static void table_drop(struct tlb_table *t, const u8 *page)
{
	for (unsigned list = 0; list < 2; list++) {
		for (unsigned i = 0; i < t->list[list].count; i++) {
			unsigned index = t->list[list].index[i];
			if (page ? t->write[index] + t->addend[index] == (u64)(uintptr_t)page : t->write[index] != tlb_no_tag(index))
				t->write[index] = tlb_no_tag(index);
		}
	}
}

static void drop_write_tags(struct mmu *mmu, const u8 *page)
{
	mmu->unwritable[mmu->unwritables++ % UNWRITABLE_LOG] = page;
	for (unsigned i = 0; i < mmu->context_used; i++)
		for (unsigned view = 0; view < VIEW_COUNT; view++)
			table_drop(&mmu->context[i]->table[view], page);
}

void mmu_serve(struct vcpu *vcpu)
{
	struct mmu *mmu = vcpu->mmu;
	u32 wanted = __atomic_load_n(&mmu->drop_wanted, __ATOMIC_SEQ_CST);
	if (likely(wanted == mmu->drop_done))
		return;
	drop_write_tags(mmu, NULL);
	__atomic_store_n(&mmu->drop_done, wanted, __ATOMIC_SEQ_CST);
}

void mmu_drop_writes(struct vcpu *vcpu)
{
	drop_write_tags(vcpu->mmu, NULL);
}

void mmu_set_running(struct vcpu *vcpu, bool running)
{
	__atomic_store_n(&vcpu->mmu->running, running, __ATOMIC_SEQ_CST);
	mmu_serve(vcpu);
}

static void ask_and_wait(struct vcpu *vcpu, struct vcpu *other)
{
	struct mmu *mmu = other->mmu;
	u32 wanted = __atomic_add_fetch(&mmu->drop_wanted, 1, __ATOMIC_SEQ_CST);
	vcpu_set_pending(other, PENDING_CODE);
	while (__atomic_load_n(&mmu->running, __ATOMIC_SEQ_CST) &&
	       (s32)(__atomic_load_n(&mmu->drop_done, __ATOMIC_SEQ_CST) - wanted) < 0) {
		mmu_serve(vcpu);
		host_yield();
	}
}

/* A store of another vCPU by its slow path may wait in its store buffer while that vCPU has already found the flag clear: the barrier makes
 * sure that it is in memory before the bytes are read. */
void mmu_protect_code(struct vcpu *vcpu, const struct translation *page)
{
	struct ram *ram = vcpu->ram;
	/* STORED stays until the last vCPU has dropped its tag. */
	if (likely((__atomic_load_n(page->flags, __ATOMIC_SEQ_CST) & (PAGE_CODE | PAGE_STORED)) == PAGE_CODE))
		return;
	if (!ram->protect_code) {
		__atomic_fetch_or(page->flags, PAGE_CODE, __ATOMIC_SEQ_CST);
		host_barrier_all();
		return;
	}
	while (__atomic_exchange_n(&ram->protecting, 1, __ATOMIC_SEQ_CST)) {
		mmu_serve(vcpu);
		host_yield();
	}
	u8 old = __atomic_fetch_or(page->flags, PAGE_CODE, __ATOMIC_SEQ_CST);
	if (old & PAGE_STORED) {
		drop_write_tags(vcpu->mmu, page->hva - (page->gpa & ~PAGE_MASK));
		for (unsigned i = 0; i < ram->users; i++)
			if (ram->user[i] != vcpu)
				ask_and_wait(vcpu, ram->user[i]);
		/* If the page was written meanwhile, it holds no code any more, and tags may have been given out again. */
		old = __atomic_load_n(page->flags, __ATOMIC_SEQ_CST);
		while ((old & PAGE_CODE) && !__atomic_compare_exchange_n(page->flags, &old, old & (u8)~PAGE_STORED, false,
									 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			;
	}
	host_barrier_all();
	__atomic_store_n(&ram->protecting, 0, __ATOMIC_SEQ_CST);
}
