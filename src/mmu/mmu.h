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

#define TLB_ENTRY_BITS 10
#define TLB_ENTRIES (1u << TLB_ENTRY_BITS)

/* One page of one view. A tag equals the page's linear address where that access is allowed at once; else it is a page address that
 * belongs to another index, so that neither comparing nor subtracting it can take an address of this index for a hit.
 * The write tag is valid only where D is set already, and, where ram->protect_code, where the page holds no code. MMIO pages
 * are never entered here. */
struct tlb_entry {
	u64 read, write, exec;
	u8 *host; /* of the page */
	gpa_t gpa;  /* of the page */
	u8 *flags;  /* the page's ram flags (mmu/ram.h): a store looks for PAGE_CODE after it hit */
	u32 *generation;
	bool global;   /* survives a CR3 load */
	u8 page_shift; /* size of the guest's page that this is a piece of */
};
_Static_assert(sizeof(struct tlb_entry) == 64, "one cache line an entry");

/* Execute translations that somebody remembers by a salt (mmu_note_exec): the pages, and 2-MByte regions with large pages, hashed. */
struct exec_notes {
	u64 page[16], large[4];
	u16 salt;
};

/* The TLB of one address space (PCID); `current` of the mmu points at the one in use. */
struct tlb {
	alignas(64) struct tlb_entry entry[VIEW_COUNT][TLB_ENTRIES];
	u64 used[VIEW_COUNT][TLB_ENTRIES / 64]; /* entries that may be valid, so that a flush visits only these */
	u64 large[4], huge;                     /* which regions have pieces of 2/4-MByte and 1-GByte pages, hashed */
	struct exec_notes user; /* of CPL 3 */
};

static inline unsigned tlb_index(gla_t gla)
{
	return gla >> PAGE_SHIFT & (TLB_ENTRIES - 1);
}

/* A tag that no address of this index matches. */
static inline u64 tlb_no_tag(unsigned index)
{
	return (u64)(index ^ 1) << PAGE_SHIFT;
}

static inline bool tlb_tag_valid(u64 tag, unsigned index)
{
	return tlb_index(tag) == index;
}

static inline void *tlb_hva(const struct tlb_entry *e, gla_t gla)
{
	return e->host + (gla & ~PAGE_MASK);
}

#define MMU_CONTEXTS 8 /* how many PCIDs are held at once */

struct mmu {
	struct tlb *current;
	struct tlb_entry *explicit; /* current's entries in `view`: where explicit accesses look first */
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
	u64 walks, flushes; /* statistics */
	/* Other threads ask this vCPU to drop its write tags (mmu_protect_code). Atomic. */
	u32 drop_wanted, drop_done;
	bool running; /* it may store through its tags */
};

/* Create the mmu of a vCPU (vcpu->ram is set). Returns 0 or a negative value. */
int mmu_create(struct vcpu *vcpu);
void mmu_destroy(struct vcpu *vcpu);

/* Must be called when CPL, EFLAGS.AC or CR4.SMAP changed. Cheap. */
static inline void mmu_update_view(struct vcpu *vcpu)
{
	u8 smap = (vcpu->cr4 & CR4_SMAP) ? VIEW_SUPERVISOR_SMAP : VIEW_SUPERVISOR;
	vcpu->mmu->implicit_view = smap;
	if (vcpu->cpl == 3)
		vcpu->mmu->view = VIEW_USER;
	else
		vcpu->mmu->view = (vcpu->rflags & RFLAGS_AC) ? VIEW_SUPERVISOR : smap;
	vcpu->mmu->explicit = vcpu->mmu->current->entry[vcpu->mmu->view];
	vcpu->tlb = vcpu->mmu->current->entry[vcpu->mmu->view];
	vcpu->jump_salt = vcpu->cpl == 3 ? vcpu->mmu->current->user.salt : vcpu->mmu->supervisor.salt;
}

/* Flushes. Intel SDM volume 4/3, "Invalidation of TLBs and Paging-Structure Caches". */
void mmu_flush_all(struct vcpu *vcpu);             /* every context, global pages too */
void mmu_flush_nonglobal(struct vcpu *vcpu);       /* current PCID, not global pages */
void mmu_flush_page(struct vcpu *vcpu, gla_t gla); /* INVLPG: current PCID, and global pages of every context */
/* INVPCID; type 0 to 3, already checked by the caller. */
void mmu_invpcid(struct vcpu *vcpu, unsigned type, u16 pcid, gla_t gla);
/* CR3 was loaded: select the PCID's context; flush it unless noflush. */
void mmu_load_cr3(struct vcpu *vcpu, bool noflush);
/* PAE paging: read the four PDPTEs at cr3 and check reserved bits; false: #GP(0) is in vcpu->fault, nothing changed. */
bool mmu_load_pdptes(struct vcpu *vcpu, u64 cr3);

/* Somebody remembers where the code at gla is, under vcpu->jump_salt: when the translation may have changed, the salt changes. When salts
 * have run out, they begin anew and vcpu->jump_cache, if any, is cleared. */
static inline void mmu_note_exec(struct vcpu *vcpu, const struct tlb_entry *e, gla_t gla)
{
	struct mmu *mmu = vcpu->mmu;
	struct exec_notes *notes = vcpu->cpl == 3 ? &mmu->current->user : &mmu->supervisor;
	notes->page[gla >> 18 & 15] |= BIT(gla >> PAGE_SHIFT & 63);
	if (e->page_shift != PAGE_SHIFT)
		notes->large[gla >> 27 & 3] |= e->page_shift < 30 ? BIT(gla >> 21 & 63) : ~0ull;
	if (!e->global && vcpu->cpl != 3)
		mmu->supervisor_local = true;
}
#define JUMP_CACHE_ENTRIES 65536u /* of two words, the tags first, indexed by the low bits of RIP */

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

/* Look gla up in the TLB for an explicit access; NULL if it is not there for that access, or if it crosses the page. */
static inline struct tlb_entry *tlb_lookup(struct mmu *mmu, u8 view, gla_t gla, unsigned size, unsigned kind)
{
	struct tlb_entry *e = &mmu->current->entry[view][tlb_index(gla)];
	u64 tag = kind == ACCESS_READ ? e->read : kind == ACCESS_WRITE ? e->write : e->exec;
	/* The tag of an access that crosses the page differs from the entry's. */
	return likely(tag == ((gla + size - 1) & PAGE_MASK) && tag == (gla & PAGE_MASK)) ? e : NULL;
}

/* The same for the view of explicit accesses as it is now. */
static inline struct tlb_entry *tlb_lookup_explicit(struct mmu *mmu, gla_t gla, unsigned size, unsigned kind)
{
	struct tlb_entry *e = &mmu->explicit[tlb_index(gla)];
	u64 tag = kind == ACCESS_READ ? e->read : kind == ACCESS_WRITE ? e->write : e->exec;
	return likely(tag == ((gla + size - 1) & PAGE_MASK) && tag == (gla & PAGE_MASK)) ? e : NULL;
}

/* Read or write `size` bytes (1 to 4096) at a linear address, across pages, RAM or MMIO. Both pages of a crossing
 * access are translated before any byte moves. MMIO goes through vcpu->ops->exit in naturally sized pieces of up to 8
 * bytes. The linear address wraps at 32 bits outside 64-bit mode. A write into a page that holds code bumps its
 * generation and sets PENDING_CODE. False: #PF is in vcpu->fault. */
bool mmu_read(struct vcpu *vcpu, gla_t gla, void *buf, unsigned size, unsigned access);
bool mmu_write(struct vcpu *vcpu, gla_t gla, const void *buf, unsigned size, unsigned access);
/* Check that a later mmu_write of these bytes will not fault; sets A and D. */
bool mmu_probe_write(struct vcpu *vcpu, gla_t gla, unsigned size, unsigned access);

/* Mark a page as one whose bytes are about to be decoded or translated. Where ram->protect_code, no vCPU holds a write tag for it when this
 * returns; may wait for other vCPUs, so no lock may be held. */
void mmu_protect_code(struct vcpu *vcpu, const struct translation *page);
/* Do what others asked for by mmu_protect_code. To be called often, at least before a vCPU goes on after PENDING_CODE. */
void mmu_serve(struct vcpu *vcpu);
/* The vCPU begins or stops to run guest code with write tags. */
void mmu_set_running(struct vcpu *vcpu, bool running);

/* After a direct store through a host pointer that a translation gave. */
static inline void mmu_stored(struct vcpu *vcpu, u8 *flags, u32 *generation)
{
	if (unlikely(*flags & PAGE_CODE)) {
		ram_code_written(vcpu->ram, flags, generation);
		vcpu_set_pending(vcpu, PENDING_CODE);
	}
}

#endif
