/* Request and answer between a thread of the VMM and a space: who runs when, on which CPU. */
#ifndef NADIR_HOST_LINUX_SPACE_HANDOFF_H
#define NADIR_HOST_LINUX_SPACE_HANDOFF_H

#include "host/linux/space_layout.h"

/* The VMM's end. */
struct handoff {
	struct space_control *control;
	struct space_answer *answer;
	u64 expected; /* TSC ticks from request to answer, on average */
	u64 spin_after; /* no spinning before this time */
	u64 short_times; /* for how long it was put off last, in units of the time that we spin */
	u64 looked, switches; /* when we last looked, and how often both sides had lost their CPUs until then */
	u32 sequence; /* of the last request */
	int ring; /* eventfd: the space waits */
	int apart, at; /* the CPU that the space keeps away from, the one that it is bound to; -1: none */
};

/* Before any other call: what of the host counts. */
void handoff_start(void);
/* The memory of a new space, all zero. Its first request, to begin, is on its way. */
void handoff_init(struct handoff *h, struct space_control *control, struct space_answer *answer, const u64 *pass);
/* Have the queued commands carried out, signed with `pass`, and then run, if it is to. False: there is no answer, and there will be none
 * that can be believed. True: the space waits for the next request, whatever it has run. */
bool handoff_request(struct handoff *h, const u64 *pass, bool run);
/* Sleep until the last request is answered. `hurry`: that should be soon, whatever the space does. */
bool handoff_await(struct handoff *h, bool hurry);
/* This thread may run on any CPU again: it is going to wait for something else. */
void handoff_unpin(void);
/* Wait until the process has ended, or the server, which takes it along. */
void handoff_await_end(struct handoff *h);
/* Whether FS and GS can be loaded and stored without the kernel. */
bool handoff_fsgsbase(void);
/* The space's process has ended. */
bool handoff_dead(const struct handoff *h);

#endif
