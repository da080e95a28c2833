/* The control socket (control.c): HTTP over a Unix socket, answered by one thread that sleeps while nobody asks. What can be asked is api.h's. */
#ifndef NADIR_HOST_LINUX_CONTROL_H
#define NADIR_HOST_LINUX_CONTROL_H

#include "host/linux/api.h"
#include "host/linux/console.h"

/* Listen at `path`, by option --`option`. 0, or -1 after one sentence on stderr. */
int control_listen(const char *option, const char *path);
/* Whether there is a socket. */
bool control_wanted(void);
/* Start the thread, if there is a socket. `vm` and `console` stay the caller's until control_stop. 0 or an error number. */
int control_start(const struct api_vm *vm, struct console *console);
/* Tell those who listen to events. From any thread; nothing happens without a socket. `detail` may be NULL. */
void control_event(const char *event, const char *detail);
/* Send what is on its way, close every connection and end the thread. */
void control_stop(void);

#endif
