/* How long a thread waited for a CPU (host_run_delay). */
#ifndef NADIR_HOST_LINUX_RUN_DELAY_H
#define NADIR_HOST_LINUX_RUN_DELAY_H

/* Before confinement, on each thread that will ask. */
void run_delay_thread_init(void);

#endif
