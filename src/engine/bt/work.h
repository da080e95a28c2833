/* A block while it is being translated, and the parts of the translator that work on it. */
#ifndef NADIR_ENGINE_BT_WORK_H
#define NADIR_ENGINE_BT_WORK_H

#include "engine/bt/emit.h"
#include "engine/bt/state.h"

/* Where the status flags are before an instruction: in the host, in flags_image, or in both. Where none is needed (`needed`), it may be a lie. */
enum flags_place { FLAGS_HOST, FLAGS_SAVED, FLAGS_BOTH };

/* Where those who jump to code within the page put the flags. Which it is can be told from the bytes there alone (entry_at). */
enum entry {
	ENTRY_HOST,
	ENTRY_SAVED, /* what comes first is a check, which would save them */
	ENTRY_DEAD, /* wherever they are: they are overwritten before anything can look */
};

/* What is left of the instruction that made the flags in the host (flags.c). */
struct flags_source {
	bool valid;
	u8 kind, log_size; /* of a recipe */
	u8 a, b; /* host registers; NO_REGISTER: any value does for a, and b is the constant */
	s32 constant;
};

#define STUBS_MAX (BT_INSNS_MAX * 4)
#define CALLOUTS_MAX BT_INSNS_MAX

/* A call-out of the block, and the LEA that names it. */
struct callout_use {
	struct callout callout;
	u8 *field;
};

/* Code out of line: an exit, jumped to from one place. */
struct stub {
	u8 *jump; /* rel32 field of the jump to it */
	u8 *jump_too; /* of a second one, or NULL */
	struct site site; /* but for retry and next */
	u8 *retry; /* ACCESS: where the code goes on when the access has been looked up */
	u8 entry; /* ACCESS: enum access_entry */
	bool once; /* ACCESS: the code at retry wants nothing but T1 */
	bool ahead; /* ACCESS: of an instruction that comes later */
	u8 delta; /* ACCESS: bytes between what T0 is for and the operand */
	struct place linear; /* ACCESS_AGAIN: the operand */
	u8 next_insn; /* index of the instruction that `next` leads to */
	struct bt_block *target; /* LINK: chained to it from the start */
	bool saved; /* flags are in flags_image */
	bool save; /* LINK: they are not yet, but are to be */
	struct flags_source source; /* LINK: of what, if valid; ACCESS: how to make the flags, if valid */
	u8 callout; /* CALLOUT: its index; it goes on at retry */
};

/* What T0 and T1 say behind a check: T0 is the offset of [base + low] in its page, or more than a page where nothing is known, for code is
 * entered with its address there; T1 is the page's addend. */
struct known {
	bool valid;
	bool write; /* stores may go there, too */
	u8 base; /* host register */
	s32 low;
};

struct translation_work {
	struct vcpu *vcpu;
	struct bt *bt; /* of the vCPU that translates */
	struct bt_cache *cache;
	u8 bytes[PAGE_SIZE]; /* the page: a copy, for another vCPU may be changing it */
	struct bt_page *page;
	gpa_t gpa;
	struct bt_page *second; /* the next page, if the block's one instruction crosses into it */
	u16 key; /* KEY_* */
	enum insn_mode mode;
	struct bt_block *block;
	struct emitter e;
	unsigned offset; /* in the page, of the first instruction */
	unsigned count;
	unsigned branches; /* conditional jumps inside the block */
	struct insn insn[BT_INSNS_MAX];
	struct insn ahead; /* for looking beyond the block */
	u16 at[BT_INSNS_MAX + 1]; /* offset in the page */
	u32 lines; /* of the page that decide what the code is (struct bt_block) */
	u16 needed[BT_INSNS_MAX + 1]; /* status flags that are read, or shown to whom the code leaves to, before they are overwritten */
	u16 live[BT_INSNS_MAX + 1]; /* status flags that are read before they are overwritten, by whom a recipe would not do */
	struct flags_source source;
	bool image; /* what is in flags_image is no recipe */
	bool deferred; /* nothing was stored there yet: the flags can be made of `source` as long as it is true */
	enum entry entry;
	u8 *label[BT_INSNS_MAX + 1]; /* where its code begins */
	bool saved[BT_INSNS_MAX]; /* flags are in flags_image when it runs itself */
	unsigned current; /* instruction being translated */
	enum flags_place place;
	u8 ready; /* classes of extended state known to be ready */
	struct stub stub[STUBS_MAX];
	unsigned stubs;
	struct callout_use callout[CALLOUTS_MAX];
	unsigned callouts;
	struct known known;
	bool ahead_of_flags; /* the check being written is one for an instruction that comes later */
	u8 proven; /* the instruction whose operand was checked so; 0: none */
	const u8 *code_end; /* where its code ends, behind which the prepared operations lie */
	bool kept; /* the current instruction has left T0 and T1 as they were, or as emit_access made them */
};

/* The lines of the page that an instruction may lie in. */
static inline u32 work_lines(unsigned offset)
{
	unsigned last = MIN(offset + INSN_LENGTH_MAX - 1u, (unsigned)PAGE_SIZE - 1);
	return 1u << offset / BT_LINE_SIZE | 1u << last / BT_LINE_SIZE;
}

static inline const struct insn *work_insn(const struct translation_work *w)
{
	return &w->insn[w->current];
}

/* Offset in the page of the next instruction; PAGE_SIZE where the page ends. */
static inline unsigned work_next(const struct translation_work *w)
{
	return w->at[w->current + 1];
}

/* Whether flags_image holds the flags. */
static inline bool work_saved(const struct translation_work *w)
{
	return w->place != FLAGS_HOST;
}

static inline bool work_divides(const struct insn *insn)
{
	return insn->z.mnemonic == ZYDIS_MNEMONIC_DIV || insn->z.mnemonic == ZYDIS_MNEMONIC_IDIV;
}

/* ---- flags.c ---- */

/* Have the flags in flags_image, too; without readers, which are flags, perhaps as a recipe. What T0 and T1 know stays true. */
void work_save_flags(struct translation_work *w, u16 readers);
/* The current instruction has been written: is w->source still true? */
void flags_follow(struct translation_work *w);
void emit_recipe(struct emitter *e, const struct flags_source *s);
/* In front of the current instruction: store the recipe that was deferred if the instruction would spoil it. */
void flags_look_ahead(struct translation_work *w);
/* Store the recipe that was deferred. */
void flags_flush(struct translation_work *w);
/* The recipe as it stands in a site, without its registers. */
u32 flags_recipe(const struct flags_source *s);
/* If flags_image may be a recipe, have an image made of it. Clobbers the flags of the host. */
void emit_complete_flags(struct translation_work *w);

/* ---- access.c ---- */

/* Have the flags in flags_image: what follows may destroy those of the host. */
void work_spill_flags(struct translation_work *w);
/* The same in front of a jump through the jump cache. */
void work_spill_far(struct translation_work *w);
/* Bring the flags into the host, too. Clobbers T1, or `temp`. */
void work_need_flags(struct translation_work *w);
void work_need_flags_by(struct translation_work *w, unsigned temp);
/* The host register that stands for a guest register, or NO_REGISTER if it lives in memory. */
unsigned host_register(unsigned gpr);
/* T0 = the offset of a memory operand in its segment. False: not expressible. Clobbers T1, no flags. */
bool emit_effective_address(struct translation_work *w, const ZydisDecodedOperand *o);
/* How a memory operand is reached. Where it is plain, its place is made of its own registers and T1; T0 is free then. Else its place is
 * T0, and T1 is free. */
struct operand {
	struct place linear; /* if plain: host registers; base may be NO_REGISTER */
	struct place host; /* valid behind the check */
	bool plain;
};
/* The scratch register that is free behind the check. */
static inline unsigned access_free(const struct operand *a)
{
	return a->plain ? T0 : T1;
}
/* Find out how; nothing is written. */
struct operand access_plan(const struct translation_work *w, const ZydisDecodedOperand *o);
struct operand access_plan_at(unsigned base, s32 disp);
/* Write the check; behind it a->host is the operand's memory. Spills the flags, clobbers T0 and T1. `o` is NULL for access_plan_at. False:
 * not expressible. */
bool emit_access(struct translation_work *w, const struct operand *a, const ZydisDecodedOperand *o, unsigned size, bool write);
/* An access's out-of-line code. */
void emit_access_stub(struct translation_work *w, const struct stub *s);
struct operand operand_plan(const struct translation_work *w, const struct insn *insn, const ZydisDecodedOperand *o);

/* ---- known.c ---- */

#define KNOWN_DISTANCE_MAX 255

/* The current instruction has been written: is w->known still true? */
void known_follow(struct translation_work *w);
/* The lowest displacement from a base register that follows, as long as that changes by constants only. *write: whether a store does. */
s32 known_lowest(const struct translation_work *w, unsigned base, s32 disp, bool *write);
/* Before an instruction is written: check an operand behind it now, if its flags would be in the way there. */
void known_look_ahead(struct translation_work *w);
/* The current instruction's operand was checked early, and T1 is its addend. */
bool known_proven(const struct translation_work *w);
/* The check alone: T0 is the linear address, `retry` the code that computes it again; the place becomes T0. */
void emit_check(struct translation_work *w, unsigned size, bool write, u8 *retry);
/* The same for T0 an offset in a segment. */
void emit_offset_check(struct translation_work *w, unsigned segment, unsigned size, bool write, u8 *retry);
/* Make sure that extended state of the class is ready. Flags may have been spilled. */
void emit_vector_check(struct translation_work *w, u8 class);

/* ---- native.c ---- */

/* Translate an instruction that runs as itself. False: it must be stepped. Nothing has been written then. */
bool emit_native(struct translation_work *w);
/* BT and its family with a register index, which may reach beyond the operand. */
bool emit_bit_insn(struct translation_work *w);
bool emit_lea_insn(struct translation_work *w);

/* ---- control.c ---- */

/* Control transfers and stack operations. False: it must be stepped. */
bool emit_control(struct translation_work *w);
bool emit_stack(struct translation_work *w);
/* PUSH scratch[1], 8 bytes. */
void emit_push_saved(struct translation_work *w);
/* Where a relative branch goes, as an offset from the start of the page. */
s64 relative_target(const struct translation_work *w);
/* Whether a near branch goes where its operand says, without being cut to an unusual size. */
bool branch_fits(const struct translation_work *w, const struct insn *insn);
/* Whether a branch there stays in the page and may be chained. */
bool stays_in_page(const struct translation_work *w, s64 target);
/* Go on at an offset from the start of the page, perhaps outside: behind the instruction. */
void emit_goto(struct translation_work *w, s64 target);
/* The same through the jump cache. */
void emit_far_goto(struct translation_work *w, s64 target);
/* Branch there, having moved RSP. */
void emit_branch(struct translation_work *w, s64 target, s32 moved);
/* A branch to a computed target, T0. Where that is not canonical, or beyond CS, the branch itself faults: what it moved RSP by is taken back
 * then. */
void emit_indirect(struct translation_work *w, s32 moved);
/* The taken side of a conditional jump: `field` is its rel32. Flags are in the host. */
void taken(struct translation_work *w, u8 *field, s64 target);
/* What a direct jump out of the page leaves behind, where its target may be such; not `sequential`: it is a branch, and moved RSP. Keeps flags. */
void note_far(struct translation_work *w, bool sequential, s32 moved);
bool emit_jcc_insn(struct translation_work *w);
bool emit_count_jump(struct translation_work *w);
/* Where the code at an offset of this page wants the flags. */
enum entry entry_at(struct translation_work *w, s64 offset);
/* Whether that code may read flags, so that a recipe does not do. */
u16 live_at(struct translation_work *w, s64 offset);
/* Whether the code of an instruction may be left for C, so that all flags must be right in front of it. */
bool may_leave(const struct insn *insn);

/* ---- narrow.c ---- */

/* Zero-extend the low 16 bits of a host register. */
void emit_cut16(struct emitter *e, unsigned reg);
/* Whether an operand of narrow code is reached as those of 64-bit code are. */
bool narrow_plain(const struct translation_work *w, const struct insn *insn, const ZydisDecodedOperand *o);
/* T0, an offset in a segment, becomes a linear address, or the instruction is stepped. Clobbers T1 and flags. */
void narrow_segment(struct translation_work *w, unsigned segment, unsigned size, bool write);
/* Whether a branch of this operand size is done here. */
bool narrow_branch_fits(const struct translation_work *w, const struct insn *insn);
bool narrow_control(struct translation_work *w);
bool narrow_stack(struct translation_work *w);
/* PUSH the low bytes of scratch[1]. */
void narrow_push_saved(struct translation_work *w, unsigned size);

/* ---- callout.c ---- */

/* A sensitive instruction as a call-out. False: it must be stepped. */
bool emit_callout(struct translation_work *w);
/* The same in parts: prepare the operation, which becomes the last of w->callout; and call one by a stub (bt->callout_*). */
bool callout_prepare(struct translation_work *w);
void emit_callout_to(struct translation_work *w, unsigned callout, const u8 *stub);
/* The prepared operations, behind the block's code. */
void emit_callout_data(struct translation_work *w);

/* ---- system.c ---- */

/* A sensitive instruction inline. False: it is not one of those, nothing has been written. */
bool emit_system(struct translation_work *w);

/* ---- trace.c ---- */

/* Log a block just translated. */
void trace_translated(const struct translation_work *w);

/* ---- translate.c ---- */

/* Instructions that never go on with the next one, or that may change how it must be read. */
bool ends_block(const struct insn *insn);

struct stub *work_stub(struct translation_work *w, enum site_kind kind, u8 *jump);
/* JMP (E9), CALL (E8) or Jcc (80 and condition), to be chained: its rel32 field can be changed at once. */
u8 *work_link(struct translation_work *w, u8 opcode);

#endif
