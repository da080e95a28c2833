/* From the guest's own page tables to what a shadow may hold: never more than a TLB of the real CPU would. Intel SDM volume 3, "Access Rights", "Accessed
 * and Dirty Flags", "Details of TLB Use". */
#include "engine/hw/guest.h"

bool hw_guest_invalid(struct vcpu *vcpu, struct invalid *invalid)
{
	struct invalid *now = &vcpu->mmu->invalid;
	if (likely(!now->all && !now->local && !now->pages))
		return false;
	if (invalid)
		*invalid = *now;
	now->all = now->local = false;
	now->pages = 0;
	return true;
}

void hw_guest_control(const struct vcpu *vcpu, struct hw_control *c)
{
	bool paging = vcpu->cr0 & CR0_PG;
	*c = (struct hw_control){ 0 };
	c->cr0.own = c->cr0.value = CR0_PG | CR0_WP;
	c->cr4.value = CR4_PAE | CR4_PGE;
	c->cr4.own = c->cr4.value | CR4_LA57 | CR4_PCIDE | CR4_PKE | (paging ? 0 : CR4_SMEP | CR4_SMAP);
	c->efer.own = EFER_NXE | EFER_LME | EFER_LMA;
	c->efer.value = EFER_NXE | (vcpu_long_mode(vcpu) ? EFER_LME | EFER_LMA : 0);
}

bool hw_guest_mode_changed(const struct vcpu *vcpu, struct hw_guest_mode *mode)
{
	struct hw_guest_mode now = {
		.cr0 = vcpu->cr0 & (CR0_PG | CR0_WP),
		.cr4 = vcpu->cr4 & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP | CR4_SMAP | CR4_LA57 | CR4_PCIDE),
		.efer = vcpu->efer & (EFER_LMA | EFER_NXE),
		.layout = __atomic_load_n(&vcpu->ram->layout, __ATOMIC_SEQ_CST),
	};
	bool same = now.cr0 == mode->cr0 && now.cr4 == mode->cr4 && now.efer == mode->efer && now.layout == mode->layout;
	*mode = now;
	return !same;
}

/* Who accesses. A supervisor access while CPL is 3 is implicit. Other implicit ones, with AC set, cannot be told from explicit ones: if what they
 * find is there already, step decides. */
static enum tlb_view view_of(const struct vcpu *vcpu, u32 error)
{
	if (error & PF_US)
		return VIEW_USER;
	if (!(vcpu->cr4 & CR4_SMAP) || (vcpu->cpl < 3 && (vcpu->rflags & RFLAGS_AC)))
		return VIEW_SUPERVISOR;
	return VIEW_SUPERVISOR_SMAP;
}

/* D must be set in the guest's entry before a page is writable. Without CR0.WP a supervisor writes to pages of its own as it likes. */
static unsigned rights_of(const struct vcpu *vcpu, const struct walk *w, bool write)
{
	unsigned rights = (w->any || w->user ? HW_USER : 0) | (w->no_execute ? 0 : HW_EXECUTE) | (w->global ? HW_GLOBAL : 0);
	bool writable = w->any || w->writable || (!w->user && !(vcpu->cr0 & CR0_WP));
	return rights | (write && writable && w->dirty ? HW_WRITE : 0);
}

/* Without CR0.WP a supervisor writes to a user's read-only page: the page is the supervisor's then, until the user comes back. That would undo SMEP
 * and SMAP; with these step does it. */
static bool write_as_supervisor(const struct vcpu *vcpu, unsigned *rights)
{
	if (vcpu->cr4 & (CR4_SMEP | CR4_SMAP))
		return false;
	*rights = (*rights & ~(unsigned)HW_USER) | HW_WRITE;
	return true;
}

enum hw_fault hw_guest_fault(struct vcpu *vcpu, gla_t gla, u32 error, struct hw_guest_page *out)
{
	unsigned kind = (error & PF_WR) ? ACCESS_WRITE : (error & PF_ID) ? ACCESS_EXEC : ACCESS_READ;
	struct walk *w = &out->walk;
	if (!walk_page(vcpu, gla, view_of(vcpu, error), kind, w)) {
		vcpu->fault = (struct guest_fault){ .vector = VEC_PF, .has_error = true, .error = w->error, .payload = gla };
		return HW_FAULT_GUEST;
	}
	if (w->any)
		w->page_shift = 30; /* without paging, one is as good as another */
	struct ram_slot *slot = ram_find(vcpu->ram, w->gpa);
	if (!slot)
		return HW_FAULT_DEVICE;
	if (kind == ACCESS_WRITE && ram_readonly(slot, w->gpa))
		return HW_FAULT_EMULATE;
	if (kind == ACCESS_WRITE && slot->log_dirty)
		__atomic_fetch_or(&slot->flags[(w->gpa - slot->base) >> PAGE_SHIFT], PAGE_DIRTY, __ATOMIC_SEQ_CST);
	if (!hw_page_find(slot, w->gpa, w->page_shift >= hw_shift(1), &out->page))
		return HW_FAULT_EMULATE;
	out->rights = rights_of(vcpu, w, out->page.write);
	if (kind != ACCESS_WRITE || (out->rights & HW_WRITE))
		return HW_FAULT_RETRY;
	/* D stays clear if the table is in ROM. */
	if (!w->dirty)
		return HW_FAULT_EMULATE;
	if (!out->page.write)
		return HW_FAULT_STORE;
	return write_as_supervisor(vcpu, &out->rights) ? HW_FAULT_RETRY : HW_FAULT_EMULATE;
}
