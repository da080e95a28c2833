/* Debug console at ports 0xe9 and 0x402 (debug_console.h). */
#include "dev/debug_console.h"

#include "dev/map.h"

static u64 debug_console_read(void *device, u64 offset, unsigned size, u64 now)
{
	return PORT_DEBUG_CONSOLE;
}

static void debug_console_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	const struct debug_console *console = device;
	console->emit(console->opaque, (u8)value);
}

static const struct region_ops debug_console_ops = { .read = debug_console_read,
						     .write = debug_console_write,
						     .width = 1 };

int debug_console_attach(struct debug_console *console, struct bus *io)
{
	int error = bus_add(io, "debug console", PORT_DEBUG_CONSOLE, 1, &debug_console_ops, console);
	return error ? error : bus_add(io, "firmware console", PORT_FIRMWARE_CONSOLE, 1, &debug_console_ops, console);
}
