/* Packets of GDB's remote protocol; see packet.h. */
#include "gdb/packet.h"

#include "lib/string.h"

#define INTERRUPT 0x03
#define ESCAPE '}'
#define ESCAPE_XOR 0x20

/* ---- in ---- */

static void store(struct gdb_parser *p, u8 byte)
{
	if (p->used == GDB_PACKET_MAX)
		p->too_long = true;
	else
		p->data[p->used++] = byte;
}

static enum gdb_event outside(struct gdb_parser *p, u8 byte)
{
	switch (byte) {
	case '$':
		p->state = GDB_DATA;
		p->used = p->sum = 0;
		p->too_long = false;
		return GDB_NOTHING;
	case INTERRUPT:
		return GDB_INTERRUPT;
	case '-':
		return p->trusting ? GDB_NOTHING : GDB_RESEND;
	default:
		return GDB_NOTHING;
	}
}

static enum gdb_event in_data(struct gdb_parser *p, u8 byte)
{
	if (byte == '$') /* the rest of the packet before was lost */
		return outside(p, byte);
	if (byte == '#') {
		p->state = GDB_SUM_HIGH;
		return GDB_NOTHING;
	}
	p->sum += byte;
	if (byte == ESCAPE)
		p->state = GDB_ESCAPED;
	else
		store(p, byte);
	return GDB_NOTHING;
}

static enum gdb_event complete(struct gdb_parser *p, bool sound)
{
	p->state = GDB_OUTSIDE;
	if (!sound && !p->trusting)
		return GDB_DAMAGED;
	return p->too_long ? GDB_TOO_LONG : GDB_PACKET;
}

enum gdb_event gdb_parse(struct gdb_parser *p, u8 byte)
{
	int digit = gdb_digit(byte);
	switch (p->state) {
	case GDB_OUTSIDE:
		return outside(p, byte);
	case GDB_DATA:
		return in_data(p, byte);
	case GDB_ESCAPED:
		p->sum += byte;
		p->state = GDB_DATA;
		store(p, byte ^ ESCAPE_XOR);
		return GDB_NOTHING;
	case GDB_SUM_HIGH:
		if (digit < 0)
			return complete(p, false);
		p->told = (u8)(digit << 4);
		p->state = GDB_SUM_LOW;
		return GDB_NOTHING;
	default:
		return complete(p, digit >= 0 && (p->told | digit) == p->sum);
	}
}

/* ---- out ---- */

static u8 hex(unsigned digit)
{
	return (u8)"0123456789abcdef"[digit & 0xf];
}

/* `*` would begin a run of equal bytes. */
static bool must_escape(u8 byte)
{
	return byte == '$' || byte == '#' || byte == ESCAPE || byte == '*';
}

u32 gdb_frame(u8 frame[GDB_FRAME_MAX], const u8 *data, u32 size)
{
	u8 *to = frame, sum = 0;
	*to++ = '$';
	for (u32 i = 0; i < size; i++) {
		bool escaped = must_escape(data[i]);
		if (escaped)
			*to++ = ESCAPE;
		*to++ = escaped ? data[i] ^ ESCAPE_XOR : data[i];
	}
	for (const u8 *p = frame + 1; p < to; p++)
		sum += *p;
	*to++ = '#';
	*to++ = hex(sum >> 4);
	*to++ = hex(sum);
	return (u32)(to - frame);
}

/* ---- reading data ---- */

int gdb_digit(u8 c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool gdb_take(struct gdb_cursor *c, char expected)
{
	if (c->at == c->end || *c->at != (u8)expected)
		return false;
	c->at++;
	return true;
}

bool gdb_take_word(struct gdb_cursor *c, const char *word)
{
	const u8 *at = c->at;
	for (; *word; word++, at++)
		if (at == c->end || *at != (u8)*word)
			return false;
	c->at = at;
	return true;
}

bool gdb_take_number(struct gdb_cursor *c, u64 *value)
{
	unsigned digits = 0;
	for (*value = 0; c->at < c->end && gdb_digit(*c->at) >= 0; c->at++, digits++)
		*value = *value << 4 | (u64)gdb_digit(*c->at);
	return digits && digits <= 16;
}

bool gdb_take_bytes(struct gdb_cursor *c, u8 *to, u64 size)
{
	if (gdb_left(c) / 2 < size)
		return false;
	for (; size; size--, c->at += 2) {
		int high = gdb_digit(c->at[0]), low = gdb_digit(c->at[1]);
		if (high < 0 || low < 0)
			return false;
		*to++ = (u8)(high << 4 | low);
	}
	return true;
}

/* ---- writing data ---- */

void gdb_put_raw(struct gdb_text *text, const void *from, u64 size)
{
	u32 n = (u32)MIN(size, (u64)(text->size - text->used));
	memcpy(text->data + text->used, from, n);
	text->used += n;
}

void gdb_put(struct gdb_text *text, const char *string)
{
	while (*string && text->used < text->size)
		text->data[text->used++] = (u8)*string++;
}

void gdb_put_bytes(struct gdb_text *text, const void *from, u64 size)
{
	const u8 *p = from;
	for (; size && text->size - text->used >= 2; size--, p++) {
		text->data[text->used++] = hex(*p >> 4);
		text->data[text->used++] = hex(*p);
	}
}

void gdb_put_number(struct gdb_text *text, u64 value)
{
	unsigned shift = 60;
	u8 digit;
	while (shift && !(value >> shift))
		shift -= 4;
	for (;; shift -= 4) {
		digit = hex((unsigned)(value >> shift));
		gdb_put_raw(text, &digit, 1);
		if (!shift)
			break;
	}
}
