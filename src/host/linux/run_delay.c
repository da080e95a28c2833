/* How long a thread waited for a CPU: the second number of /proc/thread-self/schedstat. Linux documentation, "Scheduler Statistics". */
#define _GNU_SOURCE
#include "host/linux/run_delay.h"

#include "host/port.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

static int tasks = -1;
static __thread int schedstat = -1;

void run_delay_init(void)
{
	tasks = open("/proc/self/task", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

void run_delay_thread_init(void)
{
	char name[32];
	snprintf(name, sizeof(name), "%d/schedstat", gettid());
	schedstat = tasks < 0 ? -1 : openat(tasks, name, O_RDONLY | O_CLOEXEC);
}

void run_delay_forget(void)
{
	close(tasks);
	tasks = -1;
}

u64 host_run_delay(void)
{
	char text[96];
	const struct iovec line = { text, sizeof(text) - 1 };
	ssize_t n = schedstat < 0 ? -1 : preadv(schedstat, &line, 1, 0);
	if (n <= 0)
		return 0;
	text[n] = 0;
	char *second;
	strtoull(text, &second, 10);
	return strtoull(second, NULL, 10);
}
