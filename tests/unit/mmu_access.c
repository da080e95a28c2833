/* Access to guest memory: across pages, to MMIO and ROM, to pages with code and with dirty logging; slots. */
#include "small_vm.h"

#define GLA 0x234000ull  /* indexes differ on every level */
#define PAGE 0x400000ull /* where it is mapped to */
#define ALL (PTE_P | PTE_W | PTE_U)

static void paging_off_is_identity(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	u32 value = 0x12345678, back = 0;
	assert_true(mmu_write(v, 0xffd, &value, 4, ACCESS_WRITE));
	assert_int_equal(vm->memory[0xffd], 0x78);
	assert_true(mmu_read(v, 0xffd, &back, 4, ACCESS_READ));
	assert_int_equal(back, value);
	assert_non_null(tlb_lookup(v->mmu, v->mmu->view, 0xff0, 4, ACCESS_WRITE));
	assert_null(tlb_lookup(v->mmu, v->mmu->view, 0xffe, 4, ACCESS_WRITE));
}

static void linear_addresses_wrap_at_32_bits(void **state)
{
	struct small_vm *vm = *state;
	u32 value = 0x44332211;
	paging_enable(vm, PAGING_PAE, 0, 0);
	vm->vcpu.pdpte[3] = table_of_level(0) | PTE_P;
	set_entry(vm, PAGING_PAE, 0, 0, table_of_level(1) | ALL);
	set_entry(vm, PAGING_PAE, 0, 0x3fe00000, table_of_level(2) | ALL);
	*entry64(vm, table_of_level(1)) = 0x500000 | ALL;
	*entry64(vm, table_of_level(2) + 511 * 8) = 0x600000 | ALL;
	assert_true(mmu_write(&vm->vcpu, 0xfffffffe, &value, 4, ACCESS_WRITE));
	assert_int_equal(vm->memory[0x600fff], 0x22);
	assert_int_equal(vm->memory[0x500000], 0x33);
	assert_non_null(tlb_lookup(vm->vcpu.mmu, vm->vcpu.mmu->view, 0, 1, ACCESS_WRITE));
}

static void crossing_write_is_all_or_nothing(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	u64 value = ~0ull;
	paging_enable(vm, PAGING_4LEVEL, 0, 0);
	map_page(vm, PAGING_4LEVEL, GLA, PAGE | ALL);
	assert_false(mmu_write(v, GLA + 0xffc, &value, 8, ACCESS_WRITE));
	assert_int_equal(v->fault.payload, GLA + 0x1000);
	assert_int_equal(v->fault.error, PF_WR);
	assert_int_equal(vm->memory[PAGE + 0xffc], 0);
	assert_false(mmu_probe_write(v, GLA + 0xffc, 8, ACCESS_WRITE));

	map_page(vm, PAGING_4LEVEL, GLA + 0x1000, 0x700000 | ALL);
	assert_true(mmu_probe_write(v, GLA + 0xffc, 8, ACCESS_WRITE));
	assert_true(mmu_write(v, GLA + 0xffc, &value, 8, ACCESS_WRITE));
	assert_int_equal(*entry32(vm, PAGE + 0xffc), 0xffffffff);
	assert_int_equal(*entry32(vm, 0x700000), 0xffffffff);
	assert_int_equal(*entry32(vm, 0x700004), 0);
}

static void check_mmio(struct small_vm *vm, unsigned i, gpa_t gpa, unsigned size, bool write, u64 value)
{
	struct exit *e = &vm->exits[i];
	assert_int_equal(e->reason, EXIT_MMIO);
	assert_int_equal(e->mmio.gpa, gpa);
	assert_int_equal(e->mmio.size, size);
	assert_int_equal(e->mmio.write, write);
	if (write)
		assert_int_equal(e->mmio.value, value);
}

static void mmio_in_pieces(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	u8 buf[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
	assert_true(mmu_write(v, MMIO_BASE + 0x10, buf, 4, ACCESS_WRITE));
	assert_true(mmu_write(v, MMIO_BASE + 0x20, buf, 15, ACCESS_WRITE));
	assert_int_equal(vm->exit_count, 5);
	check_mmio(vm, 0, MMIO_BASE + 0x10, 4, true, 0x04030201);
	check_mmio(vm, 1, MMIO_BASE + 0x20, 8, true, 0x0807060504030201);
	check_mmio(vm, 2, MMIO_BASE + 0x28, 4, true, 0x0c0b0a09);
	check_mmio(vm, 3, MMIO_BASE + 0x2c, 2, true, 0x0e0d);
	check_mmio(vm, 4, MMIO_BASE + 0x2e, 1, true, 0x0f);

	vm->exit_count = 0;
	vm->answer = 0x1122334455667788;
	assert_true(mmu_read(v, MMIO_BASE + 0xffd, buf, 6, ACCESS_READ));
	assert_int_equal(vm->exit_count, 4);
	check_mmio(vm, 0, MMIO_BASE + 0xffd, 2, false, 0);
	check_mmio(vm, 1, MMIO_BASE + 0xfff, 1, false, 0);
	check_mmio(vm, 2, MMIO_BASE + 0x1000, 2, false, 0);
	check_mmio(vm, 3, MMIO_BASE + 0x1002, 1, false, 0);
	static const u8 expected[] = { 0x88, 0x77, 0x88, 0x88, 0x77, 0x88, 7 };
	assert_memory_equal(buf, expected, sizeof(expected));
}

static void crossing_from_ram_to_mmio(void **state)
{
	struct small_vm *vm = *state;
	u32 value = 0x44332211;
	assert_true(mmu_write(&vm->vcpu, RAM_SIZE - 2, &value, 4, ACCESS_WRITE));
	assert_int_equal(vm->exit_count, 1);
	check_mmio(vm, 0, RAM_SIZE, 2, true, 0x4433);
	assert_int_equal(vm->memory[RAM_SIZE - 1], 0x22);
}

static void rom_ignores_writes(void **state)
{
	struct small_vm *vm = *state;
	u32 value = 0x44332211;
	memcpy(vm->rom + 0x10, "ROM", 4);
	assert_true(mmu_write(&vm->vcpu, ROM_BASE + 0x10, &value, 4, ACCESS_WRITE));
	assert_memory_equal(vm->rom + 0x10, "ROM", 4);
	assert_true(mmu_read(&vm->vcpu, ROM_BASE + 0x10, &value, 4, ACCESS_READ));
	assert_memory_equal(&value, "ROM", 4);
	value = 0;
	assert_true(mmu_read(&vm->vcpu, ROM_BASE + 0x10, &value, 4, ACCESS_RMW));
	assert_memory_equal(&value, "ROM", 4);
	assert_int_equal(vm->exit_count, 0);
}

static void stores_to_code_are_told(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	struct ram_slot *slot = &vm->ram.slot[0];
	u8 byte = 1;
	assert_true(mmu_write(v, 0x5000, &byte, 1, ACCESS_WRITE));
	assert_int_equal(slot->generation[5], 0);
	slot->flags[5] |= PAGE_CODE;
	assert_non_null(tlb_lookup(v->mmu, v->mmu->view, 0x5000, 1, ACCESS_WRITE));
	assert_true(mmu_write(v, 0x4fff, "ab", 2, ACCESS_WRITE));
	assert_int_equal(slot->generation[5], 1);
	assert_int_equal(slot->generation[4], 0);
	assert_true(vcpu_pending(v) & PENDING_CODE);
	assert_true(ram_write(&vm->ram, 0x5ffe, "abc", 3));
	assert_int_equal(slot->generation[5], 2);
}

/* With dirty logging a clean page takes the slow way once. */
static void dirty_logging(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	struct ram_slot *slot = &vm->ram.slot[0];
	u8 byte = 1;
	slot->log_dirty = true;
	assert_true(mmu_read(v, 0x5000, &byte, 1, ACCESS_READ));
	assert_null(tlb_lookup(v->mmu, v->mmu->view, 0x5000, 1, ACCESS_WRITE));
	assert_int_equal(slot->flags[5], 0);
	assert_true(mmu_write(v, 0x5000, &byte, 1, ACCESS_WRITE));
	assert_int_equal(slot->flags[5], PAGE_DIRTY);
	assert_non_null(tlb_lookup(v->mmu, v->mmu->view, 0x5000, 1, ACCESS_WRITE));
	/* Setting A is a write to the table's page. */
	paging_enable(vm, PAGING_4LEVEL, 0, 0);
	map_page(vm, PAGING_4LEVEL, GLA, PAGE | ALL);
	assert_true(mmu_read(v, GLA, &byte, 1, ACCESS_READ));
	assert_int_equal(slot->flags[table_of_level(3) >> 12], PAGE_DIRTY);
	assert_int_equal(slot->flags[PAGE >> 12], 0);
}

/* ---- slots ---- */

static void slots(void **state)
{
	static u8 host[0x3000];
	struct ram ram = { 0 };
	u8 buf[8] = { 0 };
	assert_int_equal(ram_add(&ram, 0x1000, 0x1000, host, false), 0);
	assert_int_equal(ram_add(&ram, 0x2000, 0x1000, host + 0x2000, false), 0);
	assert_true(ram_add(&ram, 0x1000, 0x1000, host, false) < 0);
	assert_true(ram_add(&ram, 0x0, 0x1001, host, false) < 0);
	assert_true(ram_add(&ram, 0x0, 0, host, false) < 0);
	assert_true(ram_add(&ram, 0x0, 0x2000, host, false) < 0);
	assert_true(ram_add(&ram, ~0xfffull, 0x2000, host, false) < 0);
	assert_null(ram_find(&ram, 0xfff));
	assert_null(ram_find(&ram, 0x3000));
	assert_null(ram_pointer(&ram, 0x1ffc, 8));
	assert_ptr_equal(ram_pointer(&ram, 0x2ff8, 8), host + 0x2ff8);
	assert_null(ram_pointer(&ram, 0x2ff8, ~0ull));
	assert_true(ram_write(&ram, 0x1ffc, "12345678", 8));
	assert_memory_equal(host + 0xffc, "1234", 4);
	assert_memory_equal(host + 0x2000, "5678", 4);
	assert_true(ram_read(&ram, 0x1ffc, buf, 8));
	assert_memory_equal(buf, "12345678", 8);
	assert_false(ram_write(&ram, 0x2ffc, "abcdefgh", 8));
	assert_int_equal(host[0x2ffc], 0);
	ram_release(&ram);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, small_vm_setup, small_vm_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(paging_off_is_identity),
		TEST(linear_addresses_wrap_at_32_bits),
		TEST(crossing_write_is_all_or_nothing),
		TEST(mmio_in_pieces),
		TEST(crossing_from_ram_to_mmio),
		TEST(rom_ignores_writes),
		TEST(stores_to_code_are_told),
		TEST(dirty_logging),
		cmocka_unit_test(slots),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
