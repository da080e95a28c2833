/* A flash chip, as QEMU fits it for UEFI variables: bytes that are read like memory, and programmed and erased by commands. Intel, "Common
 * Flash Interface (CFI) and Command Sets", "Basic Command Set"; the commands that firmware uses. */
#ifndef NADIR_DEV_PFLASH_H
#define NADIR_DEV_PFLASH_H

#include "dev/bus.h"
#include "lib/state.h"

#define PFLASH_SECTOR 4096u

/* Where the bytes live. */
struct pflash_backend {
	u8 *data; /* `size` bytes of whole sectors; NULL: no chip */
	u64 size;
	/* Bytes have changed, and are to be on stable storage when this returns; negative if they are not. */
	int (*store)(void *opaque, u64 offset, u64 size);
	void *opaque;
};

struct pflash {
	struct pflash_backend backend;
	u8 command; /* the one in force */
	u8 status;
	u64 dirty_from, dirty_to; /* what has changed and is not stored */
};

/* Answer at `base`; 0, or a negative value as bus_add. */
int pflash_attach(struct pflash *flash, const struct pflash_backend *backend, struct bus *memory, gpa_t base);
void pflash_reset(struct pflash *flash);

void pflash_state(struct state *s, struct pflash *flash);

#endif
