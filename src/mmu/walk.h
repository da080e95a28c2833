/* The walker of the guest's page tables, for the parts of the MMU that need its result. */
#ifndef NADIR_MMU_WALK_H
#define NADIR_MMU_WALK_H

#include "mmu/mmu.h"

/* What the paging structures say about one linear address. */
struct walk {
	gpa_t gpa;                       /* of the 4-KByte page, within a large page too */
	u8 page_shift;                   /* size of the page as the guest mapped it */
	bool writable, user, no_execute; /* combined over all levels */
	bool dirty, global;
	bool any;  /* paging is off: everything is allowed */
	u32 error; /* error code where the walk failed */
};

/* Walk for an access of `kind` (ACCESS_READ, ACCESS_WRITE, ACCESS_EXEC) in a view, checking permissions, and set A and
 * D. False: out->error is the page fault's error code, nothing else in out is valid. */
bool walk_page(struct vcpu *vcpu, gla_t gla, enum tlb_view view, unsigned kind, struct walk *out);

/* Walk for `count` pages from gla on, all in one 2-MByte region, without setting anything: 4-level or 5-level paging. Where out[i].error is not 0, a
 * page is not mapped, or its A is clear. */
void walk_pages(struct vcpu *vcpu, gla_t gla, unsigned count, struct walk *out);

/* Walk without permission checks and without setting A or D; false: not mapped, and neither is the rest of the naturally aligned region of
 * BIT(out->page_shift) bytes. */
bool walk_inspect(struct vcpu *vcpu, gla_t gla, struct walk *out);

/* The entries that a walk reads, as they are: a naturally aligned part of the linear addresses hangs on each. */
#define WALK_LEVELS_MAX 5
struct walk_trace {
	unsigned levels;
	u8 entry_size, index_bits;
	struct {
		gpa_t gpa;
		u64 value;
		u8 shift; /* an entry stands for BIT(shift) bytes */
	} entry[WALK_LEVELS_MAX];
};
/* Without setting anything, with paging on; false: not mapped. */
bool walk_trace(struct vcpu *vcpu, gla_t gla, struct walk_trace *out);

/* Whether a page may be used so. Intel SDM volume 3, "Determination of Access Rights". */
bool walk_permits(const struct vcpu *vcpu, const struct walk *walk, enum tlb_view view, unsigned kind);

#endif
