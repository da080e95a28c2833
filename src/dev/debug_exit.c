/* The exit port of test guests (debug_exit.h). */
#include "dev/debug_exit.h"

#include "dev/map.h"

static u64 debug_exit_read(void *device, u64 offset, unsigned size, u64 now)
{
	return 0;
}

static void debug_exit_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	const struct debug_exit *debug_exit = device;
	debug_exit->exit(debug_exit->opaque, (u32)(value << 1) | 1);
}

static const struct region_ops debug_exit_ops = { .read = debug_exit_read, .write = debug_exit_write, .width = 4 };

int debug_exit_attach(struct debug_exit *debug_exit, struct bus *io)
{
	return bus_add(io, "debug exit", PORT_DEBUG_EXIT, 4, &debug_exit_ops, debug_exit);
}
