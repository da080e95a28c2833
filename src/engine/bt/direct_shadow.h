/* What is mapped in a space, as direct_memory.c keeps it and direct_executable.c changes it: a copy of the guest's page tables as far as
 * it was needed. A change of it goes to the host with a run (struct run); until that is flushed the copy is ahead of the host. */
#ifndef NADIR_ENGINE_BT_DIRECT_SHADOW_H
#define NADIR_ENGINE_BT_DIRECT_SHADOW_H

#include "engine/bt/direct.h"

#define REGION_SHIFT 21
#define REGION_PAGES USER_PAGES_MAX

#define SHADOW_MAPPED BIT(0)
#define SHADOW_WRITE BIT(1)
#define SHADOW_EXEC BIT(2) /* code in place: it may be run as it is as long as it is not written */
#define SHADOW_SENSITIVE BIT(3) /* it was looked at, and may not */
#define SHADOW_KNOWN (SHADOW_EXEC | SHADOW_SENSITIVE)

#define BREAK_AFTER 8 /* crossings to a page with sensitive instructions; more once there were no break points left */

struct looked {
	u32 seen; /* generation of what was looked at */
	u16 crossed; /* how often code in place went there although it may not be run so */
	u8 churn; /* how often it was written since */
	bool hopeless; /* break points will not help */
};

struct shadow_region {
	struct shadow_region *next; /* in its hash chain */
	u64 number; /* linear address >> REGION_SHIFT */
	u32 fills;
	bool large; /* it had pages larger than 4 KBytes */
	u64 page[REGION_PAGES]; /* guest physical address, SHADOW_* */
	struct looked *place; /* of each page, if there is code in place */
};

/* Pages in a row that are to be mapped alike, or unmapped (hva NULL), not told to the host yet. */
struct run {
	gla_t gla;
	u8 *hva;
	u64 size;
	enum host_space_access access;
};

/* The region of that number; made if need be. NULL: there is none, or no memory for it. */
struct shadow_region *shadow_region_at(struct direct_space *s, u64 number, bool make);
/* What is kept of the page at gla, or NULL. */
u64 *shadow_at(struct direct_space *s, gla_t gla);
/* How the host is to map what is kept so. */
enum host_space_access shadow_access(u64 shadow);
/* Whether the host can map it there. */
bool shadow_mappable(const struct vcpu *vcpu, gla_t gla, const u8 *hva);
/* One more page to be mapped or unmapped, told to the host with those before if it does not go on from them. What the host refuses sets
 * s->full. */
void shadow_add(struct vcpu *vcpu, struct direct_space *s, struct run *run, gla_t gla, u8 *hva, enum host_space_access access);
void shadow_flush(struct vcpu *vcpu, struct direct_space *s, struct run *run);
/* The host has no room for more mappings, or none counts any more: begin anew. */
void shadow_unmap_all(struct direct_space *s);
/* What was found in the page at gla depended on the page before, which changed. */
void shadow_forget_place(struct vcpu *vcpu, struct direct_space *s, struct run *run, gla_t gla);

#endif
