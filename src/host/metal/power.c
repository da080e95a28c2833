/* Reset and power-off (power.h). ACPI Specification 6.5, "Waking and Sleeping", "PM1 Control Registers". */
#include "host/metal/power.h"

#include "host/metal/asm.h"
#include "host/metal/time.h"
#include "host/port.h"
#include "lib/scale.h"

#define SCI_EN BIT(0) /* ACPI owns the registers, not the firmware's SMM */
#define SLP_TYP_SHIFT 10
#define SLP_TYP 0x1c00u
#define SLP_EN BIT(13)
#define RESET_CONTROL 0xcf9

void power_reset(void)
{
	outb(RESET_CONTROL, 2);
	outb(RESET_CONTROL, 6);
}

static void take_over(const struct acpi_power *power)
{
	u64 start = host_now();
	if ((inw(power->pm1a) & SCI_EN) || !power->smi || !power->enable)
		return;
	outb(power->smi, power->enable);
	while (!(inw(power->pm1a) & SCI_EN) && host_now() - start < NANOSECONDS_PER_SECOND)
		cpu_relax();
}

static void sleep(u16 port, u8 type)
{
	u16 others = inw(port) & (u16)~(SLP_TYP | SLP_EN);
	outw(port, (u16)(others | (type & 7) << SLP_TYP_SHIFT | SLP_EN));
}

void power_off(const struct acpi_info *info)
{
	const struct acpi_power *power = &info->power;
	if (!power->pm1a || !power->s5)
		return;
	take_over(power);
	sleep(power->pm1a, power->type_a);
	if (power->pm1b)
		sleep(power->pm1b, power->type_b);
	time_delay(NANOSECONDS_PER_SECOND);
}
