/* Entries and tables of any format (engine/hw/memory.h), for the back ends that make them. Levels count from the last, which is 0. */
#ifndef NADIR_ENGINE_HW_TABLE_H
#define NADIR_ENGINE_HW_TABLE_H

#include "arch/paging.h"
#include "engine/hw/memory.h"
#include "mmu/ram.h"

#define HW_ENTRIES 512u

#define HW_WRITE BIT(0)
#define HW_EXECUTE BIT(1)
#define HW_USER BIT(2)
#define HW_GLOBAL BIT(3)

static inline unsigned hw_shift(unsigned level)
{
	return PAGE_SHIFT + 9 * level;
}

static inline unsigned hw_index(u64 address, unsigned level)
{
	return address >> hw_shift(level) & (HW_ENTRIES - 1);
}

static inline u64 hw_load(const u64 *entry)
{
	return __atomic_load_n(entry, __ATOMIC_SEQ_CST);
}

static inline void hw_store(u64 *entry, u64 value)
{
	__atomic_store_n(entry, value, __ATOMIC_SEQ_CST);
}

static inline bool hw_is_leaf(const struct hw_format *f, unsigned level, u64 entry)
{
	return !level || (entry & f->large);
}

/* The table that an entry leads to. */
u64 *hw_table_of(u64 entry);
/* An entry that leads to a table at this physical address and takes no rights away. */
u64 hw_table_entry(const struct hw_format *f, u64 physical);
u64 hw_leaf_entry(const struct hw_format *f, unsigned level, u64 physical, unsigned rights);

/* An empty table, or NULL. */
u64 *hw_table_create(void);
void hw_table_destroy(u64 *table);
/* An empty table that no entry leads to any more, though a CPU may still hold it, is put on a list, of which nothing looks present; all on it go
 * when no CPU can hold them. */
void hw_table_retire(u64 *table, u64 *list);
void hw_tables_destroy(u64 *list);

/* The page of host memory behind a page of guest RAM. */
struct hw_page {
	u64 physical; /* of the whole page */
	u8 level;
	bool write; /* the guest may store to it without being asked */
};

/* The largest page around gpa, of `level` at most, that guest and host have in one piece, and all of which the guest may use alike. False: the
 * host cannot map it at all. */
bool hw_page_find(const struct ram_slot *slot, gpa_t gpa, unsigned level, struct hw_page *page);

#endif
