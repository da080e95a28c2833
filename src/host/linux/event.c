/* The event loop of the main thread: timers of the host port, file descriptors, and signals, one poll() for all. */
#define _GNU_SOURCE
#include "host/linux/event.h"

#include "host/port.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct host_timer {
	void (*fire)(void *opaque);
	void *opaque;
	u64 deadline;
	bool running; /* its callback runs now, without the lock */
	struct host_timer *next;
};

struct watch {
	int fd;
	void (*ready)(void *opaque);
	void *opaque;
	bool enabled;
};

#define WATCHES_MAX 16

/* The one event loop of the process. `lock` guards timers and armed; watches belong to the loop's thread. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t idle;
	struct host_timer *timers;
	u64 armed; /* what the timerfd is set to */
	int timer_fd, wake_fd;
	bool stop;
	struct watch watch[WATCHES_MAX];
	unsigned watches;
} loop = { .lock = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER, .armed = HOST_NEVER };

/* Set the timerfd to the earliest deadline, if that changed. Called with the lock held. */
static void rearm(void)
{
	u64 first = HOST_NEVER;
	for (struct host_timer *t = loop.timers; t; t = t->next)
		first = MIN(first, t->deadline);
	if (first == loop.armed)
		return;
	loop.armed = first;
	struct itimerspec spec = { 0 };
	if (first != HOST_NEVER) {
		u64 at = MAX(first, 1ull); /* 0 would disarm */
		spec.it_value.tv_sec = (time_t)(at / 1000000000);
		spec.it_value.tv_nsec = (long)(at % 1000000000);
	}
	timerfd_settime(loop.timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

struct host_timer *host_timer_create(void (*fire)(void *opaque), void *opaque)
{
	struct host_timer *t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	*t = (struct host_timer){ .fire = fire, .opaque = opaque, .deadline = HOST_NEVER };
	pthread_mutex_lock(&loop.lock);
	t->next = loop.timers;
	loop.timers = t;
	pthread_mutex_unlock(&loop.lock);
	return t;
}

void host_timer_arm(struct host_timer *timer, u64 deadline)
{
	pthread_mutex_lock(&loop.lock);
	if (timer->deadline != deadline) {
		timer->deadline = deadline;
		rearm();
	}
	pthread_mutex_unlock(&loop.lock);
}

void host_timer_destroy(struct host_timer *timer)
{
	if (!timer)
		return;
	pthread_mutex_lock(&loop.lock);
	while (timer->running)
		pthread_cond_wait(&loop.idle, &loop.lock);
	for (struct host_timer **t = &loop.timers; *t; t = &(*t)->next) {
		if (*t == timer) {
			*t = timer->next;
			break;
		}
	}
	rearm();
	pthread_mutex_unlock(&loop.lock);
	free(timer);
}

/* Fire every timer that is due, earliest first. */
static void fire_timers(void)
{
	pthread_mutex_lock(&loop.lock);
	u64 now = host_now();
	for (;;) {
		struct host_timer *first = NULL;
		for (struct host_timer *t = loop.timers; t; t = t->next)
			if (t->deadline <= now && (!first || t->deadline < first->deadline))
				first = t;
		if (!first)
			break;
		first->deadline = HOST_NEVER;
		first->running = true;
		pthread_mutex_unlock(&loop.lock);
		first->fire(first->opaque);
		pthread_mutex_lock(&loop.lock);
		first->running = false;
		pthread_cond_broadcast(&loop.idle);
	}
	rearm();
	pthread_mutex_unlock(&loop.lock);
}

int event_init(void)
{
	loop.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	loop.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return loop.timer_fd < 0 || loop.wake_fd < 0 ? -errno : 0;
}

int event_watch(int fd, void (*ready)(void *opaque), void *opaque)
{
	unsigned i = 0;
	while (i < loop.watches && loop.watch[i].fd >= 0)
		i++;
	if (i == WATCHES_MAX)
		return -1;
	loop.watch[i] = (struct watch){ .fd = fd, .ready = ready, .opaque = opaque, .enabled = true };
	loop.watches = MAX(loop.watches, i + 1);
	return 0;
}

void event_enable(int fd, bool enabled)
{
	for (unsigned i = 0; i < loop.watches; i++)
		if (loop.watch[i].fd == fd)
			loop.watch[i].enabled = enabled;
}

/* Its place is kept, so that those behind it do not move while the loop looks at them. */
void event_forget(int fd)
{
	for (unsigned i = 0; i < loop.watches; i++)
		if (loop.watch[i].fd == fd)
			loop.watch[i] = (struct watch){ .fd = -1 };
}

void event_wake(void)
{
	u64 one = 1;
	while (write(loop.wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void event_stop(void)
{
	__atomic_store_n(&loop.stop, true, __ATOMIC_SEQ_CST);
	event_wake();
}

static void drain(int fd)
{
	u64 count;
	while (read(fd, &count, sizeof(count)) > 0)
		;
}

void event_run(void (*woken)(void *opaque), void *opaque)
{
	struct pollfd fds[2 + WATCHES_MAX];
	while (!__atomic_load_n(&loop.stop, __ATOMIC_SEQ_CST)) {
		fds[0] = (struct pollfd){ .fd = loop.timer_fd, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = loop.wake_fd, .events = POLLIN };
		for (unsigned i = 0; i < loop.watches; i++)
			fds[2 + i] = (struct pollfd){ .fd = loop.watch[i].enabled ? loop.watch[i].fd : -1,
						      .events = POLLIN };
		if (poll(fds, 2 + loop.watches, -1) < 0)
			continue;
		if (fds[0].revents) {
			drain(loop.timer_fd);
			pthread_mutex_lock(&loop.lock);
			loop.armed = HOST_NEVER; /* it fired: whatever comes next must be set again */
			pthread_mutex_unlock(&loop.lock);
			fire_timers();
		}
		if (fds[1].revents) {
			drain(loop.wake_fd);
			woken(opaque);
		}
		unsigned watches = loop.watches;
		for (unsigned i = 0; i < watches; i++)
			if (fds[2 + i].revents && fds[2 + i].fd == loop.watch[i].fd)
				loop.watch[i].ready(loop.watch[i].opaque);
	}
}
