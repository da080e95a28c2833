/* One vCPU with some RAM and a recorder of its exits: the ground on which the tests of mmu and cpu stand. */
#ifndef NADIR_TESTS_SMALL_VM_H
#define NADIR_TESTS_SMALL_VM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch/paging.h"
#include "fake_host.h"
#include "mmu/mmu.h"

#include <string.h>

#define RAM_SIZE 0x1000000ull /* at 0 */
#define ROM_BASE 0xfff00000ull
#define ROM_SIZE 0x10000ull
#define MMIO_BASE 0xd0000000ull

#define EXITS_MAX 64

struct small_vm {
	struct vcpu vcpu;
	struct ram ram;
	u8 *memory, *rom;
	struct exit exits[EXITS_MAX]; /* as they came in */
	unsigned exit_count;
	u64 answer; /* what reads give */
};

static inline struct small_vm *small_vm_of(struct vcpu *vcpu)
{
	return container_of(vcpu, struct small_vm, vcpu);
}

static inline void small_vm_exit(struct vcpu *vcpu, struct exit *exit)
{
	struct small_vm *vm = small_vm_of(vcpu);
	assert_true(vm->exit_count < EXITS_MAX);
	vm->exits[vm->exit_count++] = *exit;
	if (exit->reason == EXIT_MMIO && !exit->mmio.write)
		exit->mmio.value = vm->answer;
	if (exit->reason == EXIT_CR_READ)
		exit->cr.value = vm->answer;
}

static inline struct small_vm *small_vm_create(void)
{
	static const struct vcpu_ops ops = { .exit = small_vm_exit };
	struct small_vm *vm = host_alloc(sizeof(*vm));
	assert_non_null(vm);
	vm->memory = host_ram_create(RAM_SIZE);
	vm->rom = host_ram_create(ROM_SIZE);
	assert_int_equal(ram_add(&vm->ram, 0, RAM_SIZE, vm->memory, false), 0);
	assert_int_equal(ram_add(&vm->ram, ROM_BASE, ROM_SIZE, vm->rom, true), 0);
	vm->vcpu.ops = &ops;
	vm->vcpu.ram = &vm->ram;
	vm->vcpu.rflags = RFLAGS_FIXED1;
	vm->vcpu.cr0_valid = 0xe005003f;
	vm->vcpu.cr4_valid = 0x3717ff;
	vm->vcpu.efer_valid = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	vm->vcpu.xcr0_valid = XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512;
	vm->vcpu.physical_bits = 40;
	vm->vcpu.linear_bits = 57;
	vm->vcpu.pages_1g = true;
	assert_int_equal(mmu_create(&vm->vcpu), 0);
	return vm;
}

static inline void small_vm_destroy(struct small_vm *vm)
{
	mmu_destroy(&vm->vcpu);
	ram_release(&vm->ram);
	host_ram_destroy(vm->memory, RAM_SIZE);
	host_ram_destroy(vm->rom, ROM_SIZE);
	host_free(vm);
}

static inline int small_vm_setup(void **state)
{
	*state = small_vm_create();
	return 0;
}

static inline int small_vm_teardown(void **state)
{
	small_vm_destroy(*state);
	return 0;
}

static inline u64 *entry64(struct small_vm *vm, gpa_t gpa)
{
	return (u64 *)(void *)(vm->memory + gpa);
}

static inline u32 *entry32(struct small_vm *vm, gpa_t gpa)
{
	return (u32 *)(void *)(vm->memory + gpa);
}

/* The paging modes, as tests list them. */
enum paging { PAGING_32BIT, PAGING_PAE, PAGING_4LEVEL, PAGING_5LEVEL, PAGING_MODES };

#define TABLE_BASE 0x10000ull /* level i's table lies at TABLE_BASE + i * PAGE_SIZE, the root at i = 0 */

static inline gpa_t table_of_level(unsigned i)
{
	return TABLE_BASE + i * PAGE_SIZE;
}

static inline unsigned paging_levels(enum paging mode)
{
	static const unsigned levels[] = { 2, 2, 4, 5 };
	return levels[mode];
}

/* Turn a paging mode on, with cr3 at TABLE_BASE; PAE has PDPTE 0 pointing there. */
static inline void paging_enable(struct small_vm *vm, enum paging mode, u64 cr4, u64 efer)
{
	static const u64 cr4_of[] = { CR4_PSE, CR4_PAE, CR4_PAE, CR4_PAE | CR4_LA57 };
	struct vcpu *v = &vm->vcpu;
	v->cr0 = CR0_PE | CR0_ET | CR0_PG;
	v->cr4 = cr4_of[mode] | cr4;
	v->efer = efer | (mode >= PAGING_4LEVEL ? EFER_LME | EFER_LMA : 0);
	v->seg[SEG_CS].attr =
		SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_CODE | (mode >= PAGING_4LEVEL ? SEG_ATTR_L : SEG_ATTR_DB);
	v->cr3 = TABLE_BASE;
	memset(v->pdpte, 0, sizeof(v->pdpte));
	v->pdpte[0] = TABLE_BASE | PTE_P;
	mmu_update_view(v);
	mmu_flush_all(v);
	mmu_load_cr3(v, false);
}

/* Where level i's entry for gla lies in the tables of the fixture. */
static inline gpa_t entry_gpa(enum paging mode, unsigned i, gla_t gla)
{
	unsigned size = mode == PAGING_32BIT ? 4 : 8, bits = mode == PAGING_32BIT ? 10 : 9;
	unsigned shift = 12 + bits * (paging_levels(mode) - 1 - i);
	return table_of_level(i) + (gla >> shift & mask_of(bits)) * size;
}

static inline void set_entry(struct small_vm *vm, enum paging mode, unsigned i, gla_t gla, u64 value)
{
	gpa_t gpa = entry_gpa(mode, i, gla);
	if (mode == PAGING_32BIT)
		*entry32(vm, gpa) = (u32)value;
	else
		*entry64(vm, gpa) = value;
}

static inline u64 get_entry(struct small_vm *vm, enum paging mode, unsigned i, gla_t gla)
{
	gpa_t gpa = entry_gpa(mode, i, gla);
	return mode == PAGING_32BIT ? *entry32(vm, gpa) : *entry64(vm, gpa);
}

/* Map the page of gla with `leaf` (address and bits) at level `last`, the upper levels with `upper` bits. */
static inline void map_at(struct small_vm *vm, enum paging mode, unsigned last, gla_t gla, u64 leaf, u64 upper)
{
	for (unsigned i = 0; i < last; i++)
		set_entry(vm, mode, i, gla, table_of_level(i + 1) | upper);
	set_entry(vm, mode, last, gla, leaf);
}

static inline void map_page(struct small_vm *vm, enum paging mode, gla_t gla, u64 leaf)
{
	map_at(vm, mode, paging_levels(mode) - 1, gla, leaf, PTE_P | PTE_W | PTE_U);
}

#endif
