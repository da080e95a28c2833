/* RFB under any bytes of a client's, with pictures of changing sizes in between. */
#include "host/linux/rfb.h"
#include "input.h"

#include <stdlib.h>
#include <string.h>

static u32 pixel[160 * 96];

static void on_key(void *opaque, u16 code, bool down)
{
	CHECK(code && (code < 0x80 || (code >> 8 == 0xe0 && !(code & 0x80))));
}

static void on_pointer(void *opaque, u16 x, u16 y, u8 buttons)
{
}

static void on_random(void *opaque, u8 *challenge, size_t size)
{
	memset(challenge, 7, size);
}

static void on_refused(void *opaque)
{
}

static const struct rfb_events events = { .key = on_key, .pointer = on_pointer };
static const struct rfb_events asking = { .key = on_key, .pointer = on_pointer, .password = "secret", .random = on_random, .refused = on_refused };

static bool picture(struct rfb *rfb, u8 which)
{
	const struct rfb_picture p = { pixel, 1 + (which & 15) * 10, 1 + (which >> 4) * 6 };
	pixel[which] ^= which;
	bool good = rfb_update(rfb, &p);
	rfb->out_sent = which & 1 ? rfb->out_used : rfb->out_sent;
	return good;
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct rfb rfb;
	bool good = true;
	rfb_init(&rfb, size & 2 ? &asking : &events, 100, 70);
	if ((size & 3) == 1)
		good = rfb_take(&rfb, (const u8 *)"RFB 003.008\n\x01\x01", 14);
	rfb.out_sent = rfb.out_used;
	while (good && in.left) {
		size_t n = input_u8(&in);
		n = MIN(n, in.left);
		good = rfb_take(&rfb, in.bytes, n);
		in.bytes += n;
		in.left -= n;
		good = good && picture(&rfb, input_u8(&in));
		CHECK(rfb.in_used <= RFB_IN_MAX && rfb.out_used <= rfb.out_size);
	}
	rfb_release(&rfb);
	return 0;
}
