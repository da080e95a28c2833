/* The real-time clock under any sequence of port accesses and time steps. */
#include "dev/rtc.h"
#include "host/port.h"
#include "input.h"

static void step(struct rtc *rtc, struct input *in, u64 *now)
{
	u8 op = input_u8(in);

	switch (op & 7) {
	case 0:
	case 1:
		*now += input_step(in);
		rtc_advance(rtc, *now);
		CHECK(rtc_deadline(rtc) > *now);
		break;
	case 2:
		rtc_ops.read(rtc, op >> 3 & 1, 1, *now);
		break;
	case 3:
		rtc_reset(rtc, *now);
		break;
	default:
		rtc_ops.write(rtc, 0, 1, op & 0x80 ? input_u8(in) : op >> 3 & 15, *now);
		rtc_ops.write(rtc, 1, 1, input_u8(in), *now);
	}
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct rtc rtc = { 0 };
	u64 now = 0;

	rtc_init(&rtc, input_take(&in, 7), now);
	while (in.left) {
		step(&rtc, &in, &now);
		/* The wire says what register C says. */
		CHECK(rtc.irq.level == !!(rtc.cmos[0xc] & 0x80));
		CHECK(rtc.irq.level == !!(rtc.cmos[0xb] & rtc.cmos[0xc] & 0x70));
		CHECK(rtc.index < RTC_CMOS_SIZE);
	}
	return 0;
}
