/* How guest memory reaches the hardware's virtualization (E): the tables that the CPU walks while a guest runs, made by one of several back ends.
 *
 *	nested	EPT or NPT: guest physical addresses to host physical ones, one set of tables for all vCPUs of a VM (nested.c)
 *	shadow	brute-force shadowing: the same, but always as the guest's tables are, which are write-protected for that (shadow.h)
 *	vtlb	where there is neither: a virtual TLB, guest linear addresses to host physical ones, in tables of each vCPU that the real CR3 points to (vtlb.c)
 *
 * An engine does it like this, on the vCPU's thread:
 *
 *	m->ops->prepare(m);                      // may wait for others
 *	held = host_hold();
 *	root = m->ops->root(m);                  // EPTP, nCR3 or CR3 is made of it
 *	if (hw_memory_stale(m, host_cpu()))
 *		... INVEPT and INVVPID, or TLB_CONTROL: nothing is to be left of what this vCPU used on this CPU ...
 *	... enter, leave ...
 *	host_release(held);
 *	switch (m->ops->fault(m, address, error)) ...
 *
 * What the guest invalidates (MOV to CR3, INVLPG, changes of CR0, CR4 and EFER...) reaches the back ends by struct mmu's `invalid`, which the functions of mmu/mmu.h
 * keep, whoever calls them. An engine that empties the software TLB for its own sake calls hw_memory_forget.
 *
 * What takes rights away from a guest changes the tables first, then raises *m->generation, then calls host_barrier_all: a vCPU that was in
 * the guest has left it by then, and is told to forget before it enters again. So roots and generations are read only where interrupts are off.
 *
 * Tables hold host physical addresses of guest RAM, and of nothing else: what is not RAM is not mapped, and leaves as a fault (E7). Their pages are
 * from host_pages_create. Entries are written by single stores, and the CPU's own accessed and dirty bits are set in them from the start. */
#ifndef NADIR_ENGINE_HW_MEMORY_H
#define NADIR_ENGINE_HW_MEMORY_H

#include "mmu/mmu.h"
#include "vcpu/vcpu.h"

/* ---- formats ---- */

/* The bits of entries in one kind of tables. All have 512 entries of 8 bytes a table, the address in bits 51:12, and leaf bits that mean a page
 * of 2 MiB or 1 GiB. Intel SDM volume 3, "The Extended Page Table Mechanism (EPT)"; AMD APM volume 2, "Nested Paging"; both, "4-Level Paging".
 * An engine whose CPU has less takes a copy and changes it. */
struct hw_format {
	const char *name;
	u64 present;    /* in every entry that is used; not write, which EPT has apart */
	u64 write;
	u64 execute;    /* set: may be executed; 0: there is no such bit */
	u64 no_execute; /* set: may not be */
	u64 user;       /* without it for CPL 0 to 2 only; in EPT there is no such bit */
	u64 global;
	u64 used;       /* accessed and dirty, of leaves; accessed alone, of others */
	u64 large;
	u64 ram;        /* memory type of a leaf: write-back, whatever the guest's PAT says where that can be said */
	u8 levels;
	u8 largest;     /* of pages, as a shift: 12, 21 or 30 */
};

extern const struct hw_format hw_format_ept, hw_format_npt;
extern const struct hw_format hw_format_shadow; /* ordinary tables, for all that is not nested */

/* ---- back ends ---- */

/* Error codes are those of page faults (arch/exception.h): PF_P, PF_WR, PF_US, PF_ID, as SVM gives them in EXITINFO1 of nested page faults too.
 * An EPT violation makes PF_WR of exit qualification bit 1, PF_ID of bit 2, PF_P of any of bits 5:3. */
enum hw_fault {
	HW_FAULT_RETRY,   /* filled: enter again */
	HW_FAULT_GUEST,   /* the guest's own #PF: it is in vcpu->fault */
	HW_FAULT_DEVICE,  /* what is at m->device is not RAM, and may be accessed so */
	HW_FAULT_STORE,   /* what is at m->device is RAM that may be written, but not by the processor: who writes it says so */
	HW_FAULT_EMULATE, /* step does the instruction: read-only memory, or no memory for tables */
};

struct hw_memory;

/* Bits of control registers that are not the guest's while it runs: where `own` has a bit, the real register has that of `value`. The guest reads
 * its own, and writing them leaves the guest; unless nested, so do INVLPG, MOV from and to CR3, and page faults, and PAT is the host's. */
struct hw_control {
	struct {
		u64 own, value;
	} cr0, cr4, efer;
};

struct hw_memory_ops {
	const char *name; /* for --mmu */
	bool nested; /* addresses of faults are guest physical ones, and the guest's page faults and CR3 are its own affair */
	/* The format must live as long. NULL: no memory. vCPUs of one VM are created and destroyed one at a time. */
	struct hw_memory *(*create)(struct vcpu *vcpu, const struct hw_format *format);
	void (*destroy)(struct hw_memory *m);
	/* Before each entry, with nothing held: follow what changed in vcpu->ram, and what the guest invalidated. Control registers, EFER and PDPTEs of the guest are
	 * in struct vcpu. */
	void (*prepare)(struct hw_memory *m);
	/* After prepare: what the real control registers are to have. */
	void (*control)(struct hw_memory *m, struct hw_control *control);
	/* Physical address of the top table. Between host_hold and host_release. */
	u64 (*root)(struct hw_memory *m);
	/* The guest left by a fault at this address; with nothing held. Unless nested, what prepare wants is in struct vcpu, and CPL and EFLAGS.AC. If it left while it
	 * delivered an event, that is to be delivered again, or combined with the guest's own fault. */
	enum hw_fault (*fault)(struct hw_memory *m, u64 address, u32 error);
};

/* What all back ends have; each has more behind it. */
struct hw_memory {
	const struct hw_memory_ops *ops;
	const struct hw_format *format;
	struct vcpu *vcpu;
	u32 *generation; /* atomic; of the tables */
	u32 seen, cpu; /* the generation at the last entry, and where that was */
	bool invalid; /* the guest invalidated something */
	gpa_t device; /* of a fault answered by DEVICE or STORE */
	u8 stored; /* bytes that the engine has written there since; 0: none, or step wrote them */
	bool elsewhere; /* of hw_memory_nested: the vCPU's local APIC is not at its usual address */
	u64 fills, emulated; /* statistics: faults answered by RETRY, and by others than that and GUEST */
};

extern const struct hw_memory_ops hw_memory_nested, hw_memory_shadow, hw_memory_vtlb;

/* The back end that the vCPU's mmu_mode stands for, if the processor has nested paging or has not; NULL: it has not, though it must. */
static inline const struct hw_memory_ops *hw_memory_choose(enum mmu_mode mode, bool nested)
{
	switch (mode) {
	case MMU_SHADOW:
		return &hw_memory_shadow;
	case MMU_VTLB:
		return &hw_memory_vtlb;
	case MMU_NESTED:
		return nested ? &hw_memory_nested : NULL;
	default:
		return nested ? &hw_memory_nested : &hw_memory_vtlb;
	}
}

/* Of hw_memory_nested, when a vCPU is created: from now on the usual page of local APICs is not answered by faults, but leads to a page of this physical address, the same for
 * all vCPUs, which the processor is to know as the one that stands for accesses to a local APIC. 0: there is no memory. */
u64 hw_nested_apic(struct hw_memory *m);

/* Just before an entry on this CPU, between host_hold and host_release: whether all that the CPU may hold of the tables for this vCPU must be
 * invalidated now; it counts as done. A vCPU that moves between CPUs must, since it may find there what it left long ago. */
static inline bool hw_memory_stale(struct hw_memory *m, u32 cpu)
{
	u32 generation = __atomic_load_n(m->generation, __ATOMIC_SEQ_CST);
	if (likely(m->seen == generation && m->cpu == cpu && !m->invalid))
		return false;
	m->seen = generation;
	m->cpu = cpu;
	m->invalid = false;
	return true;
}

/* The guest ran, so the software TLB is out of date; the guest invalidated nothing by that. */
static inline void hw_memory_forget(struct hw_memory *m)
{
	struct mmu *mmu = m->vcpu->mmu;
	struct invalid invalid = mmu->invalid;
	mmu_load_cr3(m->vcpu, false);
	mmu_flush_all(m->vcpu);
	mmu->invalid = invalid;
}

#endif
