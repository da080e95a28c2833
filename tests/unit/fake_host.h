/* Control of the fake host: a clock the test sets, timers it fires, and the log it can read. */
#ifndef NADIR_TESTS_FAKE_HOST_H
#define NADIR_TESTS_FAKE_HOST_H

#include "host/port.h"

/* Time as host_now() gives it. Moving it fires the timers that are due, in order, on the calling thread. */
void fake_host_set_now(u64 now);
void fake_host_advance(u64 nanoseconds);
/* What happens in the world while a thread sleeps in host_wait; without, its sleep must have a deadline. */
void fake_host_set_idle(void (*idle)(void *opaque), void *opaque);
/* Until when the last sleeper means to sleep. */
u64 fake_host_idle_until(void);
/* How many CPUs host_may_look_out compares with; 0 at first. */
void fake_host_set_cpus(unsigned cpus);
/* What host_run_delay says. */
void fake_host_set_run_delay(u64 nanoseconds);
/* The last line logged, or "". */
const char *fake_host_last_log(void);

#endif
