/* The binary translator's state for a vCPU, and how its parts work together.
 *
 * A block of guest code, of any mode, becomes a block of host code. Guest registers are host registers:
 *
 *   RAX RCX RDX RBX RBP RSI RDI R12-R15   themselves
 *   RSP                                   host R9
 *   R8 R9 R10 R11                         in struct vcpu, loaded where used
 *   host R8 (TLB_BASE)                    vcpu->tlb; loaded anew by whatever enters translated code or comes back to it from C
 *   host R10, R11 (T0, T1)                scratch; host RSP is the engine's own stack; GS is struct vcpu
 *
 * Status flags are the host's. In front of a check, which destroys them, LAHF and SETO put them into flags_image. Where no instruction
 * will read them, a fault's frame still shows them: there it is enough to keep what they can be made of (flags.c). The translator knows
 * at every instruction where they are (enum flags_place). Other flags are in vcpu->rflags. Extended state is live in the real registers
 * as in the step engine (engine/step/state.h).
 *
 * A guest RIP is code_base plus a constant, so that a block runs wherever its page is mapped. Blocks are found by guest physical
 * address; jumps within a page are chained; all others go through the jump cache, indexed by a hash of RIP:
 *
 *   tail:      T0 = target; rip = T0; T1 = its slot; jmp [code of the slot]       flags are in flags_image
 *   prologue:  rip + salt + pending != tag of the slot -> miss; code_base; flags back if needed
 *   body:      what chained jumps and C jump to; code_base is right
 *
 * An instruction that crosses into the next page is a block of its own. Which page comes next only a RIP can tell, so that chained jumps
 * to it go through the jump cache too; its prologue compares the second page's generation.
 *
 * 16- and 32-bit code (narrow.c, modes.c) runs on the same registers, whose upper halves are of no account to it; segments that are not
 * flat are checked inline. CS bases are told apart in the jump cache by vcpu->code_number, which prologues add to rip together with the
 * salt.
 *
 * A CALL pushes a frame on the host's stack: the RIP it returns to, and by a host CALL the code there. A RET that finds its RIP in the
 * frame on top is a host RET, which the real CPU predicts; others pop the frame and go through the jump cache. Frames are true as long as
 * the salt and the code stay: whatever changes those leaves translated code, or goes on by the jump cache, and forgets all frames
 * (stubs.c). A RET looks for nothing pending, so each CALL does.
 *
 * What the translator does not do itself is done by engine/step. Sensitive instructions are call-outs (callout.c): the operation is
 * prepared when the block is made, a stub puts the registers into struct vcpu and calls it, and translated code goes on behind it, or by
 * the jump cache at another RIP. A TLB miss calls C too, which only fills the TLB (access.c, stubs.c), or compares the access with watch
 * points (vcpu/debug.h). Everything else leaves by CALLing a leave stub, whose return address is the site that says why, and C enters
 * translated code again (run.c). */
#ifndef NADIR_ENGINE_BT_STATE_H
#define NADIR_ENGINE_BT_STATE_H

#include "engine/bt/cache.h"
#include "engine/step/state.h"

#define T0 R10
#define T1 R11
#define TLB_BASE R8
#define HOST_SP R9 /* the host register that holds the guest's RSP */

/* Of the last branch to a computed target: its offset in the page, and above 12 bits how far it moved RSP. */
#define BRANCH_SLOT ((u32)(offsetof(struct vcpu, scratch) + 2 * sizeof(u64)))
#define NO_BRANCH 0xffffffffu /* sign-extended: it was no branch, but the end of the page */

/* What is said at a site, after the CALL of a leave stub. Addresses are relative to the site. */
enum site_kind {
	SITE_ACCESS, /* only counted: a struct access_site */
	SITE_STEP, /* the instruction is step's */
	SITE_LINK, /* a jump within the page, not chained yet: `offset` is the target, `retry` the place of its block, `detail` which link */
	SITE_MISS, /* rip is not in the jump cache */
	SITE_PENDING, /* something is pending before the instruction; the next `detail` are stepped first, since the flags are not right before */
	SITE_VECTOR, /* extended state of class `detail` is not ready; retry */
	SITE_TRAP, /* the host's trap handler redirected here */
	SITE_CALLOUT, /* a call-out ended in something that the loop must look at; the state is complete */
	SITE_KINDS
};

struct site {
	u8 kind;
	u8 detail; /* VECTOR: enum xstate_class; LINK: index; PENDING: a number of instructions */
	u8 length; /* of the instruction */
	u8 guest_kind; /* enum insn_kind */
	u16 offset; /* of the instruction in its page */
	s32 retry, next; /* 0: nowhere */
} __attribute__((packed));

/* The site of an access that has to be looked up out of line, behind the CALL of an access stub. It begins with the jump back; if the TLB
 * does not have the page and cannot be given it, the rest says what is to be stepped. */
struct access_site {
	u8 jump; /* SITE_JUMP, which is no enum site_kind */
	s32 retry;
	u8 detail; /* bytes, with SITE_WRITE */
	u8 delta; /* T0 stands for an address so many bytes below (work.h, struct known) */
	u8 length; /* of the instruction; 0: it is not that of the access, but one that overwrites flags which are not kept */
	u8 guest_kind; /* enum insn_kind */
	u16 offset; /* of the instruction in its page */
	s16 next; /* what comes behind the instruction, from the site; 0: nothing */
	bool once; /* the code at `retry` wants nothing but T1 */
	u32 recipe; /* how to make the flags of registers `a` and `b`, which are host numbers; 0: they are in flags_image */
	u8 a, b;
} __attribute__((packed));

#define SITE_WRITE 0x80
#define SITE_JUMP 0xe9

/* A combination of mode and place of CS that was run in. */
struct code_place {
	u32 base, limit; /* of CS */
	u16 key; /* KEY_* */
	u16 number; /* vcpu->code_number; 0: free */
};

#define BT_PLACES 16

enum bt_counter {
	COUNT_ENTER, COUNT_TRANSLATED, COUNT_INSNS, COUNT_BYTES, COUNT_DROPPED, COUNT_REVIVED, COUNT_EVICTED, COUNT_INTERPRETED, COUNT_FILLED,
	COUNT_STEPPED_ACCESS, COUNT_BOUNDARY, COUNT_CALLOUT_SITES, COUNT_INLINE_SITES, COUNT_MISSES,
	COUNTERS
};

struct direct;

#define NOWHERE (~0ull)

/* Of one vCPU: its thread's, but for what is said to be atomic. */
struct bt {
	struct bt_cache *cache;
	u64 logged; /* position in ram->code_log up to which it has left translated code */
	u64 entered; /* cache->epoch when translated code was entered: while that is so, code that ran may be returned to; or NOWHERE */
	u64 swept; /* cache->sweep, as far as it was obeyed; atomic */
	bool changed; /* the vCPU's state was, from outside: what was remembered of it is wrong */
	u16 trap_offset; /* of the instruction that trapped */
	u16 key; /* of code in the mode that the vCPU is in, but for KEY_APART */
	u16 numbers; /* given to places */
	struct code_place place[BT_PLACES];
	struct exit *exit; /* of the run */
	bool stop; /* the run ends with *exit */
	u64 count[COUNTERS];
	bool step_next; /* the next instruction must be stepped */
	struct lockstep *lockstep; /* what translated code does is compared with step (lockstep.h), or NULL */
	struct direct *direct; /* user code in spaces (direct.h), or NULL */
	u64 site_count[SITE_KINDS];
	u64 stepped[KIND_COUNT]; /* instructions done by step, by kind */
	u64 called[KIND_COUNT]; /* instructions done by call-outs */
};

/* A sensitive instruction, prepared when it was translated: a block holds it beside its code. */
struct callout {
	struct op op;
	u16 offset; /* of the instruction in its page */
	bool transfers; /* never goes on behind itself */
};

/* What the call-out stub does next. */
enum callout_next { CALLOUT_RETURN, CALLOUT_DISPATCH /* to RIP, by the jump cache */, CALLOUT_LEAVE };

static inline struct bt *bt_of(struct vcpu *vcpu)
{
	return step_of(vcpu)->translator;
}

/* Pending bits that cannot be acted upon now. */
static inline u32 pending_not_yet(const struct vcpu *vcpu)
{
	return (vcpu->rflags & RFLAGS_IF ? 0 : PENDING_INTERRUPT) | (vcpu->nmi_blocked ? PENDING_NMI : 0);
}

/* ---- flags.c ---- */

/* What flags_image is beside an image: how to make the flags of operands. */
#define FLAGS_RECIPE BIT(7) /* of an image the lowest byte is 0 or 1 */
#define RECIPE_KIND_SHIFT 8
#define RECIPE_SIZE_SHIFT 10 /* log2 of the operands' bytes */
#define RECIPE_CONSTANT BIT(12) /* the high 16 bits are the second operand, sign-extended; else it is flags_operand[1] */
#define RECIPE_CONSTANT_SHIFT 16

enum recipe_kind {
	RECIPE_TEST, /* of a & b */
	RECIPE_CMP, /* of a - b */
	RECIPE_ADDED, /* of an addition of b whose sum is a */
	RECIPE_SUBTRACTED, /* of a subtraction of b whose difference is a */
};

/* Have at the site of an access what a recipe there needs in flags_image and flags_operand. */
void flags_from_site(struct vcpu *vcpu, const struct access_site *site);
/* Make flags_image an image. Called by translated code, too. */
void flags_complete(struct vcpu *vcpu);

/* Status flags between vcpu->rflags and flags_image. */
static inline void flags_to_image(struct vcpu *vcpu)
{
	u32 low = (u32)(vcpu->rflags & 0xff);
	vcpu->flags_image = low << 8 | !!(vcpu->rflags & RFLAGS_OF);
}

static inline void flags_from_image(struct vcpu *vcpu)
{
	flags_complete(vcpu);
	u64 status = (vcpu->flags_image >> 8 & RFLAGS_STATUS & 0xff) | (vcpu->flags_image & 1 ? RFLAGS_OF : 0);
	vcpu->rflags = (vcpu->rflags & ~RFLAGS_STATUS) | status;
}

/* What the jump cache knows the code at RIP by. */
static inline u64 bt_jump_tag(const struct vcpu *vcpu)
{
	return vcpu->rip + ((u64)vcpu->code_number << 32) + ((u64)vcpu->jump_salt << 48);
}

/* ---- stubs.c ---- */

/* Enter the page of an access into the TLB. FILL_STEP: the instruction must be stepped. Neither that nor FILL_DONE: the page is watched,
 * but not these bytes; the answer is its addend, for this access alone. In run.c; called by translated code. */
#define FILL_STEP 0
#define FILL_DONE 1
u64 access_fill(struct vcpu *vcpu, gla_t gla, unsigned detail, const struct access_site *site);

/* Enter the code at vcpu->rip into the jump cache. False: the loop must look. In run.c; called by translated code. */
bool miss_fill(struct vcpu *vcpu);

/* ---- run.c ---- */

/* What is known of the page, which is protected from here on, so that its bytes may be read. NULL: leave it to step. With the cache's lock. */
struct bt_page *bt_code_page(struct vcpu *vcpu, const struct translation *t);

/* ---- callout.c ---- */

/* Do the instruction. Registers are in vcpu->gpr, status flags in flags_image, before and after. */
unsigned callout_run(struct vcpu *vcpu, const struct callout *c);

/* ---- modes.c ---- */

/* RIP of an offset in the page that translated code ran in. */
static inline u64 modes_rip(const struct vcpu *vcpu, unsigned offset)
{
	u64 rip = vcpu->code_base + offset;
	return vcpu->code_number ? (u32)rip : rip;
}

/* Linear address of the page behind the one at code_base. */
static inline gla_t modes_second_page(const struct vcpu *vcpu)
{
	u64 next = vcpu->code_base + PAGE_SIZE;
	return vcpu->code_number ? (u32)(vcpu->seg[SEG_CS].base + next) : next;
}

/* Whether no code can be fetched at RIP, in the mode last looked at. */
static inline bool modes_beyond(const struct vcpu *vcpu)
{
	return vcpu->code_number ? vcpu->rip > vcpu->seg[SEG_CS].limit : !is_canonical(vcpu->rip, vcpu_linear_bits(vcpu));
}

/* Mode or segments may have changed: bt->key, code_number and segment_end follow. */
void modes_look(struct vcpu *vcpu);
/* The same, then where the code at RIP is, and its key but for break points. False: #GP is in vcpu->fault. */
bool modes_fetch(struct vcpu *vcpu, gla_t *gla, u16 *key);
/* The part of the key of code at gla that says where break points are. With the cache's lock. */
u16 modes_key_of_breaks(struct vcpu *vcpu, gla_t gla);
/* Whether the code segment ends in the page of gla, which is RIP's: step knows what to do. */
bool modes_limited(const struct vcpu *vcpu, gla_t gla);

/* ---- translate.c ---- */

size_t translate_work_size(void);
/* Translate the block at vcpu->rip, whose page is `t`, for a key, with the cache's lock. NULL: the instruction there cannot begin a block. */
struct bt_block *translate_block(struct vcpu *vcpu, const struct translation *t, struct bt_page *page, u16 key);

#endif
