/* The end of the machine. */
#ifndef NADIR_HOST_METAL_POWER_H
#define NADIR_HOST_METAL_POWER_H

#include "host/metal/acpi.h"

/* By the reset control register of PC chipsets. Returns if nothing comes of it. */
void power_reset(void);
/* By ACPI's sleeping state S5. Returns, after a second, if the machine does not know it. */
void power_off(const struct acpi_info *info);

#endif
