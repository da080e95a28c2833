/* What the clocks are told by those who know more (time.c). */
#ifndef NADIR_HOST_LINUX_CLOCK_H
#define NADIR_HOST_LINUX_CLOCK_H

#include "arch/types.h"

/* The time-stamp counter probably has this frequency, as it had when a snapshot was taken: a short look is then enough to tell, which begins with
 * this call. Before host_tsc_hz is called for the first time. */
void time_expect_tsc_hz(u64 hz);

#endif
