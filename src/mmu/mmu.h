/* Guest address translation for all users: the walker of the guest's page tables (32-bit, PAE, 4-level, 5-level), the
 * software TLB that caches it, and access to guest memory by linear address.
 * Intel SDM volume 3, "Paging"; AMD APM volume 2, "Page Translation and Protection". */
#ifndef NADIR_MMU_MMU_H
#define NADIR_MMU_MMU_H

#include "arch/types.h"
#include "mmu/ram.h"
#include "vcpu/vcpu.h"

/* Kind of access, and who does it. */
enum access {
	ACCESS_READ = 0,
	ACCESS_WRITE = 1,
	ACCESS_EXEC = 2,
	ACCESS_KIND = 3,
	/* Supervisor-mode access whatever CPL is (descriptor tables, TSS, ring-0 stack during a transfer): "implicit",
	 * so EFLAGS.AC does not lift SMAP. Intel SDM volume 3, "Access Rights". */
	ACCESS_IMPLICIT = 4,
	/* A read that is going to be written back (read-modify-write): write permission is demanded and D is set. */
	ACCESS_RMW = ACCESS_WRITE,
};

/* Privilege views of the software TLB: which of the rules apply. Each has its own table, so that a change of CPL or AC
 * never flushes. */
enum tlb_view {
	VIEW_USER,
	VIEW_SUPERVISOR, /* SMAP off, or lifted by AC */
	VIEW_SUPERVISOR_SMAP,
	VIEW_COUNT
};

/* Bits 31:12 of a linear address are its index, so that cutting it off needs no mask. */
#define TLB_INDEX_BITS 20
#define TLB_ENTRIES (1u << TLB_INDEX_BITS)
#define TLB_LIST_MAX (1u << 16)

/* What is known of an entry beside its tags. */
#define TLB_VALID BIT(0)
#define TLB_EXEC BIT(1) /* may be executed, too */
#define TLB_GLOBAL BIT(2) /* survives a CR3 load */
#define TLB_SIZE(code) ((code) << 3) /* of the guest's page that this is a piece of: an index of tlb_page_shift */
#define TLB_LISTED(list) BIT(6 + (list)) /* it is in that list */

/* Entries that may be valid, so that a flush visits only these. */
struct tlb_list {
	u32 count;
	u32 index[TLB_LIST_MAX];
};

/* The TLB of one privilege view. Large, and little of it is ever touched (host_table_create): the entries of 512 pages side by side share a
 * page of each array. A read or write tag equals the page's linear address where that access is allowed at once; else it is 0, or for index
 * 0, whose page 0 may be, the page of another index: then neither comparing nor subtracting can take an address of this index for a hit.
 * The write tag is valid only where D is set already, and, where ram->protect_code, where the page holds no code. MMIO pages are never
 * entered. Pages that may be executed but not read (supervisor under SMAP without SMEP) are not entered either. */
struct tlb_table {
	alignas(4096) u64 read[TLB_ENTRIES]; /* so that each view's groups are pages */
	u64 write[TLB_ENTRIES];
	u64 addend[TLB_ENTRIES]; /* from a linear address of the page to its host address */
	u8 info[TLB_ENTRIES];
	struct tlb_list list[2]; /* of entries that are not global, and of those that are */
	u64 regions[TLB_ENTRIES / 512 / 64]; /* groups of 512 entries ever touched */
};

/* Execute translations that somebody remembers by a salt (mmu_note_exec): the pages, and 2-MByte regions with large pages, hashed. All lie
 * within a range, which keeps out most of the pages that are only data. */
struct exec_notes {
	u64 page[16], large[4];
	u64 last, first_inverted; /* zero: none */
	u16 salt, narrow_salt; /* of 64-bit code, and of 16- and 32-bit code, whose RIP alone does not say where it is (vcpu->code_number) */
};

/* What the guest invalidated of an address space's user pages, for spaces, which keep translations of their own (mmu/user.c). */
#define STALE_RANGES 32
struct stale {
	bool watched; /* somebody keeps translations */
	bool global; /* global pages among them */
	bool all;
	u8 ranges;
	struct {
		gla_t start, end;
	} range[STALE_RANGES];
};

/* The TLB of one address space (PCID); `current` of the mmu points at the one in use. */
struct tlb {
	struct tlb_table table[VIEW_COUNT];
	/* Which regions have pieces of 2/4-MByte and 1-GByte pages, hashed; not global, and global. */
	alignas(4096) u64 large[2][4];
	u64 huge[2];
	struct exec_notes user; /* of CPL 3 */
	unsigned regions; /* groups of entries touched */
	struct stale stale;
};

static inline unsigned tlb_index(gla_t gla)
{
	return (u32)gla >> PAGE_SHIFT;
}

/* A tag that no address of this index matches. */
static inline u64 tlb_no_tag(unsigned index)
{
	return index ? 0 : PAGE_SIZE;
}

static inline unsigned tlb_page_shift(u8 info)
{
	static const u8 shift[] = { PAGE_SHIFT, 21, 22, 30 };
	return shift[info >> 3 & 3];
}

#define MMU_CONTEXTS 8 /* how many PCIDs are held at once */
#define UNWRITABLE_LOG 16

/* What was invalidated since somebody looked last, for translations that are kept elsewhere (engine/hw): in the current address space, whatever its PCID. */
#define INVALID_PAGES 8
struct invalid {
	bool all;
	bool local; /* what is not global */
	u8 pages;
	gla_t page[INVALID_PAGES];
};

struct mmu {
	struct tlb *current;
	struct tlb_table *explicit; /* current's table of `view`: where explicit accesses look first */
	u8 view;          /* enum tlb_view of explicit accesses now; kept by mmu_update_view */
	u8 implicit_view; /* of implicit supervisor accesses */
	struct tlb *context[MMU_CONTEXTS];
	u16 context_pcid[MMU_CONTEXTS];
	u8 context_used;    /* contexts that hold a PCID */
	u8 context_next;    /* replaced next */
	/* Of the other levels, for all address spaces, since a kernel's pages are global; if some were not, for the current one. */
	struct exec_notes supervisor;
	bool supervisor_local;
	u16 salt_last;
	unsigned regions; /* groups of entries touched, in all tables */
	u64 walks, flushes; /* statistics */
	u64 user_entries; /* how often CPL became 3, about */
	/* Pages, by their host address, that lost their write tags (NULL: all), in turn; for whoever else keeps write permissions. */
	const u8 *unwritable[UNWRITABLE_LOG];
	u64 unwritables;
	/* Other threads ask this vCPU to drop its write tags (mmu_protect_code). Atomic. */
	u32 drop_wanted, drop_done;
	bool running; /* it may store through its tags */
	struct invalid invalid;
	struct journal *journal; /* of its stores (mmu/journal.h), or NULL: a write tag is then for a page noted there */
};

/* Create the mmu of a vCPU (vcpu->ram is set). Returns 0 or a negative value. */
int mmu_create(struct vcpu *vcpu);
void mmu_destroy(struct vcpu *vcpu);

/* Must be called when vcpu->code_number became zero or ceased to be. */
static inline void mmu_update_salt(struct vcpu *vcpu)
{
	const struct exec_notes *notes = vcpu->cpl == 3 ? &vcpu->mmu->current->user : &vcpu->mmu->supervisor;
	vcpu->jump_salt = vcpu->code_number ? notes->narrow_salt : notes->salt;
}

/* Must be called when CPL, EFLAGS.AC or CR4.SMAP changed. Cheap. */
static inline void mmu_update_view(struct vcpu *vcpu)
{
	u8 smap = (vcpu->cr4 & CR4_SMAP) ? VIEW_SUPERVISOR_SMAP : VIEW_SUPERVISOR;
	vcpu->mmu->implicit_view = smap;
	if (vcpu->cpl == 3)
		vcpu->mmu->view = VIEW_USER, vcpu->mmu->user_entries++;
	else
		vcpu->mmu->view = (vcpu->rflags & RFLAGS_AC) ? VIEW_SUPERVISOR : smap;
	vcpu->mmu->explicit = vcpu->tlb = &vcpu->mmu->current->table[vcpu->mmu->view];
	mmu_update_salt(vcpu);
}

/* Flushes. Intel SDM volume 4/3, "Invalidation of TLBs and Paging-Structure Caches". */
void mmu_flush_all(struct vcpu *vcpu);             /* every context, global pages too */
void mmu_discard(struct vcpu *vcpu);               /* empty the TLB to give its memory back, though all in it holds; between instructions */
void mmu_flush_nonglobal(struct vcpu *vcpu);       /* current PCID, not global pages */
void mmu_flush_page(struct vcpu *vcpu, gla_t gla); /* INVLPG: current PCID, and global pages of every context */
/* INVPCID; type 0 to 3, already checked by the caller. */
void mmu_invpcid(struct vcpu *vcpu, unsigned type, u16 pcid, gla_t gla);
/* Accesses to the page are watched, all or stores only: its tags go, and none are given as long as vcpu->debug says so. */
void mmu_watch_page(struct vcpu *vcpu, gla_t page, bool reads);
/* All that is remembered by salts is to be looked up again. */
void mmu_forget_exec(struct vcpu *vcpu);
/* CR3 was loaded: select the PCID's context; flush it unless noflush. */
void mmu_load_cr3(struct vcpu *vcpu, bool noflush);
/* PAE paging: read the four PDPTEs at cr3 and check reserved bits; false: #GP(0) is in vcpu->fault, nothing changed. */
bool mmu_load_pdptes(struct vcpu *vcpu, u64 cr3);

/* Somebody remembers where the code at gla, which is in the TLB, is, under vcpu->jump_salt: when the translation may have changed, the
 * salt changes. When salts have run out, they begin anew and vcpu->jump_cache, if any, is cleared. */
static inline void mmu_note_exec(struct vcpu *vcpu, gla_t gla)
{
	struct mmu *mmu = vcpu->mmu;
	struct exec_notes *notes = vcpu->cpl == 3 ? &mmu->current->user : &mmu->supervisor;
	u8 info = mmu->explicit->info[tlb_index(gla)];
	unsigned shift = tlb_page_shift(info);
	u64 offset = BIT(shift) - 1;
	notes->last = MAX(notes->last, gla | offset);
	notes->first_inverted = MAX(notes->first_inverted, ~(gla & ~offset));
	notes->page[gla >> 18 & 15] |= BIT(gla >> PAGE_SHIFT & 63);
	if (shift != PAGE_SHIFT)
		notes->large[gla >> 27 & 3] |= shift < 30 ? BIT(gla >> 21 & 63) : ~0ull;
	if (!(info & TLB_GLOBAL) && vcpu->cpl != 3)
		mmu->supervisor_local = true;
}
#define JUMP_CACHE_BITS 16
#define JUMP_CACHE_ENTRIES (1u << JUMP_CACHE_BITS) /* of two words, the tags first */
/* Where a RIP is in it. Functions are aligned: their low bits alone would crowd. */
#define JUMP_MULTIPLIER 0x9e3779b1u
#define JUMP_INDEX(rip) ((u32)(rip) * JUMP_MULTIPLIER >> (32 - JUMP_CACHE_BITS))

/* A translation that stands for one page. */
struct translation {
	gpa_t gpa; /* of the address asked for */
	u8 *hva;   /* of the address asked for, or NULL for MMIO and for a write to ROM: use mmu_read and mmu_write there */
	u8 *flags; /* ram flags of the page, NULL with hva */
	u32 *generation;
};

/* Translate for an access by the vCPU as it is now; sets A and D as hardware does. `access` is one kind, perhaps with
 * ACCESS_IMPLICIT. False: #PF is in vcpu->fault (CR2 is set when it is delivered). Canonicality is the caller's
 * check. */
bool mmu_translate(struct vcpu *vcpu, gla_t gla, unsigned access, struct translation *out);

/* Translate without faults and without setting A or D, for debuggers: false if not mapped. */
bool mmu_debug_translate(struct vcpu *vcpu, gla_t gla, gpa_t *gpa);

/* The host address of gla if the table has it for that access and the access does not cross the page, else NULL. */
static inline u8 *tlb_table_lookup(const struct tlb_table *table, gla_t gla, unsigned size, unsigned kind)
{
	unsigned index = tlb_index(gla);
	u64 tag = kind == ACCESS_WRITE ? table->write[index] : table->read[index];
	if (unlikely(gla - tag > PAGE_SIZE - size) || (kind == ACCESS_EXEC && !(table->info[index] & TLB_EXEC)))
		return NULL;
	return (u8 *)(uintptr_t)(gla + table->addend[index]);
}

/* The same in the current address space. */
static inline u8 *tlb_lookup(const struct mmu *mmu, u8 view, gla_t gla, unsigned size, unsigned kind)
{
	return tlb_table_lookup(&mmu->current->table[view], gla, size, kind);
}

/* The same for the view of explicit accesses as it is now. */
static inline u8 *tlb_lookup_explicit(const struct mmu *mmu, gla_t gla, unsigned size, unsigned kind)
{
	return tlb_table_lookup(mmu->explicit, gla, size, kind);
}

/* Read or write `size` bytes (1 to 4096) at a linear address, across pages, RAM or MMIO. Both pages of a crossing
 * access are translated before any byte moves. MMIO goes through vcpu->ops->exit in naturally sized pieces of up to 8
 * bytes. The linear address wraps at 32 bits outside 64-bit mode. A write into a page that holds code bumps its
 * generation and sets PENDING_CODE. False: #PF is in vcpu->fault. */
bool mmu_read(struct vcpu *vcpu, gla_t gla, void *buf, unsigned size, unsigned access);
bool mmu_write(struct vcpu *vcpu, gla_t gla, const void *buf, unsigned size, unsigned access);
/* Check that a later mmu_write of these bytes will not fault; sets A and D. */
bool mmu_probe_write(struct vcpu *vcpu, gla_t gla, unsigned size, unsigned access);

/* Whether the one who asks, who is `running`, may store to a page of RAM, just translated for that, without looking whether it holds
 * code, until the vCPU serves others again (mmu_serve). */
bool mmu_may_store(struct vcpu *vcpu, const struct translation *page);
/* Mark a page as one whose bytes are about to be decoded or translated. Where ram->protect_code, no vCPU holds a write tag for it when this
 * returns; may wait for other vCPUs, so no lock may be held. */
void mmu_protect_code(struct vcpu *vcpu, const struct translation *page);
/* Do what others asked for by mmu_protect_code. To be called often, at least before a vCPU goes on after PENDING_CODE. */
void mmu_serve(struct vcpu *vcpu);
/* Every right to store is to be asked for again: drop the write tags of a vCPU that does not run, on any thread. */
void mmu_drop_writes(struct vcpu *vcpu);
/* The vCPU begins or stops to run guest code with write tags. */
void mmu_set_running(struct vcpu *vcpu, bool running);

/* ---- for spaces (host/port.h), which are second TLBs for VIEW_USER ---- */

struct user_page {
	u8 *hva; /* NULL: not to be used now */
	gpa_t gpa;
	u8 page_shift;
	bool write; /* stores need nothing: D is set, the page holds no code */
	bool exec;
	u8 *flags; /* with hva: of the page, as in struct translation */
	u32 *generation;
};
#define USER_PAGES_MAX 512

/* The `count` pages from gla on, in one 2-MByte region, as CPL 3 may read them without more ado: A is set. 4-level paging. A page that is
 * given out for writing counts as one with a write tag. */
void mmu_user_pages(struct vcpu *vcpu, gla_t gla, unsigned count, struct user_page *out);
/* Whether CPL 3 may fetch from the page now, without setting A; *gpa is the page's, *page_shift its size. */
bool mmu_user_executes(struct vcpu *vcpu, gla_t gla, gpa_t *gpa, u8 *page_shift);
/* Whether any page of the naturally aligned GByte at gla may be mapped. 4-level paging. */
bool mmu_maps_gigabyte(struct vcpu *vcpu, gla_t gla);

/* After a direct store through a host pointer that a translation gave. */
static inline void mmu_stored(struct vcpu *vcpu, u8 *flags, u32 *generation)
{
	if (unlikely(*flags & PAGE_CODE)) {
		ram_code_written(vcpu->ram, flags, generation);
		vcpu_set_pending(vcpu, PENDING_CODE);
	}
}

/* After a store where the TLB said. Where code is protected, no page with code has a write tag. */
static inline void mmu_stored_at(struct vcpu *vcpu, const u8 *hva)
{
	struct ram *ram = vcpu->ram;
	if (ram->protect_code)
		return;
	const struct ram_slot *slot = ram_slot_at(ram, hva);
	u64 page = (u64)(hva - slot->hva) >> PAGE_SHIFT;
	mmu_stored(vcpu, &slot->flags[page], &slot->generation[page]);
}

#endif
