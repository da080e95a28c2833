/* RFB: the handshake, and what clients say (rfb.h). RFC 6143, "Handshaking Messages", "Client-to-Server Messages"; the rfbproto document, "QEMU
 * Extended Key Event". */
#include "host/linux/rfb.h"

#include <stdlib.h>
#include <string.h>

#define VERSION "RFB 003.008\n"
#define VERSION_SIZE 12
enum { SECURITY_NONE = 1, SECURITY_PASSWORD = 2 };
#define OUT_MAX (64u << 20)

enum { SET_FORMAT = 0, SET_ENCODINGS = 2, UPDATE_REQUEST = 3, KEY = 4, POINTER = 5, CUT_TEXT = 6, QEMU = 255 };
enum { ENCODING_ZRLE = 16, ENCODING_DESKTOP_SIZE = -223, ENCODING_QEMU_KEYS = -258 };

static u32 be(const u8 *p, unsigned size)
{
	u32 value = 0;
	while (size--)
		value = value << 8 | *p++;
	return value;
}

static void put_be(u8 *p, unsigned size, u32 value)
{
	while (size--)
		*p++ = (u8)(value >> (8 * size));
}

u8 *rfb_room(struct rfb *rfb, size_t size)
{
	if (rfb->out_sent == rfb->out_used)
		rfb->out_sent = rfb->out_used = 0;
	if (rfb->out_used + size > rfb->out_size) {
		u8 *out = rfb->out_used + size > OUT_MAX ? NULL : realloc(rfb->out, 2 * (rfb->out_used + size));
		if (!out) {
			rfb->broken = true;
			return NULL;
		}
		rfb->out = out;
		rfb->out_size = 2 * (rfb->out_used + size);
	}
	rfb->out_used += size;
	return rfb->out + rfb->out_used - size;
}

static void put(struct rfb *rfb, const void *bytes, size_t size)
{
	u8 *to = rfb_room(rfb, size);
	if (to)
		memcpy(to, bytes, size);
}

/* ---- the handshake ---- */

static void put_init(struct rfb *rfb)
{
	static const u8 format[16] = { 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0 };
	static const char name[] = "nadir";
	u8 *to = rfb_room(rfb, 24 + sizeof(name) - 1);
	if (!to)
		return;
	put_be(to, 2, rfb->width);
	put_be(to + 2, 2, rfb->height);
	memcpy(to + 4, format, sizeof(format));
	put_be(to + 20, 4, sizeof(name) - 1);
	memcpy(to + 24, name, sizeof(name) - 1);
}

static u8 security(const struct rfb *rfb)
{
	return rfb->events->password ? SECURITY_PASSWORD : SECURITY_NONE;
}

static void begin_security(struct rfb *rfb)
{
	rfb->stage = RFB_INIT;
	if (!rfb->events->password)
		return;
	rfb->events->random(rfb->events->opaque, rfb->challenge, sizeof(rfb->challenge));
	put(rfb, rfb->challenge, sizeof(rfb->challenge));
	rfb->stage = RFB_PASSWORD;
}

static bool take_version(struct rfb *rfb, const u8 *p)
{
	if (memcmp(p, "RFB 003.", 8) || p[11] != '\n')
		return false;
	rfb->minor = !memcmp(p + 8, "008", 3) ? 8 : !memcmp(p + 8, "007", 3) ? 7 : 3;
	if (rfb->minor == 3) {
		put(rfb, (const u8[]){ 0, 0, 0, security(rfb) }, 4);
		begin_security(rfb);
	} else {
		put(rfb, (const u8[]){ 1, security(rfb) }, 2);
		rfb->stage = RFB_SECURITY;
	}
	return true;
}

static bool take_security(struct rfb *rfb, u8 chosen)
{
	if (chosen != security(rfb))
		return false;
	begin_security(rfb);
	if (rfb->minor == 8 && chosen == SECURITY_NONE)
		put(rfb, "\0\0\0\0", 4);
	return true;
}

static bool take_password(struct rfb *rfb, const u8 *response)
{
	static const char failed[] = "\0\0\0\x01\0\0\0\x0ewrong password";
	if (rfb_password_good(rfb->events->password, rfb->challenge, response)) {
		put(rfb, "\0\0\0\0", 4);
		rfb->stage = RFB_INIT;
		return true;
	}
	put(rfb, failed, rfb->minor == 8 ? sizeof(failed) - 1 : 4);
	rfb->events->refused(rfb->events->opaque);
	return false;
}

static size_t handshake_size(const struct rfb *rfb)
{
	return rfb->stage == RFB_VERSION ? VERSION_SIZE : rfb->stage == RFB_PASSWORD ? RFB_CHALLENGE : 1;
}

static bool handshake(struct rfb *rfb, const u8 *p)
{
	switch (rfb->stage) {
	case RFB_VERSION:
		return take_version(rfb, p);
	case RFB_SECURITY:
		return take_security(rfb, *p);
	case RFB_PASSWORD:
		return take_password(rfb, p);
	default:
		rfb->stage = RFB_NORMAL;
		put_init(rfb);
		return true;
	}
}

/* ---- messages ---- */

static bool set_format(struct rfb *rfb, const u8 *p)
{
	struct rfb_format f = { .bytes = p[0] / 8, .depth = p[1], .big_endian = p[2] };
	if ((p[0] != 8 && p[0] != 16 && p[0] != 32) || !p[3])
		return false; /* tables of colors went out of use long ago */
	for (unsigned i = 0; i < 3; i++) {
		f.max[i] = (u16)be(p + 4 + 2 * i, 2);
		f.shift[i] = p[10 + i];
		if (f.shift[i] >= p[0])
			return false;
	}
	rfb->format = f;
	rfb->wants_all = true;
	return true;
}

static void set_encodings(struct rfb *rfb, const u8 *p, unsigned count)
{
	rfb->zrle = rfb->resizes = rfb->codes = false;
	for (unsigned i = 0; i < count; i++) {
		s32 encoding = (s32)be(p + 4 * i, 4);
		rfb->zrle |= encoding == ENCODING_ZRLE;
		rfb->resizes |= encoding == ENCODING_DESKTOP_SIZE;
		rfb->codes |= encoding == ENCODING_QEMU_KEYS;
	}
}

/* Codes above 7f stand for keys with a prefix. */
static void take_code(struct rfb *rfb, u32 code, bool down)
{
	if (code && code < 0x100)
		rfb->events->key(rfb->events->opaque, (u16)(code & 0x80 ? 0xe000 | (code & 0x7f) : code), down);
}

static void take_symbol(struct rfb *rfb, u32 symbol, bool down)
{
	u16 code = rfb_key_code(symbol);
	if (code)
		rfb->events->key(rfb->events->opaque, code, down);
}

/* How many bytes the next message has, as far as those that are there tell; 0: it is none. */
static size_t message_size(const struct rfb *rfb)
{
	size_t count;
	switch (rfb->in[0]) {
	case SET_FORMAT:
		return 20;
	case SET_ENCODINGS:
		count = rfb->in_used < 4 ? 0 : be(rfb->in + 2, 2);
		return 4 + 4 * count <= RFB_IN_MAX ? 4 + 4 * count : 0;
	case UPDATE_REQUEST:
		return 10;
	case KEY:
	case CUT_TEXT:
		return 8;
	case POINTER:
		return 6;
	case QEMU:
		return rfb->in_used > 1 && rfb->in[1] ? 0 : 12;
	default:
		return 0;
	}
}

static bool message(struct rfb *rfb, const u8 *p)
{
	switch (*p) {
	case SET_FORMAT:
		return set_format(rfb, p + 4);
	case SET_ENCODINGS:
		set_encodings(rfb, p + 4, be(p + 2, 2));
		break;
	case UPDATE_REQUEST:
		rfb->wants = true;
		rfb->wants_all |= !p[1];
		break;
	case KEY:
		take_symbol(rfb, be(p + 4, 4), p[1]);
		break;
	case POINTER:
		rfb->events->pointer(rfb->events->opaque, (u16)be(p + 2, 2), (u16)be(p + 4, 2), p[1]);
		break;
	case CUT_TEXT:
		rfb->skip = be(p + 4, 4);
		break;
	case QEMU:
		take_code(rfb, be(p + 8, 4), be(p + 2, 2));
		break;
	}
	return true;
}

static void drop(struct rfb *rfb, size_t size)
{
	memmove(rfb->in, rfb->in + size, rfb->in_used - size);
	rfb->in_used -= size;
}

/* All messages that are complete. */
static bool take_all(struct rfb *rfb)
{
	while (rfb->in_used) {
		size_t skipped = (size_t)MIN(rfb->skip, rfb->in_used);
		rfb->skip -= skipped;
		drop(rfb, skipped);
		if (!rfb->in_used)
			break;
		bool normal = rfb->stage == RFB_NORMAL;
		size_t size = normal ? message_size(rfb) : handshake_size(rfb);
		if (!size)
			return false;
		if (rfb->in_used < size)
			break;
		if (!(normal ? message : handshake)(rfb, rfb->in) || rfb->broken)
			return false;
		drop(rfb, size);
	}
	return true;
}

bool rfb_take(struct rfb *rfb, const u8 *bytes, size_t size)
{
	while (size) {
		size_t n = MIN(size, RFB_IN_MAX - rfb->in_used);
		memcpy(rfb->in + rfb->in_used, bytes, n);
		rfb->in_used += n;
		bytes += n;
		size -= n;
		if (!take_all(rfb))
			return false;
	}
	return true;
}

/* ---- life ---- */

void rfb_init(struct rfb *rfb, const struct rfb_events *events, unsigned width, unsigned height)
{
	*rfb = (struct rfb){ .events = events, .width = width, .height = height, .wants_all = true,
			     .format = { .bytes = 4, .depth = 24, .max = { 255, 255, 255 }, .shift = { 16, 8, 0 } } };
	put(rfb, VERSION, VERSION_SIZE);
}

void rfb_release(struct rfb *rfb)
{
	if (rfb->z_open)
		deflateEnd(&rfb->z);
	free(rfb->sent);
	free(rfb->out);
}
