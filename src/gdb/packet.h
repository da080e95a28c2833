/* Packets of GDB's remote protocol: `$data#checksum`, acknowledged by + or - unless both sides agreed not to. GDB manual, appendix "GDB Remote
 * Serial Protocol", "Overview", "Packet Acknowledgment". What comes in is hostile. */
#ifndef NADIR_GDB_PACKET_H
#define NADIR_GDB_PACKET_H

#include "arch/types.h"

/* Bytes of a packet's data, without escapes, in either direction. */
#define GDB_PACKET_MAX 16384u
/* Room for a packet as it is sent: each byte may be escaped. */
#define GDB_FRAME_MAX (2 * GDB_PACKET_MAX + 4)

enum gdb_event {
	GDB_NOTHING,
	GDB_PACKET, /* data[0..used) is complete */
	GDB_TOO_LONG, /* a packet ended that does not fit */
	GDB_DAMAGED, /* its checksum is wrong */
	GDB_INTERRUPT, /* Ctrl-C, outside packets */
	GDB_RESEND, /* the last packet did not arrive well */
};

/* Zero is the beginning. */
struct gdb_parser {
	enum { GDB_OUTSIDE, GDB_DATA, GDB_ESCAPED, GDB_SUM_HIGH, GDB_SUM_LOW } state;
	bool trusting; /* acknowledgment is off, and with it the checksum */
	bool too_long;
	u8 sum, told;
	u32 used;
	u8 data[GDB_PACKET_MAX];
};

/* One byte more. */
enum gdb_event gdb_parse(struct gdb_parser *parser, u8 byte);

/* Make a packet of `size` bytes of data, GDB_PACKET_MAX at most; how long it is. */
u32 gdb_frame(u8 frame[GDB_FRAME_MAX], const u8 *data, u32 size);

/* ---- reading data ---- */

struct gdb_cursor {
	const u8 *at, *end;
};

/* The value of a hexadecimal digit, or -1. */
int gdb_digit(u8 c);
/* Take what is expected, or leave it. */
bool gdb_take(struct gdb_cursor *c, char expected);
bool gdb_take_word(struct gdb_cursor *c, const char *word);
/* A hexadecimal number of 1 to 16 digits. */
bool gdb_take_number(struct gdb_cursor *c, u64 *value);
/* `size` bytes of two digits each. */
bool gdb_take_bytes(struct gdb_cursor *c, u8 *to, u64 size);
static inline u64 gdb_left(const struct gdb_cursor *c)
{
	return (u64)(c->end - c->at);
}

/* ---- writing data ---- */

/* What does not fit is cut off. */
struct gdb_text {
	u8 *data;
	u32 used, size;
};

void gdb_put(struct gdb_text *text, const char *string);
void gdb_put_number(struct gdb_text *text, u64 value);
void gdb_put_bytes(struct gdb_text *text, const void *from, u64 size); /* two digits each */
void gdb_put_raw(struct gdb_text *text, const void *from, u64 size);

#endif
