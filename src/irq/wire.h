/* An interrupt wire: the output of a device, connected once by the board to an input of an interrupt controller. The
 * level is kept, so that setting the same level twice tells nobody. */
#ifndef NADIR_IRQ_WIRE_H
#define NADIR_IRQ_WIRE_H

#include "arch/types.h"
#include "lib/state.h"

struct wire {
	void (*sink)(void *opaque, unsigned pin, bool level);
	void *opaque;
	unsigned pin;
	bool level;
};

static inline void wire_set(struct wire *w, bool level)
{
	if (w->level == level)
		return;
	w->level = level;
	if (w->sink)
		w->sink(w->opaque, w->pin, level);
}

extern const struct state_table wire_state;

#endif
