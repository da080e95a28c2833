/* Saving and loading (lib/state.h, vm/state.h): what is saved is what is loaded, a loaded machine goes
 * on exactly as the one that was saved, and bytes that are wrong are refused. */
#define _GNU_SOURCE
#include "vm_machine.h"

#include "cpu/state.h"
#include "engine/step/step.h"
#include "vm/state.h"

/* ---- machines ---- */

struct saved {
	u8 *state, *memory;
	size_t size, memory_size;
};

/* The guest's time stands still, as it does when every vCPU is parked. */
static struct saved save(struct vm *vm)
{
	char error[256];
	vm_time_stop(vm);
	struct saved s = { .size = vm_state_size(vm), .memory_size = vm->config.memory };
	s.state = malloc(s.size);
	s.memory = malloc(s.memory_size);
	assert_true(vm_save(vm, s.state, s.size, error, sizeof(error)));
	memcpy(s.memory, vm->memory, s.memory_size);
	return s;
}

static void forget(struct saved *s)
{
	free(s->state);
	free(s->memory);
}

static struct vm *restore(struct vm_config config, const struct saved *s, char *error, size_t error_size)
{
	bool user_error = false;
	config.state = s->state;
	config.state_size = s->size;
	struct vm *vm = vm_create(&config, error, error_size, &user_error);
	if (vm)
		memcpy(vm->memory, s->memory, s->memory_size);
	else
		assert_true(user_error);
	return vm;
}

static struct vm *restore_good(const struct vm_config *config, const struct saved *s)
{
	char error[256] = "";
	struct vm *vm = restore(*config, s, error, sizeof(error));
	assert_string_equal(error, "");
	if (!vm)
		abort();
	return vm;
}

/* A machine whose devices have something to remember. */
static struct vm *lively_machine(const struct vm_config *config)
{
	struct vm *vm = machine_create(config);
	fake_host_advance(12345678);
	guest_out(0, 0x43, 1, 0x34); /* PIT: channel 0, rate generator */
	guest_out(0, 0x40, 1, 0x9c);
	guest_out(0, 0x40, 1, 0x2e);
	guest_out(0, 0x3f9, 1, 0x0f); /* UART: all interrupts */
	guest_out(0, 0x21, 1, 0xfa); /* PIC: timer and cascade open */
	guest_out(0, 0x70, 1, 0x0b);
	guest_out(0, 0xcf8, 4, 0x80001804); /* the entropy device's command register */
	guest_out(0, 0xcfc, 2, 0x0006);
	apics_enable(config->cpus);
	apic_write(0, APIC_LVT_TIMER, 0x20040);
	apic_write(0, APIC_TIMER_INITIAL, 1000000);
	ioapic_write_entry(4, 0x0000000000000034);
	vm_interrupt(vm, &(struct interrupt){ .destination = 1, .vector = 0x55 }, NULL);
	vcpu_set_pending(&vm->cpu[0]->vcpu, PENDING_NMI);
	fake_host_advance(3000000);
	return vm;
}

static void test_saved_again(void **state)
{
	struct vm_config config = machine_config(2);
	struct saved first = save(lively_machine(&config));
	struct vm *vm = restore_good(&config, &first);
	struct saved second = save(vm);
	assert_int_equal(first.size, second.size);
	assert_memory_equal(first.state, second.state, first.size);
	forget(&first);
	forget(&second);
	vm_destroy(vm);
}

/* Guest time goes on from where it stopped, however long that was, and with it what waits for it. */
static void test_time_goes_on(void **state)
{
	struct vm_config config = machine_config(2);
	struct vm *old = lively_machine(&config);
	u64 now = vm_now(old), tsc = __builtin_ia32_rdtsc() + old->cpu[0]->vcpu.tsc_offset;
	struct saved saved = save(old);
	fake_host_advance(3600000000000);
	struct vm *vm = restore_good(&config, &saved);
	assert_int_equal(vm_now(vm), now);
	vm_release(vm);
	assert_int_equal(vm_now(vm), now);
	assert_int_equal(board_deadline(&vm->board), board_deadline(&old->board));
	assert_int_equal(lapic_deadline(&vm->cpu[0]->lapic), lapic_deadline(&old->cpu[0]->lapic));
	u64 passed = __builtin_ia32_rdtsc() + vm->cpu[0]->vcpu.tsc_offset - tsc;
	assert_true(passed < 60 * host_tsc_hz());
	assert_true(vcpu_pending(&vm->cpu[0]->vcpu) & PENDING_NMI);
	assert_int_equal(vm_interrupt_acknowledge(&vm->cpu[1]->vcpu), 0x55);
	forget(&saved);
	vm_destroy(vm);
}

/* What firmware has made of a machine: areas that show RAM, the ECAM window elsewhere, a flash chip amid a command. */
static void test_firmware(void **state)
{
	static u8 rom[0x20000], flash[0x2000], other_flash[0x2000];
	struct vm_config config = machine_config(1);
	config.boot = (struct boot_source){ .firmware = rom, .firmware_size = sizeof(rom), .protocol = BOOT_FIRMWARE };
	config.backends.flash = (struct pflash_backend){ .data = flash, .size = sizeof(flash) };
	memset(rom, 0x5a, sizeof(rom));
	memset(flash, 0xff, sizeof(flash));
	struct vm *vm = lively_machine(&config);
	gpa_t chip = vm->config.backends.flash_base;
	assert_int_equal(vm->memory[0xfffff], 0x5a);
	guest_out(0, 0xcf8, 4, 0x80000090); /* PAM: the last 64 KiB and 0xe0000 RAM */
	guest_out(0, 0xcfc, 1, 0x30);
	guest_out(0, 0xcf8, 4, 0x80000094);
	guest_out(0, 0xcfd, 1, 0x03);
	vm->memory[0xf0000] = 0x77;
	guest_out(0, 0xcf8, 4, 0x80000060); /* PCIEXBAR */
	guest_out(0, 0xcfc, 4, 0xb0000001);
	guest_out(0, PORT_FW_CFG, 2, FW_CFG_ID);
	guest_in(0, PORT_FW_CFG + 1, 1);
	bus_write(&vm->board.memory, chip + 5, 1, 0x40, 0);
	bus_write(&vm->board.memory, chip + 5, 1, 0x12, 0);
	struct saved first = save(vm);
	config.backends.flash.data = other_flash;
	vm_destroy(vm);
	vm = machine.vm = restore_good(&config, &first);
	struct saved second = save(vm);
	assert_memory_equal(first.state, second.state, first.size);
	assert_memory_equal(flash, other_flash, sizeof(flash));
	assert_int_equal(other_flash[5], 0x12);
	assert_int_equal(bus_read(&vm->board.memory, 0xb0000000, 4, 0), 0x29c08086);
	assert_int_equal(bus_read(&vm->board.memory, chip, 1, 0), 0x80); /* the status */
	assert_int_equal(guest_in(0, PORT_FW_CFG + 1, 1), 0); /* the second byte */
	assert_false(ram_readonly(ram_find(&vm->ram, 0xf0000), 0xf0000));
	assert_true(ram_readonly(ram_find(&vm->ram, 0xd0000), 0xd0000));
	guest_out(0, 0xcf8, 4, 0x80000090); /* and the ROM again */
	guest_out(0, 0xcfc, 1, 0);
	assert_int_equal(vm->memory[0xf0000], 0x5a);
	forget(&first);
	forget(&second);
}

static void check_refused(const struct vm_config *config, const struct saved *saved, const char *part)
{
	char error[256] = "";
	struct vm *vm = restore(*config, saved, error, sizeof(error));
	assert_null(vm);
	if (!strstr(error, part))
		fail_msg("'%s' does not say '%s'", error, part);
}

static void test_other_machine(void **state)
{
	struct vm_config config = machine_config(2), other = config;
	struct saved saved = save(lively_machine(&config));
	other.memory = 8ull << 20;
	check_refused(&other, &saved, "another machine");
	other = config;
	other.cpus = 3;
	check_refused(&other, &saved, "another machine");
	char *feature = memmem(saved.state, saved.size, " sse2 ", 6);
	assert_non_null(feature);
	memcpy(feature, " ss_2 ", 6);
	check_refused(&config, &saved, "damaged");
	forget(&saved);
}

static void test_cut_short(void **state)
{
	struct vm_config config = machine_config(1);
	struct saved saved = save(lively_machine(&config));
	for (size_t size = 1; size < saved.size; size += size / 16 + 1) {
		struct saved cut = saved;
		cut.state = malloc(size); /* so that a read behind its end is seen */
		memcpy(cut.state, saved.state, size);
		cut.size = size;
		check_refused(&config, &cut, "the snapshot is");
		free(cut.state);
	}
	forget(&saved);
}

/* One byte is another: refused, or a machine that can be saved. */
static void test_damaged(void **state)
{
	struct vm_config config = machine_config(1);
	struct saved saved = save(lively_machine(&config));
	for (unsigned i = 0; i < 400; i++) {
		char error[256];
		size_t at = (size_t)i * 2654435761u % saved.size;
		saved.state[at] ^= (u8)(1 + i % 255);
		struct vm *vm = restore(config, &saved, error, sizeof(error));
		if (vm) {
			struct saved again = save(vm);
			vm_release(vm);
			forget(&again);
			vm_destroy(vm);
		}
		saved.state[at] ^= (u8)(1 + i % 255);
	}
	forget(&saved);
}

/* ---- a guest goes on exactly ---- */

/* Real mode: a generator of numbers whose state goes through registers, memory, the x87 stack and the flags. */
static const u8 busy_image[] = {
	0x31, 0xc0, /* xor ax, ax */
	0x8e, 0xd8, /* mov ds, ax */
	0xdb, 0xe3, /* fninit */
	0xd9, 0xe8, /* fld1 */
	0xd9, 0xeb, /* fldpi */
	0x69, 0xc0, 0x35, 0x4e, /* again: imul ax, ax, 0x4e35 */
	0x05, 0x15, 0x3d, /* add ax, 0x3d15 */
	0x11, 0xc2, /* adc dx, ax */
	0x88, 0xe3, /* mov bl, ah */
	0x30, 0xff, /* xor bh, bh */
	0x01, 0x97, 0x00, 0x10, /* add [bx + 0x1000], dx */
	0x13, 0xb7, 0x80, 0x10, /* adc si, [bx + 0x1080] */
	0xdc, 0xc1, /* fadd st1, st0 */
	0xd9, 0xc9, /* fxch */
	0xc1, 0xc6, 0x03, /* rol si, 3 */
	0x50, 0x9c, 0x59, 0x5f, /* push ax; pushf; pop cx; pop di */
	0xeb, 0xde, /* jmp again */
};

static void run_steps(struct vm *vm, unsigned count)
{
	struct vcpu *v = &vm->cpu[0]->vcpu;
	host_set_gs_base(v);
	while (count--) {
		struct exit exit = { 0 };
		step_one(v, &exit);
	}
}

static void check_same(struct vm *a, struct vm *b)
{
	const struct vcpu *v = &a->cpu[0]->vcpu, *w = &b->cpu[0]->vcpu;
	assert_memory_equal(v->gpr, w->gpr, sizeof(v->gpr));
	assert_int_equal(v->rip, w->rip);
	assert_int_equal(v->rflags, w->rflags);
	assert_memory_equal(v->xsave, w->xsave, sizeof(v->xsave));
	assert_memory_equal(&v->x87, &w->x87, sizeof(v->x87));
	assert_memory_equal(a->memory, b->memory, a->config.memory);
}

static void test_goes_on_exactly(void **state)
{
	struct vm_config config = machine_config(1);
	config.engine = &engine_step;
	config.boot.kernel = busy_image;
	config.boot.kernel_size = sizeof(busy_image);
	struct vm *vm = machine_create(&config);
	for (unsigned round = 0; round < 8; round++) {
		run_steps(vm, 1000 + 7919 * round);
		struct saved saved = save(vm);
		struct vm *restored = restore_good(&config, &saved);
		vm_release(restored);
		vcpu_clear_pending(&restored->cpu[0]->vcpu, PENDING_KICK); /* as vm_run_vcpu does */
		run_steps(vm, 250000);
		run_steps(restored, 250000);
		check_same(vm, restored);
		forget(&saved);
		vm_destroy(restored);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_saved_again, machine_destroy),
		cmocka_unit_test_teardown(test_time_goes_on, machine_destroy),
		cmocka_unit_test_teardown(test_firmware, machine_destroy),
		cmocka_unit_test_teardown(test_other_machine, machine_destroy),
		cmocka_unit_test_teardown(test_cut_short, machine_destroy),
		cmocka_unit_test_teardown(test_damaged, machine_destroy),
		cmocka_unit_test_teardown(test_goes_on_exactly, machine_destroy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
