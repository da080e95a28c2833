/* Guest physical memory: slots of host memory in the guest's physical address space. Everything outside a slot is MMIO.
 *
 * One byte of flags per guest page (E6 and self-modifying code hang on it): PAGE_CODE says that some vCPU holds decoded
 * or translated code of this page; PAGE_DIRTY that it was written since the last harvest. Every store into RAM, by a
 * vCPU or by a device, must end in ram_written() unless the page's flags are known to be clear of PAGE_CODE and, with
 * dirty logging on, already PAGE_DIRTY. So whoever keeps a right to store (a write tag, a writable mapping) keeps it for dirty pages only, and
 * loses it with a harvest.
 *
 * Slots are added before the vCPUs run. Afterwards they are constant, but that one may move while no vCPU runs (ram_move). Flags and generations
 * are atomic bytes and words. */
#ifndef NADIR_MMU_RAM_H
#define NADIR_MMU_RAM_H

#include "arch/types.h"

#define RAM_SLOTS_MAX 16
#define RAM_NOWHERE BIT(60) /* the base of a slot that no address reaches */

#define PAGE_CODE BIT(0)
#define PAGE_DIRTY BIT(1)
#define PAGE_STORED BIT(2) /* with protect_code: some TLB may hold a write tag for it */
#define PAGE_MIXED BIT(3)  /* with protect_code: code and data; PAGE_CODE stays when it is written */
#define PAGE_TABLE BIT(5) /* with PAGE_CODE: a shadow follows it as a page table; what is written there is logged, and no vCPU stores to it by hardware */
#define PAGE_READONLY BIT(4) /* stores of vCPUs are not carried out but leave as MMIO (ram_set_readonly) */

struct ram_slot {
	gpa_t base;
	u64 size;
	u8 *hva;
	bool readonly; /* writes are ignored: ROM */
	bool log_dirty; /* changes while no vCPU runs (ram_log) */
	u8 *flags;       /* one per page */
	u32 *generation; /* one per page: counts writes into pages with PAGE_CODE */
};

#define CODE_LOG_SIZE 256
#define RAM_USERS_MAX 64

struct vcpu;

struct ram {
	struct ram_slot slot[RAM_SLOTS_MAX];
	unsigned slots;
	u32 layout; /* atomic; changes with what is read-only or logged, with each harvest, and with places of slots */
	void *engine; /* of an engine that has slots of its own, shared by its vCPUs */
	u32 split_lock; /* atomic; held while a locked access that crosses a page is done in two pieces */
	/* A translator runs: pages that hold code have no write tags, and lose PAGE_CODE when they are written. Constant. */
	bool protect_code;
	/* Pages with code (with protect_code) or tables that were written, in turn: page number | (position + 1) << 40, so that a reader sees what it missed,
	 * and what is not written yet. Atomic. */
	u64 code_log[CODE_LOG_SIZE];
	u64 code_logged;
	struct vcpu *user[RAM_USERS_MAX]; /* vCPUs with write tags; constant once they run */
	unsigned users;
	u32 protecting; /* spin lock of mmu_protect_code */
	void *translated; /* what these vCPUs' translators share */
	/* The memory object that the writable slots are parts of (host_ram_create), if they are. Constant. */
	u8 *memory;
	u64 memory_size;
};

/* Add a slot. base and size are page multiples; slots must not overlap. The host memory stays the caller's; the flag
 * and generation arrays belong to the ram. Returns 0, or a negative value: too many slots, overlap, misalignment, no
 * memory. */
int ram_add(struct ram *ram, gpa_t base, u64 size, u8 *hva, bool readonly);
void ram_release(struct ram *ram);

/* Move the slot of this host memory, which is no part of ram->memory; at RAM_NOWHERE there is room for one. False, and nothing is moved: it would
 * overlap another, or is misaligned. No vCPU runs, and nobody else uses `ram`; afterwards each vCPU forgets what it holds of translations and
 * code. */
bool ram_move(struct ram *ram, const u8 *hva, gpa_t base);
/* Where the slot of this host memory is. */
gpa_t ram_place(const struct ram *ram, const u8 *hva);

/* The slot that holds gpa, or NULL. */
struct ram_slot *ram_find(struct ram *ram, gpa_t gpa);

/* The slot that holds the memory of a host address; there must be one. */
static inline const struct ram_slot *ram_slot_at(const struct ram *ram, const u8 *hva)
{
	const struct ram_slot *slot = ram->slot;
	while ((u64)(hva - slot->hva) >= slot->size)
		slot++;
	return slot;
}

/* Host pointer to [gpa, gpa + size), or NULL unless all of it lies in one slot. For devices and loaders; the caller of
 * a writing use calls ram_written afterwards. */
u8 *ram_pointer(struct ram *ram, gpa_t gpa, u64 size);

/* Copy between guest memory and a buffer, across slots; false if any byte is outside RAM (nothing is copied then).
 * ram_write ends in ram_written. */
bool ram_read(struct ram *ram, gpa_t gpa, void *buf, u64 size);
bool ram_write(struct ram *ram, gpa_t gpa, const void *buf, u64 size);

/* Whether stores of vCPUs to the page of gpa, which is in the slot, are not to change it. */
static inline bool ram_readonly(const struct ram_slot *slot, gpa_t gpa)
{
	return slot->readonly || (__atomic_load_n(&slot->flags[(gpa - slot->base) >> PAGE_SHIFT], __ATOMIC_SEQ_CST) & PAGE_READONLY);
}

/* Make whole pages of one slot read-only for vCPUs, or writable again; devices and loaders write them all the same. TLBs may hold older tags:
 * mmu_flush_all on every vCPU makes it hold. */
void ram_set_readonly(struct ram *ram, gpa_t gpa, u64 size, bool readonly);

/* The page of these flags, which hold PAGE_CODE, was written. */
void ram_code_written(struct ram *ram, u8 *flags, u32 *generation);

/* ---- the dirty log: which pages of ram->memory were written ----
 * Whoever starts or harvests it holds the VM still, and takes the rights to store away afterwards (vm_log_dirty, vm_harvest_dirty do all that). */

/* Log from now on, with no page dirty, or no more. */
void ram_log(struct ram *ram, bool on);
/* Words of a bitmap with a bit for each page of ram->memory, in the order of their addresses there. */
static inline u64 ram_log_words(const struct ram *ram)
{
	return ((ram->memory_size >> PAGE_SHIFT) + 63) / 64;
}
/* Add the pages written since the log was started or harvested last to the bitmap; none is dirty then. Their number. */
u64 ram_log_harvest(struct ram *ram, u64 *bitmap);
/* What else than ram_written knows that these pages of the slot were written (an engine's hardware) says so: a bit for each page from the slot's page
 * `first` on. */
void ram_log_add(struct ram_slot *slot, u64 first, u64 pages, const u64 *bitmap);

/* Tell that [gpa, gpa + size) was written: marks dirty, and bumps the generation of pages that hold code. Returns true
 * if any of them held code. */
bool ram_written(struct ram *ram, gpa_t gpa, u64 size);

#endif
