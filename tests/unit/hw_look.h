/* What the hardware would find in the tables of a shadow: the CPU's walk, 4-level or PAE as the control registers say. */
#ifndef NADIR_TESTS_HW_LOOK_H
#define NADIR_TESTS_HW_LOOK_H

#include "engine/hw/memory.h"
#include "small_vm.h"

struct found {
	bool present, write, user, execute;
	gpa_t gpa;
};

static inline gpa_t hw_gpa_of(const struct small_vm *vm, u64 physical)
{
	const u8 *hva = (const u8 *)(uintptr_t)physical;
	if (hva >= vm->memory && hva < vm->memory + RAM_SIZE)
		return (gpa_t)(hva - vm->memory);
	assert_true(hva >= vm->rom && hva < vm->rom + ROM_SIZE);
	return ROM_BASE + (gpa_t)(hva - vm->rom);
}

static inline struct found hw_look(const struct small_vm *vm, struct hw_memory *m, gla_t gla)
{
	struct hw_control c;
	m->ops->control(m, &c);
	bool wide = c.efer.value & EFER_LMA;
	struct found f = { .present = true, .write = true, .user = true, .execute = true };
	u64 table = m->ops->root(m);
	unsigned shift = wide ? 39 : 30;
	for (;; shift -= 9) {
		u64 entry = ((const u64 *)host_virtual(table))[gla >> shift & (shift == 30 && !wide ? 3 : 511)];
		bool pdpte = !wide && shift == 30;
		f.present = entry & 1;
		if (!f.present)
			return f;
		assert_int_equal(entry & (pdpte ? 0xfff0000000000fe6 : 0x7ff0000000000000), 0);
		if (!pdpte) {
			f.write &= entry >> 1 & 1;
			f.user &= entry >> 2 & 1;
			f.execute &= !(entry >> 63);
		}
		table = entry & PTE_ADDR;
		if (shift == 12 || (!pdpte && (entry & 0x80)))
			break;
	}
	assert_int_equal(table & (BIT(shift) - 1), 0);
	f.gpa = hw_gpa_of(vm, table | (gla & (BIT(shift) - 1)));
	return f;
}

#endif
