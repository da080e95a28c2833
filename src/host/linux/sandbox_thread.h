/* The threads of a confined process (A7): each may ask less of the kernel than the process may, by what it is for. */
#ifndef NADIR_HOST_LINUX_SANDBOX_THREAD_H
#define NADIR_HOST_LINUX_SANDBOX_THREAD_H

#include <pthread.h>
#include <stdbool.h>

struct sock_fprog;

/* What threads are for. The rules of each are in sandbox_rules.c. */
enum sandbox_role {
	SANDBOX_MAIN, /* the event loop: consoles, timers, the beginning and the end */
	SANDBOX_VCPU,
	SANDBOX_DISK, /* carries requests out */
	SANDBOX_RING, /* waits for a disk's io_uring */
	SANDBOX_NET,
	SANDBOX_SHARE,
	SANDBOX_VSOCK,
	SANDBOX_CONTROL,
	SANDBOX_PLUG, /* adds and removes disks and networks; makes threads of the role of disks, which have no more than it has */
	SANDBOX_DEBUGGER,
	SANDBOX_DISPLAY,
	SANDBOX_ROLES
};

/* As pthread_create. The thread has the role's name, and begins with `run` when it is confined; a vCPU's or ring's has something to open first, and
 * calls sandbox_thread_confine itself. */
int sandbox_thread_create(pthread_t *thread, enum sandbox_role role, void *(*run)(void *opaque), void *opaque);

/* Wait until the process is confined, if that is still to come, and confine this thread to what its role needs. A process that is not to be confined
 * leaves it as it is. */
void sandbox_thread_confine(enum sandbox_role role);

/* ---- for the process's own confinement (sandbox.c) ---- */

const char *sandbox_role_name(enum sandbox_role role);
enum sandbox_role sandbox_thread_role(void); /* this thread's */
/* There is, was, or may be such a thread. */
bool sandbox_role_used(enum sandbox_role role);
void sandbox_role_expect(enum sandbox_role role);

/* The process is going to be confined: let threads wait for that. Before there are any. */
void sandbox_threads_hold(void);
/* It is: let them load these, of each role one, which stay where they are. */
void sandbox_threads_release(const struct sock_fprog *programs);

#endif
