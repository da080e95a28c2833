/* The ACPI fixed hardware and the reset registers under any sequence of port accesses, button presses and time steps.
 */
#include "dev/pm.h"
#include "dev/map.h"
#include "dev/reset.h"
#include "input.h"

static bool sci;
static unsigned resets;

static void on_sci(void *opaque, unsigned pin, bool level)
{
	CHECK(sci != level);
	sci = level;
}

static void on_reset(void *opaque)
{
	resets++;
}

static void check(struct bus *io, struct pm *pm, u64 now)
{
	u64 status = bus_read(io, PORT_PM, 2, now), enable = bus_read(io, PORT_PM + 2, 2, now);
	CHECK(!(enable & ~0x521ull) && !(status & ~0x101ull));
	CHECK(sci == !!(status & enable));
	CHECK((bus_read(io, PORT_PM + 4, 4, now) & ~0x1c02ull) == 1);
	CHECK(pm_deadline(pm) > now);
}

static void step(struct bus *io, struct pm *pm, struct input *in, u64 *now)
{
	static const u16 ports[] = { PORT_PM, PORT_PM + 4, PORT_PM + 8, PORT_FAST_A20 };
	u8 op = input_u8(in);
	unsigned size = input_size(in);
	u64 port = ports[op >> 2 & 3] + (op >> 4 & 3);

	switch (op & 3) {
	case 0:
		*now += input_step(in) << 6;
		pm_advance(pm, *now);
		break;
	case 1:
		pm_power_button(pm);
		break;
	case 2:
		CHECK(!(bus_read(io, port, size, *now) & ~size_mask(size)));
		break;
	default:
		bus_write(io, port, size, input_take(in, size), *now);
	}
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct bus io = { 0 }, behind = { 0 };
	struct pm pm = { .sci = { .sink = on_sci } };
	struct reset reset = { .reset = on_reset };
	u64 now = 0;

	sci = false;
	CHECK(!pm_attach(&pm, &io, PORT_PM, now));
	CHECK(!reset_attach(&reset, &io, &behind));
	while (in.left) {
		step(&io, &pm, &in, &now);
		check(&io, &pm, now);
	}
	return 0;
}
