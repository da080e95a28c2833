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

/* What T0 is when an access stub is called. */
enum access_entry {
	ACCESS_FIRST, /* the address checked minus its tag; T1 is its index */
	ACCESS_BY_WRITE, /* the same, and the access reads, but the write tag was checked for the sake of neighbours */
	ACCESS_AGAIN, /* the operand's linear address */
	ACCESS_AGAIN_BY_WRITE, /* the same, and the access reads, but neighbours rely on it that stores may go where it goes */
	ACCESS_ENTRIES
};

#define SITE_WRITE 0x80
#define SITE_JUMP 0xe9

/* What a block was translated for, beside the bytes at its address: its key. In 64-bit mode it is zero. */
#define KEY_MODE 7u /* enum insn_mode */
#define KEY_STACK32 BIT(3)
#define KEY_FLAT BIT(4) /* DS, ES and SS are writable data from 0 to 4 GBytes */
#define KEY_FLAT_CS BIT(5) /* CS is readable and likewise */
#define KEY_APART BIT(6) /* some of the page's offsets are not what jumps of this size reach: none within it are chained */

/* Which offsets of the page hold armed break points: a number of bt->breaks, or 0. A block ends in front of them and none begins there.
 * Only code in a linear page with break points has such a key, so that arming some leaves all other code alone. */
#define KEY_BREAKS_SHIFT 7

#define BT_LINKS 4

/* A translated block. Its code lies at the low end of a region, which is dense so that it is executed well; this record lies at the high
 * end, with its map below. Places are offsets from the start of the code area. */
struct bt_block {
	struct bt_page *page; /* NULL: dropped */
	u32 page_next; /* place of the next of its page; 0: none */
	u32 code; /* place */
	u16 offset; /* of its first instruction in the page */
	u16 size; /* of its code */
	u16 prologue, body; /* from where its code begins */
	u16 entry; /* where C enters: the body but for a block that crosses into a second page */
	u16 key; /* KEY_* */
	u8 map_size; /* entries */
	u8 links;
	u8 start[6]; /* of its prologue, while its page is stale */
	u32 lines; /* of its page, that it was translated by, one bit each */
	struct {
		u16 field, stub; /* the rel32 of a jump that may be chained, and the stub it goes to when it is not */
		u32 to; /* place of the block it is chained to; 0: none */
	} link[BT_LINKS];
};
static_assert(sizeof(struct bt_block) % 8 == 0, "records follow each other");

/* What stands in front of the prologue of a block that crosses: the second page's generation, and what it was. In front of any stands the
 * place of its record. */
struct bt_second {
	const u32 *generation;
	u32 seen;
	u32 place;
} __attribute__((packed));

/* The map leads from host code to instructions, in their order: `host` bytes after the last one's code begins the code of the one `guest`
 * bytes after the last. The first counts from where the block and its code begin. */
struct bt_map_entry {
	u8 host; /* MAP_FAR: so many bytes and those of the next entry, which is for the same instruction */
	u8 guest; /* MAP_SAVED: flags are in flags_image when it runs */
};

#define MAP_FAR 0xff
#define MAP_SAVED 0x80

/* A page that code was translated of. Forgotten when it has no blocks. */
struct bt_page {
	struct bt_page *next; /* in its hash chain, or of those that are free */
	gpa_t gpa;
	u32 *generation;
	u8 *flags;
	u32 seen; /* generation of the bytes translated; while mixed, at which its code was executed last */
	u32 blocks; /* place of the first */
	u32 swept; /* bt->sweep when it was last looked through */
	u64 written; /* when blocks were dropped last */
	u16 churn; /* how often writes dropped its blocks in quick succession */
	u16 interpreted; /* while mixed: instructions run by step since it was last written */
	u16 copy; /* number of the copy of what was translated; 0: none */
	bool mixed;
	bool stale; /* written: its blocks are not entered before the bytes were compared */
};

/* Blocks are hashed openly. The tag is the hash, whose high bits name the slot where the search begins. */
struct bt_slot {
	u32 tag;
	u32 place; /* 0: free */
};

/* Where the code at an address wants the status flags, as long as its page has that generation. */
struct bt_wanted {
	gpa_t gpa;
	u32 seen;
	u16 key;
	u8 entry; /* enum entry (work.h) */
	bool read; /* they may be read, not only shown to whom the code leaves to */
	u32 lines; /* that tell so */
};

#define BT_LINE_SIZE (PAGE_SIZE / 32)
#define BT_COPIES 64
#define BT_REGIONS_MAX 64
#define BT_REGION_SIZE (1u << 20)
#define BT_REGION_SLOTS 4096u /* of the hash, for each region */
#define BT_WANTED_SIZE 4096
#define BT_PAGES 16384
#define BT_PAGE_HASH_SIZE 4096
#define BT_INSNS_MAX 48
#define BT_BLOCK_ROOM (24u << 10) /* more than any block takes */
#define BT_CHUNK_SIZE 4096u /* of code: the first block that begins in each is noted */

/* A combination of mode and place of CS that was run in. */
struct code_place {
	u32 base, limit; /* of CS */
	u16 key; /* KEY_* */
	u16 number; /* vcpu->code_number; 0: free */
};

#define BT_PLACES 16

/* Offsets that break points have been met at together in one page. */
struct code_breaks {
	u8 count;
	u16 offset[DEBUG_BREAKS];
};

#define BT_BREAKS 64
static_assert(BT_BREAKS << KEY_BREAKS_SHIFT <= 1 << 16, "it is part of a key");

enum bt_counter {
	COUNT_ENTER, COUNT_TRANSLATED, COUNT_INSNS, COUNT_BYTES, COUNT_DROPPED, COUNT_REVIVED, COUNT_EVICTED, COUNT_INTERPRETED, COUNT_FILLED,
	COUNT_STEPPED_ACCESS, COUNT_BOUNDARY, COUNT_CALLOUT_SITES, COUNT_INLINE_SITES, COUNT_MISSES,
	COUNTERS
};

struct direct;

struct bt {
	struct bt_slot *hash;
	unsigned hash_bits;
	unsigned blocks; /* held */
	u8 (*copy)[PAGE_SIZE]; /* of pages that have been written before, by number; the first is scratch */
	u16 copy_last;
	struct bt_page *copy_of[BT_COPIES];
	struct bt_wanted wanted[BT_WANTED_SIZE]; /* what was found lately, by the low bits of the address */
	struct bt_page *page_hash[BT_PAGE_HASH_SIZE];
	struct bt_page *page_free;
	struct bt_page page[BT_PAGES];
	unsigned pages; /* of which so many were ever used */
	struct host_code code;
	u32 stubs_size; /* at the start of region 0 */
	unsigned regions; /* used at all; 0 until the vCPU runs */
	unsigned region; /* in use */
	u32 used[BT_REGIONS_MAX]; /* bytes of code at the start of each region */
	u32 records[BT_REGIONS_MAX]; /* where its records begin, from its start */
	u32 chunk[BT_REGIONS_MAX][BT_REGION_SIZE / BT_CHUNK_SIZE]; /* place of the first block that begins there, or 0 */
	u32 sweep; /* number of the eviction */
	u64 epoch; /* changes whenever translated code was dropped */
	u64 logged; /* position in ram->code_log */
	bool drop_all; /* wanted before the next entry */
	u16 trap_offset; /* of the instruction that trapped */
	u16 key; /* of code in the mode that the vCPU is in, but for KEY_APART */
	u16 numbers; /* given to places */
	struct code_place place[BT_PLACES];
	struct code_breaks breaks[BT_BREAKS]; /* none but from 1 on */
	unsigned breaks_used;
	const struct site *(*enter)(const void *code);
	const u8 *leave_host, *leave_saved, *miss, *trap_host, *trap_saved; /* stubs, in the executable mapping */
	const u8 *callout_host, *callout_saved, *complete;
	const u8 *return_bottom, *return_restart;
	const u8 *access[ACCESS_ENTRIES][2]; /* where an access goes that missed; the second index says whether it writes */
	struct exit *exit; /* of the run */
	bool stop; /* the run ends with *exit */
	struct translation_work *work;
	u64 count[COUNTERS];
	bool step_next; /* the next instruction must be stepped */
	bool unchained; /* blocks are entered by C only */
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

/* Addresses in the two mappings of the code area. */
static inline u8 *bt_rw(const struct bt *bt, const void *rx)
{
	return bt->code.rw + ((const u8 *)rx - bt->code.rx);
}

static inline const u8 *bt_rx(const struct bt *bt, const void *rw)
{
	return bt->code.rx + ((const u8 *)rw - bt->code.rw);
}

static inline struct bt_block *bt_block_at(const struct bt *bt, u32 place)
{
	return place ? (struct bt_block *)(void *)(bt->code.rw + place) : NULL;
}

static inline u32 bt_place(const struct bt *bt, const void *rw)
{
	return (u32)((const u8 *)rw - bt->code.rw);
}

/* A block's code, in the writable mapping. */
static inline u8 *bt_code(const struct bt *bt, const struct bt_block *block)
{
	return bt->code.rw + block->code;
}

static inline u8 *bt_body(const struct bt *bt, const struct bt_block *block)
{
	return bt_code(bt, block) + block->body;
}

static inline bool bt_crosses(const struct bt_block *block)
{
	return block->entry != block->body;
}

static inline const struct bt_second *bt_second(const struct bt *bt, const struct bt_block *block)
{
	return (const struct bt_second *)(const void *)(bt_code(bt, block) + block->prologue) - 1;
}

/* Whether what the block was translated of is what memory holds, as far as the log of writes does not tell. */
static inline bool bt_block_current(const struct bt *bt, const struct bt_block *block)
{
	return !bt_crosses(block) ||
	       __atomic_load_n(bt_second(bt, block)->generation, __ATOMIC_SEQ_CST) == bt_second(bt, block)->seen;
}

static inline gpa_t bt_gpa(const struct bt_block *block)
{
	return block->page->gpa + block->offset;
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

/* Write the stubs that enter and leave translated code; returns the bytes used at the start of the code area. */
u32 stubs_emit(struct bt *bt);

/* ---- run.c ---- */

/* What is known of the page, which is protected from here on, so that its bytes may be read. NULL: leave it to step. */
struct bt_page *bt_code_page(struct vcpu *vcpu, const struct translation *t);

/* How many bytes of host code one vCPU's translator may keep: a 16th of the guest's memory, up to `most`; little in small guests. */
static inline u64 translation_budget(const struct ram *ram, u64 most)
{
	const u64 least = 8u << 20, small = 768u << 20;
	u64 size = 0;
	for (unsigned i = 0; i < ram->slots; i++)
		size += ram->slot[i].size;
	return size < small ? least : MIN(size / 16, most);
}

/* ---- cache.c ---- */

/* Make the code area and what leads to it; 0, or -1: no memory. */
int cache_create(struct bt *bt, const struct ram *ram);
void cache_destroy(struct bt *bt);
/* All vCPUs are there, and the area gets its final size. */
void cache_start(struct bt *bt, const struct ram *ram);

/* What is known of a page, made if need be; NULL: no room. */
struct bt_page *cache_page(struct vcpu *vcpu, const struct translation *t);
struct bt_block *cache_find(struct bt *bt, gpa_t gpa, u16 key);
/* The next that begins there: there can be several that cross. */
struct bt_block *cache_find_next(struct bt *bt, const struct bt_block *block, gpa_t gpa);
/* A record for a block of the page, with room for its code in the current region; the oldest region is evicted if need be. */
struct bt_block *cache_begin(struct vcpu *vcpu, struct bt_page *page, gpa_t gpa, u16 key);
/* Note an instruction, in their order, by how far its code and itself begin behind those of the last (struct bt_map_entry). */
void cache_map(struct bt_block *block, unsigned host, unsigned guest, bool saved);
/* The block is complete: its code ends at `end`. */
void cache_publish(struct bt *bt, struct bt_block *block, const u8 *end);
/* Chain a block's link to a block of its page. */
void cache_link(struct bt *bt, struct bt_block *block, unsigned link, struct bt_block *to);
/* The block is in no table any more, and its prologue leads nowhere; its page still lists it. */
void cache_drop_block(struct bt *bt, struct bt_block *block);
void cache_drop_page(struct bt *bt, struct bt_page *page);
/* A jump that was chained goes to its stub again. */
void cache_unlink(struct bt *bt, struct bt_block *block, unsigned link);
struct bt_page *cache_page_find(struct bt *bt, gpa_t gpa);
void cache_drop_all(struct vcpu *vcpu);
/* The instruction whose code holds a host address of the executable mapping: its offset in the page, with MAP_SAVED << 8. False: none. */
bool cache_insn_at(struct bt *bt, const u8 *pc, u16 *offset);
/* The block of a prologue in the writable mapping. */
struct bt_block *cache_of_prologue(struct bt *bt, const u8 *prologue);
/* Empty the jump cache. */
void cache_clear_jumps(struct vcpu *vcpu);

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
/* The same, then where the code at RIP is, and its key. False: #GP is in vcpu->fault. */
bool modes_fetch(struct vcpu *vcpu, gla_t *gla, u16 *key);
/* Whether a block of this key ends in front of the offset. */
static inline bool modes_breaks(const struct bt *bt, u16 key, unsigned offset)
{
	const struct code_breaks *b = &bt->breaks[key >> KEY_BREAKS_SHIFT];
	for (unsigned i = 0; i < b->count; i++)
		if (b->offset[i] == offset)
			return true;
	return false;
}

/* Whether the code segment ends in the page of gla, which is RIP's: step knows what to do. */
bool modes_limited(const struct vcpu *vcpu, gla_t gla);

/* ---- written.c ---- */

/* Pages that were written since the last call become stale, or lose their translations. */
void cache_follow_log(struct vcpu *vcpu);
/* The page is protected and has generation `seen`: its blocks whose bytes are as they were can be entered again, the others are dropped. */
void cache_revive(struct bt *bt, struct bt_page *page, const u8 *bytes, u32 seen);
/* Whether the page is left to step for now, since it is written all the time. */
bool cache_interprets(struct bt *bt, gpa_t gpa);
/* The bytes that a block is about to be translated of. They may differ from what the page was when it was protected only if another vCPU is
 * writing: nothing is revived then. */
void cache_check_copy(struct bt *bt, struct bt_page *page, const u8 *bytes);

/* ---- translate.c ---- */

size_t translate_work_size(void);
/* Translate the block at vcpu->rip, whose page is `t`, for a key. NULL: the instruction there cannot begin a block. */
struct bt_block *translate_block(struct vcpu *vcpu, const struct translation *t, struct bt_page *page, u16 key);

#endif
