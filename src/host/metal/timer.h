/* The thread on which host timers fire. */
#ifndef NADIR_HOST_METAL_TIMER_H
#define NADIR_HOST_METAL_TIMER_H

/* Once, when threads can be made. */
void timer_start(void);

#endif
