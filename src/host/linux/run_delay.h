/* How long a thread waited for a CPU (host_run_delay). */
#ifndef NADIR_HOST_LINUX_RUN_DELAY_H
#define NADIR_HOST_LINUX_RUN_DELAY_H

/* While paths can be opened; then, before confinement, on each thread that will ask; then, when all have. */
void run_delay_init(void);
void run_delay_thread_init(void);
void run_delay_forget(void);

#endif
