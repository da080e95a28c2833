/* The processor state that boot protocols start with, and the tables in guest memory it needs.
 * Linux, Documentation/arch/x86/boot.rst, "32-bit Boot Protocol" and "64-bit Boot Protocol"; Xen, "x86/HVM direct boot
 * ABI"; Multiboot Specification, "Machine state"; Intel SDM volume 3, "Initializing IA-32e Mode", "Segment
 * Descriptors". */
#include "boot/loader.h"

#include "arch/paging.h"
#include "mmu/mmu.h"

#define ATTR_CODE (SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_CODE | SEG_ATTR_READABLE | SEG_ATTR_ACCESSED)
#define ATTR_DATA (SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_WRITABLE | SEG_ATTR_ACCESSED)
#define ATTR_CODE32 (ATTR_CODE | SEG_ATTR_DB | SEG_ATTR_G)
#define ATTR_CODE64 (ATTR_CODE | SEG_ATTR_L | SEG_ATTR_G)
#define ATTR_DATA32 (ATTR_DATA | SEG_ATTR_DB | SEG_ATTR_G)
#define ATTR_TSS (SEG_ATTR_P | SYS_TSS_BUSY)

#define TSS_LIMIT 0x67
#define GDT_ENTRIES 6
#define PAGE_2M (2 * MIB)

static u64 descriptor(u32 limit, u32 attr)
{
	return (u64)(limit & 0xffff) | (u64)(limit >> 16 & 0xf) << 48 | (u64)(attr & 0xff) << 40 |
	       (u64)(attr & 0xf000) << 40;
}

/* PML4, PDPT and four page directories of 2 MiB pages: linear is physical below 4 GiB. */
static bool put_page_tables(struct boot_job *job)
{
	static const u64 table = PTE_P | PTE_W | PTE_A;
	u64 page[512] = { (BOOT_PAGE_TABLES + PAGE_SIZE) | table };

	if (!boot_copy(job, BOOT_PAGE_TABLES, page, sizeof(page)))
		return false;
	for (unsigned i = 0; i < 4; i++)
		page[i] = (BOOT_PAGE_TABLES + (2 + i) * PAGE_SIZE) | table;
	if (!boot_copy(job, BOOT_PAGE_TABLES + PAGE_SIZE, page, sizeof(page)))
		return false;
	for (unsigned i = 0; i < 4; i++) {
		for (u64 j = 0; j < 512; j++)
			page[j] = (i * 512 + j) * PAGE_2M | table | PTE_D | PTE_PS;
		if (!boot_copy(job, BOOT_PAGE_TABLES + (2 + i) * PAGE_SIZE, page, sizeof(page)))
			return false;
	}
	return true;
}

bool boot_put_descriptors(struct boot_job *job, enum boot_mode mode)
{
	const u64 gdt[GDT_ENTRIES] = {
		[BOOT_CS / 8] = descriptor(0xfffff, mode == BOOT_MODE_LONG ? ATTR_CODE64 : ATTR_CODE32),
		[BOOT_DS / 8] = descriptor(0xfffff, ATTR_DATA32),
		[BOOT_TSS / 8] = descriptor(TSS_LIMIT, ATTR_TSS),
	};

	job->entry->mode = mode;
	if (mode == BOOT_MODE_LONG && !put_page_tables(job))
		return false;
	return boot_copy(job, BOOT_GDT, gdt, sizeof(gdt));
}

static void set_real(struct vcpu *v)
{
	v->seg[SEG_CS].selector = 0;
	v->seg[SEG_CS].base = 0;
}

static void set_flat(struct vcpu *v, u32 code_attr)
{
	for (unsigned i = 0; i < SEG_COUNT; i++)
		v->seg[i] = (struct segment){ .selector = BOOT_DS, .attr = ATTR_DATA32, .limit = ~0u };
	v->seg[SEG_CS] = (struct segment){ .selector = BOOT_CS, .attr = code_attr, .limit = ~0u };
	v->tr = (struct segment){ .selector = BOOT_TSS, .attr = ATTR_TSS, .limit = TSS_LIMIT };
	v->gdtr = (struct table_register){ .base = BOOT_GDT, .limit = GDT_ENTRIES * 8 - 1 };
	v->cr0 = CR0_PE | CR0_ET;
}

static void set_long(struct vcpu *v)
{
	set_flat(v, ATTR_CODE64);
	v->cr3 = BOOT_PAGE_TABLES;
	v->cr4 = CR4_PAE;
	v->efer = EFER_LME | EFER_LMA;
	v->cr0 |= CR0_PG;
}

void boot_set_cpu(struct vcpu *v, const struct boot_entry *entry)
{
	if (entry->mode == BOOT_MODE_RESET)
		return;
	if (entry->mode == BOOT_MODE_REAL)
		set_real(v);
	else if (entry->mode == BOOT_MODE_PROTECTED)
		set_flat(v, ATTR_CODE32);
	else
		set_long(v);
	__builtin_memcpy(v->gpr, entry->gpr, sizeof(v->gpr));
	v->rip = v->next_rip = entry->rip;
	v->rflags = RFLAGS_FIXED1;
	v->cpl = 0;
	v->activity = ACTIVITY_ACTIVE;
	mmu_load_cr3(v, false);
	mmu_flush_all(v);
	mmu_update_view(v);
}
