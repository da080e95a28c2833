/* The event timer under any sequence of register accesses and time steps. */
#include "dev/hpet.h"
#include "dev/map.h"
#include "input.h"

static bool level[HPET_ROUTE_FIRST + HPET_ROUTES];

static void line(void *opaque, unsigned pin, bool now)
{
	CHECK(level[pin] != now);
	level[pin] = now;
}

static u64 offset(struct input *in)
{
	static const u16 registers[] = { 0x00, 0x10, 0x20, 0xf0, 0x100, 0x108, 0x120, 0x128, 0x140, 0x148 };
	u8 which = input_u8(in);
	return which & 0x80 ? which << 2 & 0x1ff : registers[which % 10] + (which & 0x40 ? 4u : 0u);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct bus bus = { 0 };
	struct hpet hpet = { 0 };
	u64 now = 0;
	__builtin_memset(level, 0, sizeof(level));
	for (unsigned i = 0; i < HPET_LEGACY; i++)
		hpet.legacy[i] = (struct wire){ .sink = line, .pin = i * 8 };
	for (unsigned i = 0; i < HPET_ROUTES; i++)
		hpet.route[i] = (struct wire){ .sink = line, .pin = HPET_ROUTE_FIRST + i };
	CHECK(!hpet_attach(&hpet, &bus));
	while (in.left) {
		u8 op = input_u8(&in);
		unsigned width = input_size(&in);
		if (op & 1)
			now += input_step(&in) << 6;
		if (op & 2)
			hpet_advance(&hpet, now);
		if (op & 4)
			bus_write(&bus, MAP_HPET + offset(&in), width, input_take(&in, width), now);
		if (op & 8)
			CHECK((bus_read(&bus, MAP_HPET, 8, now) ^ HPET_CAPABILITIES) == 0);
		bus_read(&bus, MAP_HPET + offset(&in), width, now);
		CHECK(hpet_deadline(&hpet) > now);
		CHECK(!(hpet.status & ~7ull));
	}
	hpet_reset(&hpet);
	for (unsigned i = 0; i < ARRAY_SIZE(level); i++)
		CHECK(!level[i]);
	return 0;
}
