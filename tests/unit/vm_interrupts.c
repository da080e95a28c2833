/* The way of interrupts between the vCPUs of a VM: who is addressed, what arrives there, and that nothing is lost on
 * the way. */
#include "vm_machine.h"

#define LEVEL BIT(15)
#define LOGICAL BIT(11)
#define TO(id) ((u64)(id) << 56)
#define ICR_SELF (1u << 18)
#define ICR_ALL (2u << 18)
#define ICR_OTHERS (3u << 18)
#define MODE(delivery) ((u32)(delivery) << 8)
#define ASSERT_LEVEL (1u << 14)

static int setup(void **state)
{
	struct vm_config config = machine_config(MACHINE_CPUS);
	machine_create(&config);
	apics_enable(MACHINE_CPUS);
	return 0;
}

static void ipi(unsigned from, u8 to, u32 low)
{
	apic_write(from, APIC_ICR_HIGH, (u32)to << 24);
	apic_write(from, APIC_ICR_LOW, low);
}

/* Each CPU in the set, and no other, takes the vector. */
static void expect_taken(unsigned set, int vector)
{
	for (unsigned i = 0; i < MACHINE_CPUS; i++) {
		bool expected = set >> i & 1;
		assert_int_equal(!!(pending(i) & PENDING_INTERRUPT), expected);
		assert_int_equal(acknowledge(i), expected ? vector : -1);
		assert_false(pending(i) & PENDING_INTERRUPT);
		apic_write(i, APIC_EOI, 0);
	}
}

/* ---- destinations ---- */

static void test_physical(void **state)
{
	for (unsigned to = 0; to < MACHINE_CPUS; to++) {
		ipi(1, (u8)to, 0x40);
		expect_taken(1u << to, 0x40);
	}
	ipi(1, 77, 0x40);
	expect_taken(0, 0);
	ipi(1, 0xff, 0x41);
	expect_taken(0xf, 0x41);
}

static void test_shorthands(void **state)
{
	ipi(2, 0, ICR_SELF | 0x42);
	expect_taken(1 << 2, 0x42);
	ipi(2, 0, ICR_ALL | 0x43);
	expect_taken(0xf, 0x43);
	ipi(2, 0, ICR_OTHERS | 0x44);
	expect_taken(0xb, 0x44);
}

static void test_logical_flat(void **state)
{
	for (unsigned i = 0; i < MACHINE_CPUS; i++)
		apic_write(i, APIC_LDR, 1u << (24 + i));
	ipi(0, 0x0a, LOGICAL | 0x45);
	expect_taken(0xa, 0x45);
	ipi(0, 0xf0, LOGICAL | 0x45);
	expect_taken(0, 0);
	ipi(0, 0xff, LOGICAL | 0x46);
	expect_taken(0xf, 0x46);
}

static void test_logical_cluster(void **state)
{
	for (unsigned i = 0; i < MACHINE_CPUS; i++) {
		apic_write(i, APIC_DFR, 0x0fffffff);
		apic_write(i, APIC_LDR, (i / 2) << 28 | 1u << (24 + i % 2));
	}
	ipi(0, 0x13, LOGICAL | 0x47);
	expect_taken(0xc, 0x47);
	ipi(0, 0x02, LOGICAL | 0x47);
	expect_taken(0x2, 0x47);
}

static void wrmsr(unsigned cpu, u32 index, u64 value)
{
	struct exit e = { .reason = EXIT_WRMSR, .msr = { .index = index, .value = value } };
	vm_exit(&machine.vm->cpu[cpu]->vcpu, &e);
	assert_false(e.msr.fault);
}

static void test_x2apic(void **state)
{
	for (unsigned i = 0; i < MACHINE_CPUS; i++)
		wrmsr(i, MSR_APIC_BASE, MAP_LAPIC | APIC_BASE_EN | APIC_BASE_EXTD | (i ? 0 : APIC_BASE_BSP));
	wrmsr(1, 0x830, 3ull << 32 | 0x48);
	assert_int_equal(acknowledge(3), 0x48);
	assert_int_equal(acknowledge(2), -1);
	wrmsr(1, 0x830, 5ull << 32 | LOGICAL | 0x49); /* cluster 0, CPUs 0 and 2 */
	assert_int_equal(acknowledge(0), 0x49);
	assert_int_equal(acknowledge(1), -1);
	assert_int_equal(acknowledge(2), 0x49);
	wrmsr(1, 0x830, 0xffffffffull << 32 | 0x5a);
	for (unsigned i = 0; i < MACHINE_CPUS; i++)
		assert_int_equal(acknowledge(i), 0x5a);
}

/* One of those addressed takes a lowest-priority interrupt, and one whose local APIC is off is not asked. */
static void test_lowest_priority(void **state)
{
	ioapic_write_entry(5, TO(0xff) | MODE(DELIVERY_LOWEST_PRIORITY) | 0x50);
	for (unsigned round = 0; round < 2; round++) {
		unsigned taken = 0;
		ioapic_set_line(&machine.vm->board.ioapic, 5, true);
		ioapic_set_line(&machine.vm->board.ioapic, 5, false);
		for (unsigned i = 0; i < MACHINE_CPUS; i++)
			if (acknowledge(i) == 0x50) {
				taken |= 1u << i;
				apic_write(i, APIC_EOI, 0);
			}
		assert_int_equal(__builtin_popcount(taken), 1);
		assert_false(round && (taken & 1));
		apic_write(0, APIC_SVR, 0xff);
	}
}

/* ---- kinds ---- */

static void test_nmi(void **state)
{
	ipi(0, 2, MODE(DELIVERY_NMI));
	for (unsigned i = 0; i < MACHINE_CPUS; i++)
		assert_int_equal(!!(pending(i) & PENDING_NMI), i == 2);
	/* Even a local APIC that software has turned off passes it. */
	apic_write(3, APIC_SVR, 0xff);
	ipi(0, 3, MODE(DELIVERY_NMI));
	assert_true(pending(3) & PENDING_NMI);
}

static void test_init_sipi(void **state)
{
	ipi(0, 1, MODE(DELIVERY_INIT) | ASSERT_LEVEL);
	assert_int_equal(machine.vm->cpu[1]->requests, REQUEST_INIT);
	assert_true(pending(1) & PENDING_KICK);
	ipi(0, 1, MODE(DELIVERY_SIPI) | ASSERT_LEVEL | 0x9a);
	assert_int_equal(machine.vm->cpu[1]->requests, REQUEST_INIT | REQUEST_SIPI);
	assert_int_equal(machine.vm->cpu[1]->sipi_vector, 0x9a);
	assert_int_equal(machine.vm->cpu[2]->requests, 0);
}

static void test_disabled(void **state)
{
	apic_write(1, APIC_SVR, 0xff);
	ipi(0, 1, 0x51);
	assert_int_equal(pending(1), 0);
	apic_write(1, APIC_SVR, 0x1ff);
	assert_int_equal(acknowledge(1), -1);
}

/* ---- priorities ---- */

static void test_task_priority(void **state)
{
	apic_write(1, APIC_TPR, 0x60);
	ipi(0, 1, 0x5f);
	assert_int_equal(acknowledge(1), -1);
	assert_false(pending(1) & PENDING_INTERRUPT);
	apic_write(1, APIC_TPR, 0x50);
	assert_int_equal(acknowledge(1), -1);
	struct exit e = { .reason = EXIT_CR_WRITE, .cr = { .number = 8, .value = 4 } };
	vm_exit(&machine.vm->cpu[1]->vcpu, &e);
	assert_true(pending(1) & PENDING_INTERRUPT);
	assert_int_equal(acknowledge(1), 0x5f);
}

/* Several that wait come in the order of priority, each telling of the next. */
static void test_several(void **state)
{
	static const u8 vectors[] = { 0x41, 0xe3, 0x92 };
	for (unsigned i = 0; i < ARRAY_SIZE(vectors); i++)
		ipi(0, 1, vectors[i]);
	assert_int_equal(acknowledge(1), 0xe3);
	assert_int_equal(acknowledge(1), -1); /* the others are lower */
	apic_write(1, APIC_EOI, 0);
	assert_true(pending(1) & PENDING_INTERRUPT);
	assert_int_equal(acknowledge(1), 0x92);
	apic_write(1, APIC_EOI, 0);
	assert_int_equal(acknowledge(1), 0x41);
	assert_false(pending(1) & PENDING_INTERRUPT);
}

/* A level-triggered input of the I/O APIC: the EOI of whichever CPU took it reaches the I/O APIC. */
static void test_level_eoi(void **state)
{
	ioapic_write_entry(16, TO(2) | LEVEL | 0x60);
	ioapic_set_line(&machine.vm->board.ioapic, 16, true);
	assert_int_equal(acknowledge(2), 0x60);
	assert_false(pending(2) & PENDING_INTERRUPT);
	apic_write(2, APIC_EOI, 0);
	assert_int_equal(acknowledge(2), 0x60);
	ioapic_set_line(&machine.vm->board.ioapic, 16, false);
	apic_write(2, APIC_EOI, 0);
	assert_int_equal(acknowledge(2), -1);
}

/* ---- the 8259 pair ---- */

static void pic_open(void)
{
	static const u8 words[] = { 0x11, 0x20, 4, 1 };
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		guest_out(0, i ? PORT_PIC_MASTER + 1 : PORT_PIC_MASTER, 1, words[i]);
	guest_out(0, PORT_PIC_MASTER + 1, 1, 0xef);
}

static void pic_raise(void)
{
	pic_set_line(&machine.vm->board.pic, 4, true);
}

static void test_pic_goes_to_first_cpu(void **state)
{
	pic_open();
	pic_raise();
	assert_int_equal(acknowledge(1), -1);
	assert_int_equal(acknowledge(0), 0x24);
}

/* INTR is up while LINT0 is masked: unmasking it delivers. */
static void test_lint0_unmasked_late(void **state)
{
	pic_open();
	apic_write(0, APIC_LVT_LINT0, 0x10700);
	pic_raise();
	assert_int_equal(acknowledge(0), -1);
	assert_false(pending(0) & PENDING_INTERRUPT);
	apic_write(0, APIC_LVT_LINT0, 0x700);
	assert_true(pending(0) & PENDING_INTERRUPT);
	assert_int_equal(acknowledge(0), 0x24);
	assert_false(pending(0) & PENDING_INTERRUPT);
}

/* Without a local APIC INTR goes straight to the CPU. */
static void test_apic_off(void **state)
{
	pic_open();
	apic_write(0, APIC_LVT_LINT0, 0x10700);
	pic_raise();
	assert_int_equal(acknowledge(0), -1);
	wrmsr(0, MSR_APIC_BASE, MAP_LAPIC | APIC_BASE_BSP);
	assert_true(pending(0) & PENDING_INTERRUPT);
	assert_int_equal(acknowledge(0), 0x24);
}

/* LINT0 as an ordinary interrupt, as Linux tries it. */
static void test_lint0_fixed(void **state)
{
	pic_open();
	apic_write(0, APIC_LVT_LINT0, 0x55);
	pic_raise();
	assert_true(pending(0) & PENDING_INTERRUPT);
	assert_int_equal(acknowledge(0), 0x55);
	assert_int_equal(acknowledge(0), -1);
}

/* An ExtINT message of the I/O APIC fetches the vector from the 8259 pair, whatever LINT0 says. */
static void test_extint_message(void **state)
{
	pic_open();
	apic_write(0, APIC_LVT_LINT0, 0x10700);
	ioapic_write_entry(0, MODE(DELIVERY_EXTINT));
	pic_raise();
	assert_int_equal(acknowledge(0), -1);
	ioapic_set_line(&machine.vm->board.ioapic, 0, true);
	assert_true(pending(0) & PENDING_INTERRUPT);
	assert_int_equal(acknowledge(0), 0x24);
	assert_int_equal(acknowledge(0), -1);
}

/* ---- the local APIC's timer ---- */

static void test_timer(void **state)
{
	apic_write(1, APIC_LVT_TIMER, 0x70);
	apic_write(1, APIC_TIMER_INITIAL, 1000000);
	u64 deadline = lapic_deadline(&machine.vm->cpu[1]->lapic);
	assert_true(deadline != HOST_NEVER);
	fake_host_set_now(deadline - 1);
	assert_false(pending(1) & PENDING_INTERRUPT);
	fake_host_set_now(deadline);
	assert_true(pending(1) & PENDING_INTERRUPT);
	assert_int_equal(acknowledge(1), 0x70);
}

/* Put off again and again, as a tick's deadline is: the host's timer fires early, and is set once more. */
static void test_timer_put_off(void **state)
{
	apic_write(1, APIC_LVT_TIMER, 0x70);
	apic_write(1, APIC_TIMER_INITIAL, 1000000);
	u64 first = lapic_deadline(&machine.vm->cpu[1]->lapic);
	fake_host_advance((first - host_now()) / 2);
	apic_write(1, APIC_TIMER_INITIAL, 1000000);
	u64 second = lapic_deadline(&machine.vm->cpu[1]->lapic);
	assert_true(second > first);
	fake_host_set_now(first);
	assert_int_equal(acknowledge(1), -1);
	fake_host_set_now(second);
	assert_true(pending(1) & PENDING_INTERRUPT);
	assert_int_equal(acknowledge(1), 0x70);
	/* Stopped: it fires in vain, and stays quiet. */
	apic_write(1, APIC_EOI, 0);
	apic_write(1, APIC_TIMER_INITIAL, 1000000);
	apic_write(1, APIC_TIMER_INITIAL, 0);
	fake_host_advance(10000000000);
	assert_int_equal(acknowledge(1), -1);
}

/* ---- reset ---- */

/* What was on its way to a CPU is gone after its reset, and what comes later arrives. */
static void test_init_drops_and_goes_on(void **state)
{
	struct vm_cpu *cpu = machine.vm->cpu[1];
	ipi(0, 1, 0x51);
	ipi(0, 1, MODE(DELIVERY_NMI));
	vm_reset_cpu(cpu, true);
	assert_int_equal(pending(1) & ~PENDING_KICK, 0);
	assert_int_equal(acknowledge(1), -1);
	apic_write(1, APIC_SVR, 0x1ff);
	ipi(0, 1, 0x52);
	assert_true(pending(1) & PENDING_INTERRUPT);
	assert_int_equal(acknowledge(1), 0x52);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, machine_destroy)
		TEST(test_physical),
		TEST(test_shorthands),
		TEST(test_logical_flat),
		TEST(test_logical_cluster),
		TEST(test_x2apic),
		TEST(test_lowest_priority),
		TEST(test_nmi),
		TEST(test_init_sipi),
		TEST(test_disabled),
		TEST(test_task_priority),
		TEST(test_several),
		TEST(test_level_eoi),
		TEST(test_lint0_fixed),
		TEST(test_pic_goes_to_first_cpu),
		TEST(test_lint0_unmasked_late),
		TEST(test_apic_off),
		TEST(test_extint_message),
		TEST(test_timer),
		TEST(test_timer_put_off),
		TEST(test_init_drops_and_goes_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
