/* The Remote Framebuffer Protocol (RFC 6143), the server's side of one connection: bytes in, bytes out, that the caller moves (rfb.c, rfb_update.c).
 * Versions 3.3, 3.7 and 3.8, security "None" or, with a password, "VNC Authentication", encodings Raw and ZRLE, sizes that change (DesktopSize), and keys by their codes instead of symbols
 * (QEMU's extended key events), which no keyboard layout comes between. The peer is untrusted: everything has a limit. */
#ifndef NADIR_HOST_LINUX_RFB_H
#define NADIR_HOST_LINUX_RFB_H

#include "arch/types.h"

#include <zlib.h>

#define RFB_IN_MAX 4096
#define RFB_TILE 64
#define RFB_CHALLENGE 16
#define RFB_PASSWORD_MAX 8

/* What a client asks for; called while its bytes are taken. */
struct rfb_events {
	void (*key)(void *opaque, u16 code, bool down); /* as i8042_key */
	void (*pointer)(void *opaque, u16 x, u16 y, u8 buttons);
	void *opaque;
	/* What every client must know, RFB_PASSWORD_MAX characters at most; NULL: nothing. */
	const char *password;
	void (*random)(void *opaque, u8 *bytes, size_t size); /* only with a password */
	void (*refused)(void *opaque); /* a client did not know it; likewise */
};

struct rfb_format {
	u8 bytes; /* of a pixel: 1, 2 or 4 */
	u8 depth;
	bool big_endian;
	u16 max[3]; /* red, green, blue */
	u8 shift[3];
};

struct rfb_picture {
	const u32 *pixel; /* red in bits 16 to 23, green, blue */
	unsigned width, height;
};

struct rfb {
	const struct rfb_events *events;
	enum rfb_stage { RFB_VERSION, RFB_SECURITY, RFB_PASSWORD, RFB_INIT, RFB_NORMAL } stage;
	unsigned minor; /* of the version: 3, 7 or 8 */
	u8 challenge[RFB_CHALLENGE];
	u8 in[RFB_IN_MAX];
	size_t in_used;
	u64 skip; /* bytes of a message that are of no use */
	u8 *out;
	size_t out_sent, out_used, out_size;
	struct rfb_format format;
	bool zrle, resizes, codes; /* encodings that the client takes */
	bool codes_told;
	bool wants; /* an update is asked for */
	bool wants_all; /* and not only of what changed */
	unsigned width, height; /* as the client knows them */
	u32 *sent; /* what it shows */
	z_stream z;
	bool z_open, broken;
};

/* Begin: the greeting is in `out`. */
void rfb_init(struct rfb *rfb, const struct rfb_events *events, unsigned width, unsigned height);
void rfb_release(struct rfb *rfb);
/* Take bytes; false: the peer is to be left, once `out` is sent. */
bool rfb_take(struct rfb *rfb, const u8 *bytes, size_t size);
/* Answer the update that is asked for, if anything changed. False: out of memory. */
bool rfb_update(struct rfb *rfb, const struct rfb_picture *picture);

/* The code of the key that makes this X11 symbol on a keyboard with the layout of the US; 0: there is none (rfb_keys.c). */
u16 rfb_key_code(u32 symbol);

/* Whether this is what the challenge becomes by the password (rfb_auth.c). */
bool rfb_password_good(const char *password, const u8 *challenge, const u8 *response);

/* ---- within ---- */

/* Room for so many bytes more; NULL, and rfb->broken: there is none. */
u8 *rfb_room(struct rfb *rfb, size_t size);

#endif
