/* `nadir techniques` (C8, E9): what the ways to run a guest's CPU, and to give it memory, cost on this machine, measured now: bench/guest/exits.c, which is
 * built in, runs as the guest of a `nadir run` for each of them. */
#ifndef NADIR_HOST_LINUX_TECHNIQUES_H
#define NADIR_HOST_LINUX_TECHNIQUES_H

#include "arch/types.h"

#define TECHNIQUE_KINDS 40
#define TECHNIQUE_WAYS 8

/* A way to run a guest: a column. */
struct technique {
	const char *name, *engine, *direct; /* direct: of --direct, or NULL */
	char why_not[400]; /* "": it was measured */
	u64 cycles[TECHNIQUE_KINDS]; /* the median of each row; 0: none */
};

/* What is measured, in order; `row` numbers it. NULL: no more. */
struct technique_kind {
	const char *name; /* as the guest calls it */
	const char *text;
	u64 (*native)(void); /* the same here, without a guest; NULL: that is not possible */
	bool loop; /* its speed is to be compared */
};
const struct technique_kind *technique_kind(unsigned row);

/* Run the guest that way; fills *t. */
void technique_measure(struct technique *t);
/* Of each row, here. */
void technique_measure_native(u64 *cycles);

int command_techniques(int argc, char **argv);

#endif
