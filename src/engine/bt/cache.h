/* The code cache: translated code of a VM, shared by its vCPUs.
 *
 * Blocks know no vCPU, which they reach by GS. One is made by whoever comes to its address first, with the lock held, and found by all others.
 * Each vCPU has a jump cache of its own, so that the lock is taken only to find what that does not know, to translate, to chain, and when code
 * was written. Who waits for the lock does what others wait for meanwhile (mmu_serve, cache_obey): nobody waits with the lock held for
 * somebody who waits for the lock.
 *
 * Code changes while others execute it, but only so that they see what was there before or what is there now, both of which are right: the
 * distance of a jump that is chained, and the start of a prologue that is to lead nowhere (or is to lead in again). Each lies within an
 * aligned quadword and is stored at once (AMD APM volume 2, "Cross-Modifying Code", asynchronous modification; Intel SDM volume 3, "Handling
 * Self- and Cross-Modifying Code", asks for no more where either instruction will do).
 *
 * The memory of code that was dropped stays as it is until its region is evicted: a vCPU may be in the midst of it. So may it when a region is
 * evicted. That waits until each vCPU that runs has come by cache_obey, where it forgets the way to that code: at the start of the loop's
 * turn, and where it waits for the lock. If that was within a call from translated code, it does not go back there (bt->entered). */
#ifndef NADIR_ENGINE_BT_CACHE_H
#define NADIR_ENGINE_BT_CACHE_H

#include "host/port.h"
#include "mmu/mmu.h"
#include "vcpu/debug.h"

struct site;
struct translation_work;

/* What T0 is when an access stub is called. */
enum access_entry {
	ACCESS_FIRST, /* the address checked minus its tag; T1 is its index */
	ACCESS_BY_WRITE, /* the same, and the access reads, but the write tag was checked for the sake of neighbours */
	ACCESS_AGAIN, /* the operand's linear address */
	ACCESS_AGAIN_BY_WRITE, /* the same, and the access reads, but neighbours rely on it that stores may go where it goes */
	ACCESS_ENTRIES
};

/* What a block was translated for, beside the bytes at its address: its key. In 64-bit mode it is mostly zero. */
#define KEY_MODE 7u /* enum insn_mode */
#define KEY_STACK32 BIT(3)
#define KEY_FLAT BIT(4) /* DS, ES and SS are writable data from 0 to 4 GBytes */
#define KEY_FLAT_CS BIT(5) /* CS is readable and likewise */
#define KEY_APART BIT(6) /* some of the page's offsets are not what jumps of this size reach: none within it are chained */
#define KEY_EDGE BIT(7) /* 64-bit code from which jumps may lead to where addresses are not canonical */

/* Which offsets of the page hold armed break points: a number of bt->breaks, or 0. A block ends in front of them and none begins there.
 * Only code in a linear page with break points has such a key, so that arming some leaves all other code alone. */
#define KEY_BREAKS_SHIFT 8

#define BT_LINKS 4

/* A translated block. Its code lies at the low end of a region, which is dense so that it is executed well; this record lies at the high
 * end, with its map below. Places are offsets from the start of the code area. */
struct bt_block {
	struct bt_page *page; /* NULL: dropped; atomic */
	u32 page_next; /* place of the next of its page; 0: none */
	u32 code; /* place */
	u16 offset; /* of its first instruction in the page */
	u16 size; /* of its code */
	u16 prologue, body; /* from where its code begins */
	u16 entry; /* where C enters: the body but for a block that crosses into a second page */
	u16 key; /* KEY_* */
	u8 map_size; /* entries */
	u8 links;
	u8 start[5]; /* of its prologue, while its page is stale */
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
	bool stale; /* written: its blocks are not entered before the bytes were compared; atomic */
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

/* Offsets that break points have been met at together in one page. */
struct code_breaks {
	u8 count;
	u16 offset[DEBUG_BREAKS];
};

#define BT_BREAKS 64
static_assert(BT_BREAKS << KEY_BREAKS_SHIFT <= 1 << 16, "it is part of a key");

/* Everything belongs to the holder of the lock, but for what is constant, and what is said to be atomic. */
struct bt_cache {
	u32 lock; /* atomic */
	unsigned users; /* vCPUs; constant once they run */
	struct bt *holder; /* of the lock: counts what happens meanwhile */
	struct bt_slot *hash;
	unsigned hash_bits;
	unsigned blocks; /* held */
	u8 (*copy)[PAGE_SIZE]; /* of pages that have been written before, by number; the first is scratch */
	u16 copy_last;
	struct bt_page *copy_of[BT_COPIES];
	struct bt_wanted *wanted; /* BT_WANTED_SIZE: what was found lately, by the low bits of the address */
	struct bt_page *page_hash[BT_PAGE_HASH_SIZE];
	struct bt_page *page_free;
	struct bt_page *page; /* BT_PAGES */
	unsigned pages; /* of which so many were ever used */
	u64 logged; /* position in ram->code_log */
	struct code_breaks breaks[BT_BREAKS]; /* none but from 1 on */
	unsigned breaks_used;
	bool unchained; /* blocks are entered by C only; constant but in lockstep, where one vCPU is all */
	struct translation_work *work;

	struct host_code code; /* constant */
	u32 stubs_size; /* at the start of region 0; constant */
	unsigned regions; /* constant */
	unsigned region; /* in use */
	u32 used[BT_REGIONS_MAX]; /* bytes of code at the start of each region */
	u32 records[BT_REGIONS_MAX]; /* where its records begin, from its start; atomic, for cache_insn_at */
	u32 chunk[BT_REGIONS_MAX][BT_REGION_SIZE / BT_CHUNK_SIZE]; /* place of the first block that begins there, or 0; likewise */
	u64 sweep; /* number of the last eviction << SWEEP_SHIFT | its region; atomic */
	u64 epoch; /* changes when code has been dropped, and nothing leads to it any more but for who was there already; atomic */

	/* Stubs, in the executable mapping; constant. */
	const struct site *(*enter)(const void *code);
	const u8 *leave_host, *leave_saved, *miss, *trap_host, *trap_saved;
	const u8 *callout_host, *callout_saved, *complete;
	const u8 *return_bottom, *return_restart;
	const u8 *access[ACCESS_ENTRIES][2]; /* where an access goes that missed; the second index says whether it writes */
};

#define SWEEP_SHIFT 8
static_assert(BT_REGIONS_MAX <= 1 << SWEEP_SHIFT, "it has room for a region");

/* Addresses in the two mappings of the code area. */
static inline u8 *bt_rw(const struct bt_cache *c, const void *rx)
{
	return c->code.rw + ((const u8 *)rx - c->code.rx);
}

static inline const u8 *bt_rx(const struct bt_cache *c, const void *rw)
{
	return c->code.rx + ((const u8 *)rw - c->code.rw);
}

static inline struct bt_block *bt_block_at(const struct bt_cache *c, u32 place)
{
	return place ? (struct bt_block *)(void *)(c->code.rw + place) : NULL;
}

static inline u32 bt_place(const struct bt_cache *c, const void *rw)
{
	return (u32)((const u8 *)rw - c->code.rw);
}

/* A block's code, in the writable mapping. */
static inline u8 *bt_code(const struct bt_cache *c, const struct bt_block *block)
{
	return c->code.rw + block->code;
}

static inline u8 *bt_body(const struct bt_cache *c, const struct bt_block *block)
{
	return bt_code(c, block) + block->body;
}

static inline bool bt_crosses(const struct bt_block *block)
{
	return block->entry != block->body;
}

static inline const struct bt_second *bt_second(const struct bt_cache *c, const struct bt_block *block)
{
	return (const struct bt_second *)(const void *)(bt_code(c, block) + block->prologue) - 1;
}

/* Whether what the block was translated of is what memory holds, as far as the log of writes does not tell. */
static inline bool bt_block_current(const struct bt_cache *c, const struct bt_block *block)
{
	return !bt_crosses(block) ||
	       __atomic_load_n(bt_second(c, block)->generation, __ATOMIC_SEQ_CST) == bt_second(c, block)->seen;
}

static inline gpa_t bt_gpa(const struct bt_block *block)
{
	return block->page->gpa + block->offset;
}

/* Whether a block of this key ends in front of the offset. */
static inline bool modes_breaks(const struct bt_cache *c, u16 key, unsigned offset)
{
	const struct code_breaks *b = &c->breaks[key >> KEY_BREAKS_SHIFT];
	for (unsigned i = 0; i < b->count; i++)
		if (b->offset[i] == offset)
			return true;
	return false;
}

/* Write the stubs that enter and leave translated code; returns the bytes used at the start of the code area. */
u32 stubs_emit(struct bt_cache *c);

/* How many bytes of host code a translator may keep: a 16th of the guest's memory, up to `most`; little in small guests. */
static inline u64 translation_budget(const struct ram *ram, u64 most)
{
	const u64 least = 6u << 20, small = 768u << 20;
	u64 size = 0;
	for (unsigned i = 0; i < ram->slots; i++)
		size += ram->slot[i].size;
	return size < small ? least : MIN(size / 16, most);
}

/* ---- shared.c ---- */

/* A vCPU is to use the cache of its VM, which the first one makes; 0, or -1: no memory. The last one that leaves destroys it. */
int cache_join(struct vcpu *vcpu);
void cache_leave(struct vcpu *vcpu);

/* May wait, and do meanwhile what others wait for (cache_serve): what was found in the cache before may be gone then. */
void cache_lock(struct vcpu *vcpu);
void cache_unlock(struct vcpu *vcpu);

/* Forget the way to code that is being evicted, where the vCPU is not to return to any. To be called often. */
void cache_obey(struct vcpu *vcpu);
/* Wait until each vCPU that runs has done so. */
void cache_await(struct vcpu *vcpu);
/* Empty the jump cache. */
void cache_clear_jumps(struct vcpu *vcpu);
int cache_create_jumps(struct vcpu *vcpu); /* 0, or -1: no memory */
void cache_destroy_jumps(struct vcpu *vcpu);

static inline u64 cache_epoch(const struct bt_cache *c)
{
	return __atomic_load_n(&c->epoch, __ATOMIC_ACQUIRE);
}

/* Code was dropped, all of this having been done. */
static inline void cache_changed(struct bt_cache *c)
{
	__atomic_store_n(&c->epoch, c->epoch + 1, __ATOMIC_RELEASE);
}

/* Whether the distance of a jump can be changed at once, so that others may execute it meanwhile. */
static inline bool cache_at_once(const u8 *field)
{
	return ((uintptr_t)field & 7) <= 4;
}

/* Change code that others may be executing: where a jump leads to whose distance is `field`; whether a block's prologue leads to it. */
void cache_patch_jump(u8 *field, const u8 *target);
void cache_shut(struct bt_cache *c, const struct bt_block *block);
void cache_open(struct bt_cache *c, const struct bt_block *block);

/* ---- cache.c: all with the lock held, but for what says that it needs none ---- */

/* Make the code area and what leads to it; 0, or -1: no memory. */
int cache_create(struct bt_cache *c, const struct ram *ram);
void cache_destroy(struct bt_cache *c);
/* What is known of a page, made if need be; NULL: no room. */
struct bt_page *cache_page(struct bt_cache *c, const struct translation *t);
struct bt_block *cache_find(struct bt_cache *c, gpa_t gpa, u16 key);
/* The next that begins there: there can be several that cross. */
struct bt_block *cache_find_next(struct bt_cache *c, const struct bt_block *block, gpa_t gpa);
/* A record for a block of the page, with room for its code in the current region; the oldest region is evicted if need be. */
struct bt_block *cache_begin(struct vcpu *vcpu, struct bt_page *page, gpa_t gpa, u16 key);
/* Note an instruction, in their order, by how far its code and itself begin behind those of the last (struct bt_map_entry). */
void cache_map(struct bt_block *block, unsigned host, unsigned guest, bool saved);
/* The block is complete: its code ends at `end`. */
void cache_publish(struct bt_cache *c, struct bt_block *block, const u8 *end);
/* Chain a block's link to a block of its page. */
void cache_link(struct bt_cache *c, struct bt_block *block, unsigned link, struct bt_block *to);
/* The block is in no table any more, and its prologue leads nowhere; its page still lists it. */
void cache_drop_block(struct bt_cache *c, struct bt_block *block);
void cache_drop_page(struct bt_cache *c, struct bt_page *page);
/* A jump that was chained goes to its stub again. */
void cache_unlink(struct bt_cache *c, struct bt_block *block, unsigned link);
struct bt_page *cache_page_find(struct bt_cache *c, gpa_t gpa);
void cache_drop_all(struct bt_cache *c);
/* All code goes, and the memory that it and what is known of it took. */
void cache_rest(struct vcpu *vcpu);
/* The instruction whose code, which the caller is in the midst of, holds a host address of the executable mapping: its offset in the page, with
 * MAP_SAVED << 8. False: none. Needs no lock. */
bool cache_insn_at(struct bt_cache *c, const u8 *pc, u16 *offset);
/* The block of a prologue in the writable mapping. Needs no lock. */
struct bt_block *cache_of_prologue(const struct bt_cache *c, const u8 *prologue);

/* ---- written.c: likewise, but for this one ---- */

/* Pages that were written since the last call become stale, or lose their translations. Takes the lock. */
void cache_follow_log(struct vcpu *vcpu);
/* The page is protected and has generation `seen`: its blocks whose bytes are as they were can be entered again, the others are dropped. */
void cache_revive(struct bt_cache *c, struct bt_page *page, const u8 *bytes, u32 seen);
/* Whether the page is left to step for now, since it is written all the time. */
bool cache_interprets(struct bt_cache *c, gpa_t gpa);
/* The bytes that a block is about to be translated of. They may differ from what the page was when it was protected only if another vCPU is
 * writing: nothing is revived then. */
void cache_check_copy(struct bt_cache *c, struct bt_page *page, const u8 *bytes);

#endif
