/* `nadir probe` (D1, and A1's promise of "any x86-64 machine"): what this machine offers to virtual machines, and which
 * engine nadir would choose on it. */
#ifndef NADIR_HOST_LINUX_PROBE_H
#define NADIR_HOST_LINUX_PROBE_H

#include <stdio.h>

#include "arch/types.h"

/* Print the report, as sentences for people or as one JSON object. Returns the status to exit with: 0, or 1 where the
 * report could not be made. Takes at most a few seconds, and never fails because of the machine's KVM, whatever that
 * does. */
int probe_main(bool json, FILE *out);

#endif
