/* A block while it is being translated for a space. */
#ifndef NADIR_ENGINE_BT_DIRECT_WORK_H
#define NADIR_ENGINE_BT_DIRECT_WORK_H

#include "engine/bt/direct.h"

#define DIRECT_STUBS (DIRECT_INSNS_MAX * 2)
#define DIRECT_QUEUE 64

struct direct_translation {
	struct vcpu *vcpu;
	struct direct_space *s;
	struct emitter e;
	u32 index; /* of the block */
	u64 rip; /* its address */
	struct direct_block *block;
	u32 page[2]; /* index + 1 */
	unsigned count;
	struct insn insn[DIRECT_INSNS_MAX];
	u16 at[DIRECT_INSNS_MAX + 1]; /* offset from rip */
	unsigned current;
	int poll_at; /* the instruction in front of which the block polls, or -1 */
	u8 bytes[2 * INSN_LENGTH_MAX + 2];
	/* Out of line, behind the block: leaves for a site. */
	struct {
		u8 *jump;
		u32 site;
		const struct insn *first; /* done before it leaves, or NULL */
	} stub[DIRECT_STUBS];
	unsigned stubs;
	/* Constants behind the block, and the displacements that lead to them. */
	struct {
		u8 *field;
		u64 value;
	} constant[DIRECT_INSNS_MAX];
	unsigned constants;
	/* Where to translate next. */
	u64 queue[DIRECT_QUEUE];
	unsigned queued;
	u32 link[DIRECT_QUEUE * DIRECT_INSNS_MAX]; /* sites of links written */
	unsigned links;
	bool failed; /* no memory */
};

static inline u64 direct_next(const struct direct_translation *w)
{
	return w->rip + w->at[w->current + 1];
}

/* A new site for the current instruction; 0 with w->failed if there is no memory. */
u32 direct_site(struct direct_translation *w, enum direct_site_kind kind);
/* From here on, a fault belongs to the current instruction. */
void direct_note(struct direct_translation *w, unsigned saved);
/* The current instruction is step's, and the block ends. */
void direct_emit_step(struct direct_translation *w);
/* The rel32 at `field` leads to the code of an address of the guest. */
void direct_link(struct direct_translation *w, u8 *field, u64 target);
void direct_goto(struct direct_translation *w, u64 target);

/* ---- direct_insn.c ---- */

/* Write the current instruction. False: it is step's. *ends: nothing follows it. */
bool direct_emit_insn(struct direct_translation *w, bool *ends);

#endif
