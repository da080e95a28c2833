/* What the back ends ask of the guest's own paging. */
#ifndef NADIR_ENGINE_HW_GUEST_H
#define NADIR_ENGINE_HW_GUEST_H

#include "engine/hw/table.h"
#include "mmu/walk.h"

/* Take what was invalidated; false: nothing. */
bool hw_guest_invalid(struct vcpu *vcpu, struct invalid *invalid);

/* A page of the guest as a shadow is to have it. */
struct hw_guest_page {
	struct walk walk;
	struct hw_page page; /* the host's, no larger than the guest's */
	unsigned rights; /* HW_WRITE... */
};

/* What the guest's tables say to a page fault in a shadow: A and D are set as by hardware. RETRY: *out is what it may be given. */
enum hw_fault hw_guest_fault(struct vcpu *vcpu, gla_t gla, u32 error, struct hw_guest_page *out);

/* What a shadow needs of control registers.
 *
 * CR4.SMEP and SMAP are the guest's own while its paging is on, and pages have the guest's U: EFLAGS.AC changes without anybody's knowledge, so that SMAP
 * cannot be folded into rights. A guest has these features only on a CPU that has them. CR0.WP is always set; a guest without it gets its rights by
 * hw_guest_fault. 5-level paging cannot be had, and PCIDs are not used, though a guest may believe so. */
void hw_guest_control(const struct vcpu *vcpu, struct hw_control *control);

/* The bits of registers that rights in a shadow depend on, and which format it has; when they change, all of it goes. */
struct hw_guest_mode {
	u64 cr0, cr4, efer;
	u32 layout; /* of vcpu->ram */
};
/* Whether it changed since *mode was noted; *mode is what it is now. */
bool hw_guest_mode_changed(const struct vcpu *vcpu, struct hw_guest_mode *mode);

#endif
