/* Threads that are confined by their roles (sandbox_thread.h). */
#define _GNU_SOURCE
#include "host/linux/sandbox_thread.h"

#include "host/port.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What a thread is made with. It is used again: memory that another thread frees would cost that one a heap of its own. */
struct start {
	enum sandbox_role role;
	void *(*run)(void *opaque);
	void *opaque;
	bool taken;
	struct start *next;
};

static struct {
	pthread_mutex_t lock; /* of all that follows */
	pthread_cond_t released;
	bool held;
	const struct sock_fprog *programs; /* NULL: nobody is confined */
	bool used[SANDBOX_ROLES];
	struct start *starts;
} threads = { .lock = PTHREAD_MUTEX_INITIALIZER, .released = PTHREAD_COND_INITIALIZER, .used[SANDBOX_MAIN] = true };

static _Thread_local enum sandbox_role mine = SANDBOX_MAIN;

static const struct {
	const char *name;
	bool opens_first;
} roles[SANDBOX_ROLES] = {
	[SANDBOX_MAIN] = { "main", true },	 [SANDBOX_VCPU] = { "vcpu", true },	      [SANDBOX_DISK] = { "disk", false },
	[SANDBOX_RING] = { "ring", true },	 [SANDBOX_NET] = { "net", false },	      [SANDBOX_SHARE] = { "share", false },
	[SANDBOX_VSOCK] = { "vsock", false },	 [SANDBOX_CONTROL] = { "control", false },    [SANDBOX_PLUG] = { "plug", false },
	[SANDBOX_DEBUGGER] = { "debugger", false }, [SANDBOX_DISPLAY] = { "display", false },
};

const char *sandbox_role_name(enum sandbox_role role)
{
	return roles[role].name;
}

enum sandbox_role sandbox_thread_role(void)
{
	return mine;
}

bool sandbox_role_used(enum sandbox_role role)
{
	pthread_mutex_lock(&threads.lock);
	bool used = threads.used[role];
	pthread_mutex_unlock(&threads.lock);
	return used;
}

void sandbox_role_expect(enum sandbox_role role)
{
	pthread_mutex_lock(&threads.lock);
	threads.used[role] = true;
	pthread_mutex_unlock(&threads.lock);
}

void sandbox_threads_hold(void)
{
	threads.held = true;
}

void sandbox_threads_release(const struct sock_fprog *programs)
{
	pthread_mutex_lock(&threads.lock);
	threads.programs = programs;
	threads.held = false;
	pthread_cond_broadcast(&threads.released);
	pthread_mutex_unlock(&threads.lock);
}

void sandbox_thread_confine(enum sandbox_role role)
{
	pthread_mutex_lock(&threads.lock);
	while (threads.held)
		pthread_cond_wait(&threads.released, &threads.lock);
	mine = role;
	const struct sock_fprog *program = threads.programs ? &threads.programs[role] : NULL;
	pthread_mutex_unlock(&threads.lock);
	if (program && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, program) < 0)
		host_panic("a thread cannot be confined: errno %d", errno);
}

/* One that no thread has yet to take; with the lock. */
static struct start *find_start(void)
{
	struct start *s = threads.starts;
	while (s && !s->taken)
		s = s->next;
	if (s)
		return s;
	s = calloc(1, sizeof(*s));
	if (s) {
		s->next = threads.starts;
		threads.starts = s;
	}
	return s;
}

static void *begin(void *opaque)
{
	struct start *from = opaque;
	pthread_mutex_lock(&threads.lock);
	const struct start start = *from;
	from->taken = true;
	pthread_mutex_unlock(&threads.lock);
	prctl(PR_SET_NAME, roles[start.role].name);
	if (!roles[start.role].opens_first)
		sandbox_thread_confine(start.role);
	return start.run(start.opaque);
}

int sandbox_thread_create(pthread_t *thread, enum sandbox_role role, void *(*run)(void *opaque), void *opaque)
{
	pthread_mutex_lock(&threads.lock);
	threads.used[role] = true;
	struct start *s = find_start();
	if (s)
		*s = (struct start){ role, run, opaque, .next = s->next };
	pthread_mutex_unlock(&threads.lock);
	int error = s ? pthread_create(thread, NULL, begin, s) : ENOMEM;
	if (error && s) {
		pthread_mutex_lock(&threads.lock);
		s->taken = true;
		pthread_mutex_unlock(&threads.lock);
	}
	return error;
}
