/* The board's wiring: which chip answers where, whose interrupt goes to which input, and what registers do to the
 * machine. */
#include "vm_machine.h"

#define UART_IER (PORT_UART0 + 1)
#define UART_MCR (PORT_UART0 + 4)
#define PM_STATUS PORT_PM
#define PM_ENABLE (PORT_PM + 2)
#define PM_CONTROL (PORT_PM + 4)
#define POWER_BUTTON 0x100
#define LEVEL BIT(15)

static int setup(void **state)
{
	struct vm_config config = machine_config(1);
	machine_create(&config);
	apics_enable(1);
	return 0;
}

/* Both 8259s in operation with vectors from 0x20, only `line` open, which stands for its slave's cascade too. */
static void pic_open(unsigned line)
{
	u16 mask = (u16) ~(1u << line | 1u << 2);
	for (unsigned chip = 0; chip < 2; chip++) {
		u16 port = chip ? PORT_PIC_SLAVE : PORT_PIC_MASTER;
		guest_out(0, port, 1, 0x11);
		guest_out(0, port + 1, 1, 0x20 + 8 * chip);
		guest_out(0, port + 1, 1, chip ? 2 : 4);
		guest_out(0, port + 1, 1, 1);
		guest_out(0, port + 1, 1, mask >> (8 * chip) & 0xff);
	}
}

static void uart_open(void)
{
	guest_out(0, UART_IER, 1, 1);
	guest_out(0, UART_MCR, 1, 8); /* OUT2 gates the interrupt */
}

/* ---- interrupts ---- */

static void test_uart_ioapic(void **state)
{
	ioapic_write_entry(IRQ_UART0, 0x34);
	uart_open();
	assert_int_equal(acknowledge(0), -1);
	machine.typed = "a";
	vm_serial_input(machine.vm);
	assert_true(pending(0) & PENDING_INTERRUPT);
	assert_int_equal(acknowledge(0), 0x34);
	assert_int_equal(acknowledge(0), -1);
	assert_int_equal(guest_in(0, PORT_UART0, 1), 'a');
}

static void test_uart_pic(void **state)
{
	pic_open(IRQ_UART0);
	uart_open();
	machine.typed = "ab";
	vm_serial_input(machine.vm);
	assert_true(pending(0) & PENDING_INTERRUPT);
	assert_int_equal(acknowledge(0), 0x24);
	assert_int_equal(acknowledge(0), -1); /* in service */
}

static void program_pit(void)
{
	guest_out(0, PORT_PIT + 3, 1, 0x34); /* channel 0, mode 2 */
	guest_out(0, PORT_PIT, 1, 0x9c);
	guest_out(0, PORT_PIT, 1, 0x2e); /* 11932: 10 ms */
}

static void test_pit_ioapic(void **state)
{
	ioapic_write_entry(GSI_PIT, 0x30);
	program_pit();
	fake_host_advance(9000000);
	assert_int_equal(acknowledge(0), -1);
	for (unsigned i = 0; i < 3; i++) {
		fake_host_advance(i ? 10000000 : 2000000);
		assert_int_equal(acknowledge(0), 0x30);
		apic_write(0, APIC_EOI, 0);
	}
}

static void test_pit_pic(void **state)
{
	pic_open(IRQ_PIT);
	program_pit();
	fake_host_advance(11000000);
	assert_true(pending(0) & PENDING_INTERRUPT);
	assert_int_equal(acknowledge(0), 0x20);
}

static void test_rtc(void **state)
{
	pic_open(IRQ_RTC);
	guest_out(0, PORT_RTC, 1, 0x0a);
	guest_out(0, PORT_RTC + 1, 1, 0x26); /* 1024 Hz */
	guest_out(0, PORT_RTC, 1, 0x0b);
	guest_out(0, PORT_RTC + 1, 1, 0x42); /* periodic, 24 hours */
	fake_host_advance(1000000);
	assert_int_equal(acknowledge(0), 0x28);
}

/* The SCI is level-triggered: it comes again after EOI until the status bit is cleared. */
static void test_sci(void **state)
{
	ioapic_write_entry(IRQ_SCI, 0x39 | LEVEL);
	guest_out(0, PM_ENABLE, 2, POWER_BUTTON);
	assert_int_equal(acknowledge(0), -1);
	vm_power_button(machine.vm);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(acknowledge(0), 0x39);
		assert_int_equal(acknowledge(0), -1);
		if (i)
			guest_out(0, PM_STATUS, 2, POWER_BUTTON);
		apic_write(0, APIC_EOI, 0);
	}
	assert_int_equal(acknowledge(0), -1);
}

static void test_keyboard(void **state)
{
	ioapic_write_entry(IRQ_KEYBOARD, 0x31);
	guest_out(0, 0x64, 1, 0x60); /* write the command byte: keyboard interrupt on */
	guest_out(0, 0x60, 1, 0x01);
	guest_out(0, 0x64, 1, 0xd2); /* as if the keyboard had sent it */
	guest_out(0, 0x60, 1, 0x1e);
	assert_int_equal(acknowledge(0), 0x31);
	assert_int_equal(guest_in(0, 0x60, 1), 0x1e);
}

/* ---- what registers do to the machine ---- */

static void test_reset_registers(void **state)
{
	static const struct {
		u16 port;
		u8 value;
	} rows[] = { { PORT_RESET, RESET_VALUE }, { PORT_FAST_A20, 1 }, { 0x64, 0xfe } };
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		machine.vm->reset_wanted = false;
		vcpu_clear_pending(&machine.vm->cpu[0]->vcpu, PENDING_KICK);
		guest_out(0, rows[i].port, 1, 0);
		assert_false(machine.vm->reset_wanted);
		guest_out(0, rows[i].port, 1, rows[i].value);
		assert_true(machine.vm->reset_wanted);
		assert_true(pending(0) & PENDING_KICK);
		assert_int_equal(vm_ended(machine.vm), VM_RUNNING);
		board_reset(&machine.vm->board, host_now());
	}
}

static void test_no_reboot(void **state)
{
	machine.vm->config.no_reboot = true;
	guest_out(0, PORT_RESET, 1, RESET_VALUE);
	assert_false(machine.vm->reset_wanted);
	assert_int_equal(vm_ended(machine.vm), VM_REBOOT);
	assert_int_equal(machine.ended, 1);
}

static void test_power_off(void **state)
{
	guest_out(0, PM_CONTROL, 2, 1 << 13 | 3 << 10); /* another sleep state */
	assert_int_equal(vm_ended(machine.vm), VM_RUNNING);
	guest_out(0, PM_CONTROL, 2, 1 << 13 | PM_SLP_TYP_S5 << 10);
	assert_int_equal(vm_ended(machine.vm), VM_POWEROFF);
	assert_int_equal(machine.ended, 1);
	guest_out(0, PORT_DEBUG_EXIT, 1, 3); /* too late */
	assert_int_equal(vm_ended(machine.vm), VM_POWEROFF);
	assert_int_equal(machine.ended, 1);
}

static void test_debug_exit(void **state)
{
	guest_out(0, PORT_DEBUG_EXIT, 4, 0x21);
	assert_int_equal(vm_ended(machine.vm), VM_DEBUG_EXIT);
	assert_int_equal(machine.vm->exit_status, 0x43);
}

/* ---- the rest ---- */

static void test_serial(void **state)
{
	for (const char *c = "hello"; *c; c++)
		guest_out(0, PORT_UART0, 1, (u8)*c);
	assert_int_equal(machine.sent_count, 5);
	assert_memory_equal(machine.sent, "hello", 5);
}

/* Input waits on the host until the receiver has room. */
static void test_serial_input(void **state)
{
	static const char text[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	guest_out(0, PORT_UART0 + 2, 1, 1); /* FIFOs on */
	machine.typed = text;
	vm_serial_input(machine.vm);
	assert_int_equal(machine.typed - text, UART_FIFO_SIZE);
	for (const char *c = text; *c; c++)
		assert_int_equal(guest_in(0, PORT_UART0, 1), *c);
	assert_int_equal(guest_in(0, PORT_UART0 + 5, 1) & 1, 0);
}

static void test_nothing_there(void **state)
{
	assert_int_equal(guest_in(0, 0x1234, 1), 0xff);
	assert_int_equal(guest_in(0, 0x1234, 4), 0xffffffff);
	guest_out(0, 0x1234, 4, 0);
	assert_int_equal(guest_load(0, 0xd0000000), 0xffffffff);
	guest_store(0, 0xd0000000, 0);
	assert_int_equal(vm_ended(machine.vm), VM_RUNNING);
}

/* A machine at rest asks nothing of the host; a timer asks for its next instant, and is fired then. */
static void test_deadlines(void **state)
{
	u64 now = host_now();
	assert_int_equal(board_deadline(&machine.vm->board), HOST_NEVER);
	assert_int_equal(machine.vm->board_armed, HOST_NEVER);
	program_pit();
	u64 first = board_deadline(&machine.vm->board);
	assert_in_range(first - now, 9900000, 10100000);
	assert_int_equal(machine.vm->board_armed, first);
	fake_host_set_now(first);
	assert_in_range(machine.vm->board_armed - first, 9900000, 10100000);
	/* Turned off: the armed timer fires once more, in vain, and nothing is armed then. */
	guest_out(0, PORT_PIT + 3, 1, 0x30);
	assert_int_equal(board_deadline(&machine.vm->board), HOST_NEVER);
	fake_host_advance(20000000);
	assert_int_equal(machine.vm->board_armed, HOST_NEVER);
}

/* Where the guest moves its local APIC's page, the board's devices begin to answer, and the other way round. */
static void test_apic_page(void **state)
{
	struct exit e = { .reason = EXIT_WRMSR,
			  .msr = { .index = MSR_APIC_BASE, .value = 0xd0000000 | APIC_BASE_EN | APIC_BASE_BSP } };
	assert_int_equal(guest_load(0, MAP_LAPIC + 0x30) & 0xff, 0x14);
	vm_exit(&machine.vm->cpu[0]->vcpu, &e);
	assert_false(e.msr.fault);
	assert_int_equal(guest_load(0, MAP_LAPIC + 0x30), 0xffffffff);
	assert_int_equal(guest_load(0, 0xd0000000 + 0x30) & 0xff, 0x14);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, machine_destroy)
		TEST(test_uart_ioapic),  TEST(test_uart_pic),      TEST(test_pit_ioapic), TEST(test_pit_pic),
		TEST(test_rtc),          TEST(test_sci),           TEST(test_keyboard),   TEST(test_reset_registers),
		TEST(test_no_reboot),    TEST(test_power_off),     TEST(test_debug_exit), TEST(test_serial),
		TEST(test_serial_input), TEST(test_nothing_there), TEST(test_deadlines),  TEST(test_apic_page),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
