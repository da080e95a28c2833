/* The host port's locks, sleeping and per-thread state. */
#define _GNU_SOURCE
#include "host/linux/thread.h"

#include "host/linux/space_handoff.h"
#include "host/port.h"

#include <asm/prctl.h>
#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(pthread_mutex_t) <= sizeof(struct host_lock), "a host_lock holds a mutex");

static pthread_mutex_t *mutex_of(struct host_lock *lock)
{
	return (pthread_mutex_t *)lock->opaque;
}

void host_lock_init(struct host_lock *lock)
{
	pthread_mutex_init(mutex_of(lock), NULL);
}

void host_lock(struct host_lock *lock)
{
	pthread_mutex_lock(mutex_of(lock));
}

void host_unlock(struct host_lock *lock)
{
	pthread_mutex_unlock(mutex_of(lock));
}

void host_wait(u32 *word, u32 expected, u64 deadline)
{
	struct timespec t = { .tv_sec = (time_t)(deadline / 1000000000), .tv_nsec = (long)(deadline % 1000000000) };
	handoff_unpin();
	/* FUTEX_WAIT_BITSET takes an absolute time on the monotonic clock. */
	syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, deadline == HOST_NEVER ? NULL : &t, NULL,
		FUTEX_BITSET_MATCH_ANY);
}

void host_wake(u32 *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1);
}

void host_yield(void)
{
	sched_yield();
}

static pthread_once_t barrier_once = PTHREAD_ONCE_INIT;
static bool barrier_registered;

static void barrier_register(void)
{
	barrier_registered = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

static unsigned cpus; /* that we may use; 0: not known */

bool host_may_look_out(unsigned busy)
{
	return cpus > busy;
}

void thread_prepare(void)
{
	cpu_set_t set;
	cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 0;
	pthread_once(&barrier_once, barrier_register);
}

/* The fallback is slow (milliseconds), but old kernels have it. */
void host_barrier_all(void)
{
	pthread_once(&barrier_once, barrier_register);
	int command = barrier_registered ? MEMBARRIER_CMD_PRIVATE_EXPEDITED : MEMBARRIER_CMD_GLOBAL;
	if (syscall(SYS_membarrier, command, 0, 0) < 0)
		host_panic("membarrier failed: errno %d", errno);
}

void host_set_gs_base(void *base)
{
	if (syscall(SYS_arch_prctl, ARCH_SET_GS, base) < 0)
		host_panic("arch_prctl(ARCH_SET_GS) failed: errno %d", errno);
}

void *host_gs_base(void)
{
	void *base;
	__asm__ volatile("rdgsbase %0" : "=r"(base));
	return base;
}
