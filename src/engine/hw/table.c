/* Entries and tables of any format, and what pages of the host lie behind guest RAM. */
#include "engine/hw/table.h"

#include "host/port.h"

#define A_AND_D(accessed, dirty) (BIT(accessed) | BIT(dirty))

/* Intel SDM volume 3, "EPT Paging-Structure Entries": read 0, write 1, execute 2, memory type 5:3 (6 is write-back), ignore PAT 6, large 7,
 * accessed 8, dirty 9. Bits 8 and 9 are ignored where the EPTP does not turn them on. Guests have no devices that look past the caches, so
 * that their PAT need not be obeyed. */
const struct hw_format hw_format_ept = {
	.name = "EPT",
	.present = BIT(0),
	.write = BIT(1),
	.execute = BIT(2),
	.used = A_AND_D(8, 9),
	.large = BIT(7),
	.ram = 6 << 3 | BIT(6),
	.levels = 4,
	.largest = 30,
};

/* AMD APM volume 2, "Nested Paging": the host's own format, and every access of a guest is one of user mode. PWT, PCD and PAT of 0 are the host's
 * PAT entry 0, write-back. */
const struct hw_format hw_format_npt = {
	.name = "NPT",
	.present = PTE_P,
	.write = PTE_W,
	.no_execute = PTE_NX,
	.user = PTE_U,
	.used = PTE_A | PTE_D,
	.large = PTE_PS,
	.levels = 4,
	.largest = 30,
};

/* Intel SDM volume 3, "4-Level Paging", "PAE Paging". The guest's larger pages are made of pages of 2 MiB. */
const struct hw_format hw_format_shadow = {
	.name = "shadow",
	.present = PTE_P,
	.write = PTE_W,
	.no_execute = PTE_NX,
	.user = PTE_U,
	.global = PTE_G,
	.used = PTE_A | PTE_D,
	.large = PTE_PS,
	.levels = 4,
	.largest = 21,
};

u64 *hw_table_of(u64 entry)
{
	return host_virtual(entry & PTE_ADDR);
}

/* Dirty is a leaf's; the bit is ignored here (EPT), or means nothing (NPT). */
u64 hw_table_entry(const struct hw_format *f, u64 physical)
{
	return physical | f->present | f->write | f->execute | f->user | (f->used & -f->used);
}

u64 hw_leaf_entry(const struct hw_format *f, unsigned level, u64 physical, unsigned rights)
{
	u64 entry = physical | f->present | f->used | f->ram | (level ? f->large : 0);
	entry |= (rights & HW_WRITE) ? f->write : 0;
	entry |= (rights & HW_EXECUTE) ? f->execute : f->no_execute;
	entry |= (rights & HW_USER) ? f->user : 0;
	entry |= (rights & HW_GLOBAL) ? f->global : 0;
	return entry;
}

u64 *hw_table_create(void)
{
	return host_pages_create(1);
}

void hw_table_destroy(u64 *table)
{
	host_pages_destroy(table, 1);
}

/* A page's address without any other bit is not present in any format. */
void hw_table_retire(u64 *table, u64 *list)
{
	hw_store(table, *list);
	*list = host_physical(table);
}

void hw_tables_destroy(u64 *list)
{
	while (*list) {
		u64 *table = host_virtual(*list);
		*list = hw_load(table);
		hw_table_destroy(table);
	}
}

/* ---- pages of the host ---- */

/* Whether memory is physically in a row, and where. */
static bool in_a_row(const u8 *hva, u64 size, u64 *physical)
{
	u64 run;
	*physical = host_physical_run(hva, &run);
	for (u64 there = run; run && there < size; there += run)
		if (host_physical_run(hva + there, &run) != *physical + there)
			return false;
	return run;
}

/* What is not written without being asked for. */
#define PAGE_WATCHED (PAGE_READONLY | PAGE_TABLE)

#define EIGHT_FLAGS 0x0101010101010101ull

/* `count` is a multiple of 8. */
static bool alike(const struct ram_slot *slot, u64 first, u64 count)
{
	u64 watched = (__atomic_load_n(&slot->flags[first], __ATOMIC_SEQ_CST) & PAGE_WATCHED) * EIGHT_FLAGS, eight;
	for (u64 i = first; i < first + count; i += 8) {
		__builtin_memcpy(&eight, &slot->flags[i], sizeof(eight));
		if ((eight & PAGE_WATCHED * EIGHT_FLAGS) != watched)
			return false;
	}
	return true;
}

/* What is logged page by page is mapped so. */
static bool page_fits(const struct ram_slot *slot, gpa_t gpa, unsigned level, struct hw_page *page)
{
	u64 size = BIT(hw_shift(level)), offset = (gpa & ~(size - 1)) - slot->base;
	if (offset >= slot->size || size > slot->size - offset || (level && slot->log_dirty))
		return false;
	return in_a_row(slot->hva + offset, size, &page->physical) && !(page->physical & (size - 1)) &&
	       (!level || alike(slot, offset >> PAGE_SHIFT, size >> PAGE_SHIFT));
}

static bool may_write(const struct ram_slot *slot, gpa_t gpa)
{
	u8 flags = __atomic_load_n(&slot->flags[(gpa - slot->base) >> PAGE_SHIFT], __ATOMIC_SEQ_CST);
	return !slot->readonly && !(flags & PAGE_WATCHED) && (!slot->log_dirty || (flags & PAGE_DIRTY));
}

bool hw_page_find(const struct ram_slot *slot, gpa_t gpa, unsigned level, struct hw_page *page)
{
	for (page->level = (u8)level; !page_fits(slot, gpa, page->level, page); page->level--)
		if (!page->level)
			return false;
	page->write = may_write(slot, gpa);
	return true;
}
