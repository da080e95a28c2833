/* The 8259 pair under any sequence of port accesses, line changes and acknowledges. */
#include "irq/pic.h"
#include "input.h"

static bool intr;

static void sink(void *opaque, unsigned pin, bool level)
{
	intr = level;
}

static void acknowledge(struct pic *pic)
{
	u8 before = pic->chip[0].isr | pic->chip[1].isr;
	bool was = pic_intr(pic);
	int vector = pic_acknowledge(pic);

	CHECK(vector >= 0 && vector <= 0xff);
	if (!was) /* nothing to take: the spurious vector, and nothing in service */
		CHECK((vector & 7) == 7 && (pic->chip[0].isr | pic->chip[1].isr) == before);
}

static void access(struct pic *pic, struct input *in, u8 op)
{
	u64 offset = op & 1, value;
	unsigned size = input_size(in) & 3 ? input_size(in) : 1;

	value = op & 2 ? 0 : input_take(in, size);
	switch (op >> 2 & 7) {
	case 0:
		op & 2 ? (void)pic_master_read(pic, offset, size, 0) : pic_master_write(pic, offset, size, value, 0);
		break;
	case 1:
		op & 2 ? (void)pic_slave_read(pic, offset, size, 0) : pic_slave_write(pic, offset, size, value, 0);
		break;
	case 2:
		op & 2 ? (void)pic_elcr_read(pic, offset, size, 0) : pic_elcr_write(pic, offset, size, value, 0);
		break;
	case 3:
		acknowledge(pic);
		break;
	default:
		pic_set_line(pic, input_u8(in) & 31, op & 1);
	}
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct pic pic = { .intr = { .sink = sink } };

	intr = false;
	pic_reset(&pic);
	while (in.left) {
		access(&pic, &in, input_u8(&in));
		CHECK(intr == pic_intr(&pic));
		for (unsigned i = 0; i < 2; i++) {
			CHECK(pic.chip[i].next_icw == 0 || (pic.chip[i].next_icw >= 2 && pic.chip[i].next_icw <= 4));
			CHECK(pic.chip[i].lowest < 8);
			/* A line that is low requests nothing; only inputs without a wire of their own may differ. */
			CHECK(!(pic.chip[i].irr & ~pic.chip[i].lines));
		}
	}
	return 0;
}
