/* Filling the software TLB: between access.c, which misses, and tlb.c, which owns the tables. */
#ifndef NADIR_MMU_TLB_H
#define NADIR_MMU_TLB_H

#include "mmu/walk.h"

/* Enter the page of a successful walk into the view's table; slot is the RAM that holds it. Tags are valid for what the
 * page allows at once: the write tag of a page whose D, or whose logged dirty flag, is clear stays invalid. */
void tlb_fill(struct vcpu *vcpu, enum tlb_view view, gla_t gla, const struct walk *walk,
	      struct ram_slot *slot);
/* Whether stores to the page of a walk that allows them need nothing: it is dirty, and holds no code. It counts as written from then on. */
bool tlb_may_store(const struct vcpu *vcpu, const struct walk *walk, const struct ram_slot *slot, u8 *flags);

#endif
