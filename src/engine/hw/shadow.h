/* Brute-force shadowing (E1): what shadow.c, shadow_watch.c and shadow_writers.c share.
 *
 * Each vCPU keeps a tree (tree.h) for each of the guest's last address spaces, so that a load of CR3 costs nothing but a flush of the CPU's TLB. A tree holds
 * nothing that the guest's tables do not say now, since every guest table that something in a tree was derived from is watched:
 *
 *	record	a page of guest memory that holds a table, with a copy of it
 *	use	where such a table is in an address space: by which entry of which other table it is reached
 *	writer	an entry of a tree by which the guest could write to a page
 *
 * A watched page has PAGE_TABLE, so that no tree maps it writable: stores to it are step's. Whoever stores logs the page (ram->code_log); every vCPU
 * compares it with its copy before it enters its guest again, and takes out of its trees what the entries that changed stood for. A page is watched as
 * long as some vCPU has a record of it, and a record goes when its page is written and is not a table any more.
 *
 * When a page begins to be watched, every vCPU takes the right to write to it out of its trees (the list of `watched`), and no vCPU is in its guest until
 * it has done so. */
#ifndef NADIR_ENGINE_HW_SHADOW_H
#define NADIR_ENGINE_HW_SHADOW_H

#include "engine/hw/tree.h"
#include "host/port.h"

#define CONTEXTS 16
#define RECORD_BUCKETS 1024u
#define RECORDS_MAX 4096
#define USES_MAX 16384
#define WRITERS_MAX 65536u
#define WRITER_BUCKETS 8192u
#define WATCHED_LOG 256u

struct context {
	struct hw_node *tree[2], *top; /* outside long mode and in it, made when first needed; the one in use, NULL: this context is free */
	u64 cr3, pdpte[4]; /* what it is of */
	struct use *uses;
	u64 turn; /* when it was used last */
};

struct use {
	struct context *context;
	struct record *record; /* NULL: it has ended, and is there for those that it was the parent of */
	struct use *parent; /* NULL: the table at CR3, or at a PDPTE */
	u16 index; /* of the parent's entry */
	u8 shift, index_bits; /* an entry stands for BIT(shift) bytes */
	gla_t base; /* of what the first stands for */
	struct use *next_of_record, *next_of_context;
};

struct record {
	gpa_t gpa;
	u8 *flags, *reference; /* of the page: in its slot, and in struct shadow_machine */
	struct record *next;
	struct use *uses;
	u8 copy[PAGE_SIZE];
};

struct writer {
	u64 page; /* physical, as a number; for those of 2 MiB see shadow_writers.c */
	u64 *where;
	u32 next; /* index + 1 */
};

/* Of a VM, at ram->engine. */
struct shadow_machine {
	struct host_lock lock; /* of all this */
	struct vcpu *vcpu[RAM_USERS_MAX];
	unsigned vcpus;
	u8 *references[RAM_SLOTS_MAX]; /* of each page: how many vCPUs watch it */
	u64 slot_pages[RAM_SLOTS_MAX];
	gpa_t watched[WATCHED_LOG]; /* pages that began to be watched, in turn */
	u64 watched_count; /* atomic */
};

struct shadow {
	struct hw_memory memory; /* first */
	struct shadow_machine *machine;
	struct hw_nodes nodes;
	struct context context[CONTEXTS], *current;
	u64 turn;
	u32 generation;
	struct hw_guest_mode mode;
	struct record *record[RECORD_BUCKETS];
	unsigned records, uses;
	u8 entry_size; /* of the guest's tables, in this mode */
	u64 watched_seen, writes_seen; /* how far the logs have been followed */
	u32 writer_bucket[WRITER_BUCKETS]; /* index + 1 */
	struct writer *writer; /* a host table */
	u32 writers;
};

static inline void shadow_forget(struct shadow *s)
{
	__atomic_fetch_add(&s->generation, 1, __ATOMIC_SEQ_CST);
}

/* ---- shadow.c ---- */

/* Take everything out of all trees. */
void shadow_empty(struct shadow *s);
/* Take everything out of a context, and free it; of all contexts, and watch nothing any more. Not with the machine's lock. */
void shadow_evict(struct shadow *s, struct context *c);
void shadow_drop(struct shadow *s);

/* ---- shadow_watch.c ---- */

/* Watch the tables that a walk went through. False: that cannot be; nothing may be entered. *fresh: some were not watched before, so what was read of them may be
 * old, and it must be done again. */
bool shadow_watch(struct shadow *s, gla_t gla, const struct walk_trace *trace, bool *fresh);
/* What is about to be entered was derived from these entries. */
void shadow_note(struct shadow *s, const struct walk_trace *trace);
/* Follow both logs. */
void shadow_follow(struct shadow *s);
/* Compare all. */
void shadow_compare_all(struct shadow *s);
void shadow_end_uses(struct shadow *s, struct context *c);
/* When there are no uses. */
void shadow_end_records(struct shadow *s);

/* ---- shadow_writers.c ---- */

/* The entry lets the guest write. False: there are too many. */
bool shadow_add_writer(struct shadow *s, u64 *where);
/* Whoever could write to the page of physical memory cannot any more. */
void shadow_take_writers(struct shadow *s, u64 physical);

#endif
