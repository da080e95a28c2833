/* Starting the other CPUs. */
#ifndef NADIR_HOST_METAL_SMP_H
#define NADIR_HOST_METAL_SMP_H

#include "host/metal/acpi.h"

/* Start all CPUs but this one, which is the first; each becomes an idle thread. Those that do not answer are left out, and that is said. */
void smp_start(const struct acpi_info *info);

#endif
