/* Building the trial guest in its memory: page tables, descriptor tables, code. */
#include "host/linux/probe_guest.h"

#include <string.h>

#include "arch/exception.h"
#include "arch/paging.h"

extern const u8 probe_guest_start[];
extern const u32 probe_guest_size, probe_guest_invalid_opcode, probe_guest_unexpected;

static void put(u8 *memory, u64 address, u64 value)
{
	memcpy(memory + address, &value, sizeof(value));
}

static void build_page_tables(u8 *memory)
{
	const u64 table = PTE_P | PTE_W | PTE_U, page = PTE_P | PTE_W | PTE_PS;
	put(memory, TRIAL_PML4, TRIAL_PDPT | table);
	put(memory, TRIAL_PML4 + 511 * 8, TRIAL_PDPT_HIGH | table);
	put(memory, TRIAL_PDPT, TRIAL_PD | table);
	put(memory, TRIAL_PDPT_HIGH + 510 * 8, TRIAL_PD | table);
	put(memory, TRIAL_PD, page);
	put(memory, TRIAL_PD + 8, page | PTE_U); /* TRIAL_USER_ALIAS */
	put(memory, TRIAL_PD + 16, TRIAL_MMIO_GPA | page | PTE_PCD);
	put(memory, TRIAL_PD + 24, TRIAL_PT | table); /* TRIAL_WINDOW */
	memcpy(memory + TRIAL_PML4_COPY, memory + TRIAL_PML4, PAGE_SIZE);
}

/* The selectors of Linux: 0x10 and 0x18 for the kernel, 0x2b and 0x33 for 64-bit user code. */
static void build_descriptors(u8 *memory)
{
	const u64 code = 0x00af9b000000ffff, data = 0x00cf93000000ffff, dpl3 = 3ull << 45;
	put(memory, TRIAL_GDT + 0x10, code);
	put(memory, TRIAL_GDT + 0x18, data);
	put(memory, TRIAL_GDT + 0x28, data | dpl3);
	put(memory, TRIAL_GDT + 0x30, code | dpl3);
	put(memory, TRIAL_GDT + TRIAL_TSS_SELECTOR, 0x0000890000000067 | (u64)TRIAL_TSS << 16);
	put(memory, TRIAL_TSS + 4, TRIAL_STACK_TOP);
	for (unsigned vector = 0; vector < 32; vector++) {
		u64 address = TRIAL_CODE + (vector == VEC_UD ? probe_guest_invalid_opcode : probe_guest_unexpected);
		put(memory, TRIAL_IDT + vector * 16,
		    (address & 0xffff) | 0x10 << 16 | 0x8eull << 40 | address >> 16 << 48);
	}
}

void probe_guest_build(u8 *memory)
{
	memcpy(memory + TRIAL_CODE, probe_guest_start, probe_guest_size);
	build_page_tables(memory);
	build_descriptors(memory);
}
