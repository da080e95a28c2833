/* nadir on the bare machine: from the boot loader to running guests, in the order in which things can be set up. */
#include "host/metal/acpi.h"
#include "host/metal/apic.h"
#include "host/metal/boot_info.h"
#include "host/metal/cpu.h"
#include "host/metal/guest.h"
#include "host/metal/irq.h"
#include "host/metal/log.h"
#include "host/metal/machine_check.h"
#include "host/metal/map.h"
#include "host/metal/pages.h"
#include "host/metal/power.h"
#include "host/metal/serial.h"
#include "host/metal/smp.h"
#include "host/metal/thread.h"
#include "host/metal/time.h"
#include "host/metal/timer.h"
#include "host/port.h"
#include "lib/bytes.h"

static struct boot_info info;
static struct acpi_info acpi;

_Noreturn void metal_start(u32 magic, u64 address);

/* entry.S maps the first 4 GiB to themselves. */
const u8 *boot_at(u64 address, u64 size)
{
	return range_within(address, size, BIT(32)) ? (const u8 *)(uintptr_t)address : NULL;
}

/* What needs threads. */
static void run(void *opaque)
{
	timer_start();
	enum guests_end end = guests_run(&info);
	log_line("all guests have ended");
	serial_flush();
	if (end == GUESTS_RESET)
		power_reset();
	if (end == GUESTS_POWER_OFF)
		power_off(&acpi);
	if (end != GUESTS_HALT)
		log_line("this machine does not know how to %s", end == GUESTS_RESET ? "reset itself" : "switch itself off: ACPI's tables do not tell");
}

void metal_start(u32 magic, u64 address)
{
	serial_init();
	const char *trouble = boot_info_read(&info, magic, address);
	if (!trouble)
		trouble = pages_init(&info);
	if (trouble)
		host_panic("%s", trouble);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE); /* before tables say that pages are not executable */
	write_cr0(read_cr0() | CR0_WP);
	map_init(&info);
	time_init();
	cpus[0] = cpu_create(0, 0);
	if (!cpus[0])
		host_panic("no memory for the first CPU");
	cpu_count = 1;
	cpu_init(cpus[0]);
	apic_init();
	cpus[0]->apic_id = apic_id();
	thread_adopt_idle(cpus[0]);
	machine_check_init();
	if (acpi_read(&acpi, info.rsdp ? info.rsdp_copy : NULL))
		smp_start(&acpi);
	irq_init(&acpi);
	log_line("%u MiB of memory, %u CPU%s, %u IOMMUs, by %s", (unsigned)(pages_total() >> 8), cpu_count, cpu_count > 1 ? "s" : "", acpi.iommus,
		 info.loader);
	const struct thread_setup setup = { .name = "main", .run = run };
	if (!thread_create(&setup))
		host_panic("no memory for a thread");
	thread_idle();
}
