/* Clocks of the host. */
#ifndef NADIR_HOST_METAL_TIME_H
#define NADIR_HOST_METAL_TIME_H

#include "arch/types.h"

/* Once, before anything asks for the time: find out how fast the time-stamp counter runs, and what day it is. */
void time_init(void);
/* Spin for so long. */
void time_delay(u64 nanoseconds);

#endif
