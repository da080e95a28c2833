/* The event loop of the main thread (event.c). Timers are the host port's; here are file descriptors and the loop itself. */
#ifndef NADIR_HOST_LINUX_EVENT_H
#define NADIR_HOST_LINUX_EVENT_H

#include "arch/types.h"

/* Before anything else of this file or any host timer. 0 or -errno. */
int event_init(void);

/* Call ready(opaque) on the loop's thread whenever fd is readable or at its end. Before event_run, or on its thread. */
int event_watch(int fd, void (*ready)(void *opaque), void *opaque);
void event_enable(int fd, bool enabled);
/* Watch it no more; on the loop's thread. */
void event_forget(int fd);

/* Make the loop call its `woken` callback soon; from any thread and from signal handlers, which save errno themselves. */
void event_wake(void);
/* Make event_run return; from any thread and from signal handlers. */
void event_stop(void);

/* Run until event_stop. */
void event_run(void (*woken)(void *opaque), void *opaque);

#endif
