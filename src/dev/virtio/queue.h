/* Virtqueues, split and packed (Virtual I/O Device Specification 1.2, "Split Virtqueues" and "Packed Virtqueues").
 *
 * Rings lie in guest memory, and the guest may change them at any time. Each descriptor is copied once and checked once:
 * what a chain says after that is true, all its pieces are RAM (and not ROM where the device writes). Chains and tables
 * are bounded, so that no ring can make the device loop. A ring that breaks the rules breaks its queue for good
 * (`broken`) until the device is reset; nothing else comes of it.
 *
 * The owner serializes calls. */
#ifndef NADIR_DEV_VIRTIO_QUEUE_H
#define NADIR_DEV_VIRTIO_QUEUE_H

#include "lib/state.h"
#include "mmu/ram.h"

#define VIRTQ_SIZE_MAX 128
#define VIRTQ_PIECES_MAX VIRTQ_SIZE_MAX

/* A stretch of guest memory. */
struct virtq_piece {
	u8 *data;
	gpa_t gpa;
	u32 size; /* not 0 */
};

/* One buffer that the driver made available: what the device reads, then what it writes. */
struct virtq_chain {
	u16 id;          /* how the ring calls it */
	u16 descriptors; /* how many of the ring it takes */
	unsigned readable, pieces;
	struct virtq_piece piece[VIRTQ_PIECES_MAX]; /* `readable` ones, then those to write */
};

struct virtq {
	/* Set by the transport before virtq_enable. */
	u16 size;
	bool packed, event_index;
	u64 descriptors, driver, device; /* guest physical: descriptor table or ring, driver area, device area */

	struct ram *ram;
	bool enabled, broken;
	u8 *ring, *driver_area, *device_area; /* of `size`, in RAM: checked by virtq_enable */
	u16 next_available, next_used;        /* split: running counts; packed: places in the ring */
	bool available_wrap, used_wrap;       /* packed */
};

/* Begin at an empty ring. False, and broken, if size, alignment or place are wrong. */
bool virtq_enable(struct virtq *q, struct ram *ram);

/* Where the next buffer is taken from. */
struct virtq_place {
	u16 next_available;
	bool available_wrap;
};

/* A buffer that was taken, to be given back: its first `written` bytes are new. */
struct virtq_used {
	u16 id, descriptors;
	u32 written;
};

/* Take the next buffer. False: there is none (then the driver will notify when there is), or the queue is broken. */
bool virtq_pop(struct virtq *q, struct virtq_chain *chain);
/* Give a buffer back of which the device wrote the first `written` bytes, told to ram_written here. True: interrupt the
 * driver. */
bool virtq_push(struct virtq *q, const struct virtq_chain *chain, u32 written);

/* Give several back at once: the driver sees all of them or none. What was written must have been told to ram_written. At least one, and of
 * those that were taken in a row, in that order. True: interrupt the driver. */
bool virtq_push_all(struct virtq *q, const struct virtq_used *used, unsigned count);

/* Buffers that were taken since `place` and not given back can be taken again: as if they had not been touched. */
static inline struct virtq_place virtq_mark(const struct virtq *q)
{
	return (struct virtq_place){ q->next_available, q->available_wrap };
}

static inline void virtq_rewind(struct virtq *q, struct virtq_place place)
{
	q->next_available = place.next_available;
	q->available_wrap = place.available_wrap;
}

/* Copy the first bytes that the device reads (to nowhere, if buffer is NULL) and cut them off the chain; false if there are fewer. */
bool virtq_take(struct virtq_chain *chain, void *buffer, u32 size);
/* Copy into what the device writes; how much there was room for. */
u32 virtq_give(const struct virtq_chain *chain, const void *bytes, u32 size);
/* Bytes to read and to write. */
u64 virtq_readable(const struct virtq_chain *chain);
u64 virtq_writable(const struct virtq_chain *chain);

/* What a queue needs beside its table: to be called when it was loaded. False: it cannot be. */
bool virtq_loaded(struct virtq *q, struct ram *ram);
extern const struct state_table virtq_state;

#endif
