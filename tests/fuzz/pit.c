/* The interval timer under any sequence of port accesses and time steps. */
#include "dev/pit.h"
#include "host/port.h"
#include "input.h"

static void step(struct pit *pit, struct input *in, u64 *now)
{
	u8 op = input_u8(in);
	unsigned size = op & 0x80 ? input_size(in) : 1;
	const struct region_ops *ops = op & 4 ? &system_control_ops : &pit_ops;
	u64 offset = op & 4 ? 0 : op >> 3 & 3;

	if ((op & 3) == 0) {
		*now += input_step(in);
		pit_advance(pit, *now);
		CHECK(pit_deadline(pit) > *now);
	} else if ((op & 3) == 1) {
		ops->read(pit, offset, size, *now);
	} else {
		ops->write(pit, offset, size, input_take(in, size), *now);
	}
}

static void check(const struct pit *pit)
{
	for (unsigned i = 0; i < 3; i++) {
		const struct pit_channel *c = &pit->channel[i];
		CHECK(c->mode <= 5 && c->access >= 1 && c->access <= 3);
		CHECK(c->count >= 1 && c->count <= 0x10000);
		CHECK(c->latched_bytes <= 2);
	}
	CHECK(pit->channel[0].gate && pit->channel[1].gate);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct pit pit = { 0 };
	u64 now = 0;

	pit_reset(&pit);
	while (in.left) {
		step(&pit, &in, &now);
		check(&pit);
	}
	return 0;
}
