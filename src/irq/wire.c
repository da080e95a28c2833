/* What of a wire is state: its level. */
#include "irq/wire.h"

const struct state_table wire_state = STATE_TABLE(struct wire, NULL,
	STATE_NONE(struct wire, sink), STATE_NONE(struct wire, opaque), STATE_NONE(struct wire, pin), STATE(struct wire, level));
