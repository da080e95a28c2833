/* What the host port's threads want done before there are several (thread.c). */
#ifndef NADIR_HOST_LINUX_THREAD_H
#define NADIR_HOST_LINUX_THREAD_H

/* Count CPUs, and tell the kernel that host_barrier_all will be called: it takes its time, 6 ms to tens of them, once a process has a second thread. */
void thread_prepare(void);

#endif
