/* The user's pages for spaces: what CPL 3 may do with a page at once, by the rules of the software TLB's tags. */
#include "arch/paging.h"
#include "mmu/tlb.h"

static void take(struct vcpu *vcpu, const struct walk *walk, struct user_page *page)
{
	*page = (struct user_page){ .gpa = walk->gpa, .page_shift = walk->page_shift };
	if (walk->error || !walk_permits(vcpu, walk, VIEW_USER, ACCESS_READ))
		return;
	struct ram_slot *slot = ram_find(vcpu->ram, walk->gpa);
	if (!slot || slot->readonly)
		return;
	u64 offset = walk->gpa - slot->base;
	page->hva = slot->hva + offset;
	page->flags = &slot->flags[offset >> PAGE_SHIFT];
	page->generation = &slot->generation[offset >> PAGE_SHIFT];
	page->exec = walk_permits(vcpu, walk, VIEW_USER, ACCESS_EXEC);
	page->write = walk_permits(vcpu, walk, VIEW_USER, ACCESS_WRITE) &&
		      tlb_may_store(vcpu, walk, slot, &slot->flags[offset >> PAGE_SHIFT]);
	vcpu->mmu->current->stale.global |= walk->global;
}

void mmu_user_pages(struct vcpu *vcpu, gla_t gla, unsigned count, struct user_page *out)
{
	struct walk walk[USER_PAGES_MAX];
	walk_pages(vcpu, gla, count, walk);
	for (unsigned i = 0; i < count; i++)
		take(vcpu, &walk[i], &out[i]);
}

bool mmu_user_executes(struct vcpu *vcpu, gla_t gla, gpa_t *gpa, u8 *page_shift)
{
	struct walk walk;
	if (!walk_inspect(vcpu, gla, &walk) || !walk_permits(vcpu, &walk, VIEW_USER, ACCESS_EXEC))
		return false;
	*gpa = walk.gpa;
	*page_shift = walk.page_shift;
	return true;
}

/* The entries of the two upper levels; what is present there counts, whatever else it says. */
bool mmu_maps_gigabyte(struct vcpu *vcpu, gla_t gla)
{
	u64 entry = vcpu->cr3;
	for (unsigned shift = 39; shift >= 30; shift -= 9) {
		const u8 *p = ram_pointer(vcpu->ram, (entry & PTE_ADDR) + (gla >> shift & 511) * 8, 8);
		if (!p)
			return true;
		entry = __atomic_load_n((const u64 *)(const void *)p, __ATOMIC_RELAXED);
		if (!(entry & PTE_P))
			return false;
	}
	return true;
}
