/* Guest user code in spaces (host/port.h; C2): the second flavour of translated code.
 *
 * In a space a guest linear address is a host address, so a guest instruction is, but for few, itself: all sixteen general registers, the
 * flags, RSP and FS are the guest's own. What translated code needs besides lies in the window, at GS, and in the tables. A block belongs
 * to one space and to one linear address, which is burnt in. Direct jumps are chained wherever they go; calls push a constant. Computed
 * jumps look into the first table, indexed by the low 16 bits of the target, where they find a block whose entry compares its own
 * address:
 *
 *   tail:   window.target = target; window.rcx = rcx; rcx = low 16 bits of target; jmp [first table + rcx * 8]
 *   entry:  compare window.target with the block's address, without flags; not equal -> `second`; rcx = window.rcx
 *   poll:   window.stop -> leave (chained jumps backwards come here: every loop is stopped soon; but for those whose own block polls
 *           more cheaply, see direct_block.c)
 *   body:   chained jumps forwards come here
 *
 * `second` is a stub that looks into the second table, a hash table with linear probing, and, if the target is not there, goes on in
 * place or leaves. So code in place and translated code take turns in one run: the former comes to the latter through the window's
 * table of crossings (crossing_add).
 *
 * Code leaves by writing the number of a site to window.site and jumping to host_space_leave(); sites and all else that is known of code
 * lie in the VMM's own memory. A fault in translated code is found by its host address. What comes back from a space can be anything, but
 * a user process of the guest can only harm itself by that: registers are its own, and a site that it makes up names a place of its own
 * code.
 *
 * That is code that cannot be run as it is; most code can (direct_place.c), and is not translated at all.
 *
 * Parts: direct_choose.c decides which address spaces get one; direct.c is the journey, and the way back from translated code;
 * direct_place.c the way back from code in place; direct_memory.c keeps the mappings, as a TLB, direct_executable.c those of code in
 * place; direct_code.c the code; direct_block.c and direct_insn.c translate. */
#ifndef NADIR_ENGINE_BT_DIRECT_H
#define NADIR_ENGINE_BT_DIRECT_H

#include "engine/bt/emit.h"
#include "engine/bt/state.h"

/* ---- the window, as translated code sees it ---- */

struct direct_window {
	u64 rax, rdx; /* the guest's, while the register is used otherwise */
	u64 scratch; /* of the register that a memory operand's address is in */
	u64 flags, code; /* of `second` */
	u64 tsc_offset, tsc_aux; /* the guest's */
	u32 site;
};
_Static_assert(sizeof(struct direct_window) <= HOST_SPACE_WINDOW_USER, "the engine's part of the window");
#define WINDOW(field) ((u32)offsetof(struct direct_window, field))
/* The host's part: the target of a computed jump, RCX while the register is used otherwise, the guest's GS base. */
#define WINDOW_TARGET ((u32)offsetof(struct host_space_window, place_target))
#define WINDOW_RCX ((u32)offsetof(struct host_space_window, place_rcx))
#define WINDOW_GS_BASE ((u32)offsetof(struct host_space_window, regs.gs_base))

#define FIRST_ENTRIES 65536u /* of the first table: host addresses */
#define SECOND_BITS 15
#define SECOND_ENTRIES (1u << SECOND_BITS) /* of the second: guest address, host address */
#define TABLES_SIZE (FIRST_ENTRIES * 8 + SECOND_ENTRIES * 16)

/* ---- arrays that grow in pieces ---- */

#define POOL_CHUNK 4096u
#define POOL_CHUNKS 512u

struct pool {
	u8 *chunk[POOL_CHUNKS];
	u32 used;
};

/* ---- code ---- */

enum direct_site_kind {
	DIRECT_STEP, /* the instruction is step's */
	DIRECT_LINK, /* a jump to `target` that is not chained yet; `field` is its rel32 */
	DIRECT_BRANCH, /* a computed jump: window.target is not in the tables */
	DIRECT_START, /* before the block: something is pending, or the block was dropped */
};

struct direct_site {
	u64 rip; /* of the instruction */
	u64 target;
	u32 field; /* offset in the code area */
	s32 moved; /* BRANCH: how far it moved RSP */
	u8 kind;
	u8 insn_kind; /* STEP: enum insn_kind */
	bool polled; /* LINK: who comes here has just polled */
};

/* Where the code of an instruction, or of a part of it, begins. */
struct direct_map {
	u16 host; /* from the block's body */
	u16 guest; /* offset from the block's address; in the upper bits what is in the window instead of its register */
};
#define MAP_GUEST 0x3ff
#define MAP_SCRATCH_SHIFT 10 /* register number + 1 whose value is in window.scratch; */
#define MAP_SCRATCH 0x7c00
#define MAP_RCX 0x8000 /* RCX is in window.rcx */

struct direct_block {
	u64 rip;
	u32 start, entry, poll, body, away, end; /* offsets in the code area; `away` leaves for its START site */
	u32 first_map;
	u32 next; /* in its hash chain: index + 1 */
	u32 page[2], page_next[2]; /* index + 1 */
	u16 maps;
	bool live;
	bool stepped; /* its first instruction is step's: it has no code worth running */
};

struct direct_page {
	u64 gva;
	gpa_t gpa;
	const u8 *bytes;
	u32 *generation;
	u8 *flags;
	u32 seen; /* generation of the bytes translated */
	u32 blocks; /* index + 1 */
	u32 next; /* in its hash chain */
	u8 page_shift;
	u8 churn; /* how often writes dropped its blocks */
};

#define DIRECT_CODE_MAX (48u << 20) /* of one space */
#define DIRECT_CODE_MIN (8u << 20)
#define DIRECT_BLOCK_ROOM (8u << 10) /* more than any block takes */
#define DIRECT_INSNS_MAX 48
#define DIRECT_HASH_BITS 17
#define DIRECT_CHURN_MAX 16
#define RESUMES 64

struct shadow_region; /* direct_memory.c */
#define SHADOW_HASH 256

struct direct_space {
	struct host_space *host;
	struct direct_window *window;
	struct host_code code;
	u64 cr3; /* address bits of the guest's: whose space it is */
	struct tlb *tlb; /* that it heeds the invalidations of, or NULL */
	u64 modes; /* of the guest, that its code was translated for */
	/* code */
	u32 used, first_code; /* bytes of the code area; where blocks begin */
	u32 second; /* the stub */
	u32 second_used; /* entries of the second table */
	struct pool blocks, pages, maps, sites;
	u32 hash[1u << DIRECT_HASH_BITS], page_hash[1024];
	u64 logged; /* position in ram->code_log */
	/* Code that the guest is going to come back to after a fault: where it went on. */
	struct {
		u64 rip;
		u32 code, block;
	} resume[RESUMES];
	u64 fault_rip, faulted; /* the guest's last page fault: instruction, address */
	bool fault_writes;
	/* memory */
	struct shadow_region *shadow[SHADOW_HASH];
	u64 places_logged; /* position in ram->code_log */
	u64 unwritables; /* position in mmu->unwritable */
	u8 *writable; /* a bit per guest page that may be mapped for writing */
	bool full; /* the host refused a mapping */
	bool in_place; /* this time code may run as it is */
	u64 breaks[HOST_SPACE_BREAKS]; /* where sensitive instructions of code in place begin; the host traps there */
	unsigned breaks_count;
	u32 break_after; /* so many crossings to a page make it one with break points */
	u64 tsc_offset; /* of the guest, that pages were looked at for */
	bool churned; /* pages were refused because they were written again and again, */
	u64 forgiven; /* and since then they are */
	bool huge; /* pages of 1 GByte are mapped, or hold code */
	/* use */
	bool young; /* never judged: most of the time goes into making its code and mappings */
	u64 runs; /* since it was judged last */
	u64 made, last_used, useful, waited, wasted, total; /* cycles */
};

enum direct_counter {
	DIRECT_SPACES_MADE, DIRECT_SPACES_LOST, DIRECT_PROMOTED, DIRECT_DEMOTED, DIRECT_RUNS, DIRECT_RUNS_IN_PLACE,
	DIRECT_PLACES, DIRECT_PLACES_REFUSED, DIRECT_BREAKS_SET, DIRECT_BREAKS, DIRECT_STEPPED_ACROSS, DIRECT_SYSCALLS, DIRECT_STOPPED,
	DIRECT_LEFT_STEP, DIRECT_LEFT_LINK, DIRECT_LEFT_BRANCH, DIRECT_LEFT_START,
	DIRECT_FILLS, DIRECT_FAULTS, DIRECT_TRAPS_STEPPED, DIRECT_TRAPS, DIRECT_MAPPED, DIRECT_UNMAPPED, DIRECT_REVALIDATED,
	DIRECT_BLOCKS, DIRECT_INSNS, DIRECT_PAGES_DROPPED, DIRECT_FLUSHES,
	DIRECT_TIME, DIRECT_TIME_RUNNING, DIRECT_TIME_WAITING, DIRECT_TIME_TRANSLATING, DIRECT_TIME_CREATING, /* cycles */
	DIRECT_COUNTERS
};

#define DIRECT_SPACES 6
#define DIRECT_CANDIDATES 16

/* An address space of the guest that may deserve a space. */
struct direct_candidate {
	u64 cr3;
	u64 busy; /* cycles of user code in long bursts */
	u64 not_before; /* time-stamp counter */
	u8 failures;
};

struct direct {
	u64 hole;
	struct direct_space *space[DIRECT_SPACES];
	struct host_code code[DIRECT_SPACES]; /* of the spaces */
	unsigned codes; /* how many there are */
	struct direct_candidate candidate[DIRECT_CANDIDATES];
	unsigned candidate_next;
	struct direct_translation *work;
	u64 not_before; /* time-stamp counter; the host is too busy until then */
	u8 crowded; /* how often in a row it was */
	u64 sampled_at, sampled_entries, sampled_cr3;
	bool checked; /* the code at rip is to run checked this time */
	bool promoting; /* some candidate is promoted */
	bool forget; /* all spaces, before the next run */
	u64 count[DIRECT_COUNTERS];
};

static inline struct direct *direct_of(struct vcpu *vcpu)
{
	return bt_of(vcpu)->direct;
}

static inline u64 direct_now(void)
{
	return __builtin_ia32_rdtsc();
}

/* Microseconds in units of that. */
static inline u64 direct_us(u64 n)
{
	return host_tsc_hz() / 1000000 * n;
}

/* ---- direct.c ---- */

int direct_create(struct vcpu *vcpu);
void direct_destroy(struct vcpu *vcpu);
/* Run guest user code at vcpu->rip in a space, if it is to be. False: it is not; nothing happened. Else *go as of step_next. */
bool direct_run(struct vcpu *vcpu, struct exit *exit, bool *go);
void direct_report(struct vcpu *vcpu, void (*line)(void *opaque, const char *text), void *opaque);
/* Give back all spaces: user code that works again is to earn them anew. */
void direct_rest(struct vcpu *vcpu);
/* The vCPU's state was changed from outside. */
void direct_forget(struct vcpu *vcpu);

/* What the guest's user code may do depends on these; translated code relies on them. */
u64 direct_modes(const struct vcpu *vcpu);
/* Everything that happened outside is heeded. */
void space_update(struct vcpu *vcpu, struct direct_space *s);
/* Extended state out of the window. */
void space_store_extended(struct vcpu *vcpu, struct direct_space *s);

/* ---- direct_choose.c ---- */

/* Something is pending while user code runs, or a while has passed: note how busy it was since the last time. */
void direct_sample(struct vcpu *vcpu, struct direct *d);
/* Whether the current address space is to have a space. */
bool direct_promoted(struct vcpu *vcpu, struct direct *d);
/* Whether the vCPU, which is about to run user code, should go to the engine's loop for direct_run. */
bool direct_wanted(struct vcpu *vcpu);
/* The space of the current address space: its own, a new one, or that of another which was not used for longest; NULL: the host has none
 * to give, or all are too new to be taken away. */
struct direct_space *space_of(struct vcpu *vcpu, struct direct *d);
void space_destroy(struct direct_space *s);
/* The space has come to its end by itself. */
void space_lose(struct vcpu *vcpu, struct direct_space *s);
/* The time of a run that began at `entered`. */
void space_account(struct direct *d, struct direct_space *s, u64 entered);
/* Whether journeys have been worth it lately: consequences are drawn. */
/* What was looked at, translated and mapped is of no use any more. */
void space_wasted(struct direct_space *s);
void space_judge(struct vcpu *vcpu, struct direct *d, struct direct_space *s);

/* ---- direct_memory.c ---- */

int memory_create(struct vcpu *vcpu, struct direct_space *s);
void memory_destroy(struct direct_space *s);
/* The space becomes one for the current address space. */
void memory_bind(struct vcpu *vcpu, struct direct_space *s);
/* Heed what was invalidated since the last call. */
void memory_update(struct vcpu *vcpu, struct direct_space *s);
/* Map the page at gla, which mmu_translate allows, and some around it. False: it cannot be mapped so. */
bool memory_fill(struct vcpu *vcpu, struct direct_space *s, gla_t gla, bool write);

/* ---- direct_executable.c ---- */

/* Whether the page at gla, which the user may execute, is code that may be run in place; it is mapped so then, with some around it. */
bool memory_place(struct vcpu *vcpu, struct direct_space *s, gla_t gla);
/* Whether it was found that the page at gla may not; and that break points will not help. */
bool memory_refused(struct direct_space *s, gla_t gla);
bool memory_hopeless(struct direct_space *s, gla_t gla);
/* Pages that were refused because they were written again and again are looked at anew, now and then: a compiler may have finished. */
void memory_forgive(struct direct_space *s, u64 now);
/* Pages with code in place that were written are no longer executable. */
void memory_follow_writes(struct vcpu *vcpu, struct direct_space *s);

/* ---- direct_place.c ---- */

/* What to do after a run. */
enum outcome {
	OUTCOME_GO, /* on at window->regs.rip */
	OUTCOME_LOOP, /* the guest's state is stored: back to the engine's loop */
	OUTCOME_CHECKED, /* likewise, and what is at rip is not for spaces */
	OUTCOME_FAULT, /* likewise, and vcpu->fault is to be delivered */
	OUTCOME_STEP, /* likewise, and the instruction is step's */
	OUTCOME_ACROSS, /* likewise, and rip is in a page that may not be run in place */
	OUTCOME_LOST, /* what came back is nonsense */
};

/* The guest has loaded no segment registers: what goes on in the space has all of them as it begins there. */
bool place_same_segments(const struct vcpu *vcpu, const struct direct_space *s);
/* Whether the guest's user code may run as it is, as far as its state goes. */
bool place_allows(struct vcpu *vcpu);
/* Whether the code at rip may: it is mapped so then. */
bool place_at(struct vcpu *vcpu, struct direct_space *s, u64 rip);
/* The guest's state into the window, and what came of it. */
void place_store(struct vcpu *vcpu, struct direct_space *s, u64 rip);
void place_load(struct vcpu *vcpu, struct direct_space *s);
/* Go on with translated code of rip, where code in place did not get on; from the second time on without coming back. False: it cannot. */
bool place_cross(struct vcpu *vcpu, struct direct_space *s, u64 rip);
enum outcome place_came_back(struct vcpu *vcpu, struct direct_space *s, enum host_space_exit how, const struct host_trap *trap);

/* ---- direct_code.c ---- */

void *pool_at(struct pool *pool, u32 index, size_t size);
/* Index of a new element, cleared, or ~0. */
u32 pool_add(struct pool *pool, size_t size);

static inline struct direct_block *block_at(struct direct_space *s, u32 index)
{
	return pool_at(&s->blocks, index, sizeof(struct direct_block));
}

static inline struct direct_site *site_at(struct direct_space *s, u32 index)
{
	return pool_at(&s->sites, index, sizeof(struct direct_site));
}

static inline struct direct_map *map_at(struct direct_space *s, u32 index)
{
	return pool_at(&s->maps, index, sizeof(struct direct_map));
}

static inline struct direct_page *page_at(struct direct_space *s, u32 index)
{
	return pool_at(&s->pages, index, sizeof(struct direct_page));
}

static inline u64 code_address(const struct direct_space *s, u32 offset)
{
	return (u64)(uintptr_t)s->code.rx + offset;
}

void code_destroy(struct direct_space *s);
/* Drop all translated code. */
void code_flush(struct vcpu *vcpu, struct direct_space *s);
/* Drop the blocks of pages that were written, or whose translation in [from, to) changed. */
void code_follow_writes(struct vcpu *vcpu, struct direct_space *s);
void code_revalidate(struct vcpu *vcpu, struct direct_space *s, gla_t from, gla_t to);
struct direct_block *code_find(struct direct_space *s, u64 rip);
u32 code_block_index(struct direct_space *s, u64 rip);
/* The page at gva, made if need be and protected so that its bytes can be read. NULL: vcpu->fault says why, or *no_code is set. */
struct direct_page *code_page(struct vcpu *vcpu, struct direct_space *s, u64 gva, bool *no_code);
/* A block was written: make it known. */
void code_publish(struct direct_space *s, u32 index, u32 page, u32 second_page);
/* Make computed jumps find the block. */
void code_enter_tables(struct direct_space *s, const struct direct_block *block);
void code_link(struct direct_space *s, const struct direct_site *site, const struct direct_block *to);
/* Code in place that comes to the block's address, in a page that it may not execute, is to go on there. */
void crossing_add(struct direct_space *s, const struct direct_block *block);
void crossings_forget(struct direct_space *s);
/* The jump of a site is to go on in place. */
void code_link_place(struct direct_space *s, const struct direct_site *site);
/* The block whose code holds the offset, or NULL, and the map entry in force there. */
struct direct_block *code_at(struct direct_space *s, u64 pc, struct direct_map *map);

/* ---- direct_block.c ---- */

size_t direct_work_size(void);
/* Write the stub of the second table at the start of the code area. */
void direct_emit_stubs(struct direct_space *s);
/* Write code that goes on in place at rip, at *code in the code area. False: there is no room. */
bool direct_emit_enter_place(struct direct_space *s, u64 rip, u32 *code);
/* Translate what is at rip, and some of what it leads to. NULL: vcpu->fault says why, or *no_code is set. */
struct direct_block *direct_translate(struct vcpu *vcpu, struct direct_space *s, u64 rip, bool *no_code);

#endif
