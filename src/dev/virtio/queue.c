/* Split and packed virtqueues (queue.h). */
#include "dev/virtio/queue.h"

#include "lib/string.h"

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u
#define PACKED_AVAILABLE BIT(7)
#define PACKED_USED BIT(15)

/* A descriptor of either kind; the last two fields of 16 bits mean flags and next, or id and flags. */
struct descriptor {
	u64 address;
	u32 length;
	u16 third, fourth;
};
static_assert(sizeof(struct descriptor) == 16, "Virtqueue Descriptor Table; Packed Virtqueue Descriptor");

/* Split: the available ring is flags, index, entries, used_event; the used ring flags, index, entries, avail_event. */
#define RING_INDEX 2
#define RING_ENTRIES 4
#define AVAILABLE_NO_INTERRUPT 1u
#define USED_ENTRY_SIZE 8

/* Packed: an event suppression structure is a place with the wrap counter on top, then flags. */
#define EVENT_PLACE 0
#define EVENT_FLAGS 2
#define EVENT_DISABLE 1u
#define EVENT_PLACE_ONLY 2u
#define EVENT_WRAP 0x8000u

/* ---- guest memory that is shared with the driver ---- */

static u16 load16(const u8 *p)
{
	return __atomic_load_n((const u16 *)(const void *)p, __ATOMIC_ACQUIRE);
}

static void store16(u8 *p, u16 value)
{
	__atomic_store_n((u16 *)(void *)p, value, __ATOMIC_RELEASE);
}

/* Stores before are seen before loads after: both sides store their progress, then look at the other's wishes. */
static void full_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static u8 *area(struct ram *ram, gpa_t gpa, u64 size, u64 alignment, bool write)
{
	const struct ram_slot *slot = gpa % alignment ? NULL : ram_find(ram, gpa);
	return slot && !(write && slot->readonly) ? ram_pointer(ram, gpa, size) : NULL;
}

static void device_area_written(struct virtq *q, unsigned offset, unsigned size)
{
	ram_written(q->ram, q->device + offset, size);
}

static bool break_queue(struct virtq *q)
{
	q->broken = true;
	return false;
}

static bool possible_size(const struct virtq *q)
{
	u64 size = q->size;
	return size && size <= VIRTQ_SIZE_MAX && (q->packed || !(size & (size - 1)));
}

static bool find_areas(struct virtq *q)
{
	struct ram *ram = q->ram;
	u64 size = q->size;
	q->ring = area(ram, q->descriptors, size * sizeof(struct descriptor), 16, q->packed);
	q->driver_area = area(ram, q->driver, q->packed ? 4 : RING_ENTRIES + size * 2 + 2, q->packed ? 4 : 2, false);
	q->device_area = area(ram, q->device, q->packed ? 4 : RING_ENTRIES + size * USED_ENTRY_SIZE + 2, 4, true);
	return q->ring && q->driver_area && q->device_area;
}

bool virtq_enable(struct virtq *q, struct ram *ram)
{
	q->ram = ram;
	if (!possible_size(q) || !find_areas(q))
		return break_queue(q);
	q->next_available = q->next_used = 0;
	q->available_wrap = q->used_wrap = true;
	q->broken = false;
	q->enabled = true;
	return true;
}

/* ---- chains ---- */

/* Add what one descriptor points to. */
static bool add_piece(struct virtq *q, struct virtq_chain *chain, const struct descriptor *d, bool write)
{
	if (!write && chain->readable != chain->pieces)
		return break_queue(q); /* what is read comes before what is written */
	if (!d->length)
		return true;
	u8 *data = area(q->ram, d->address, d->length, 1, write);
	if (!data || chain->pieces == VIRTQ_PIECES_MAX)
		return break_queue(q);
	chain->piece[chain->pieces++] = (struct virtq_piece){ data, d->address, d->length };
	chain->readable += !write;
	return true;
}

/* How long a table of indirect descriptors is, and where; 0 if it cannot be one. */
static u32 indirect_table(struct virtq *q, const struct descriptor *d, const u8 **table)
{
	u32 count = d->length / sizeof(struct descriptor);
	*table = ram_pointer(q->ram, d->address, d->length);
	return *table && d->length % sizeof(struct descriptor) == 0 && count <= VIRTQ_PIECES_MAX ? count : 0;
}

static void copy_descriptor(struct descriptor *d, const u8 *table, unsigned index)
{
	memcpy(d, table + (size_t)index * sizeof(*d), sizeof(*d));
}

/* ---- split ---- */

/* Follow `next` through a table of `count` descriptors, in which the first comes at most once. */
static bool split_follow(struct virtq *q, struct virtq_chain *chain, const u8 *table, u32 count, u16 index, bool indirect)
{
	struct descriptor d;
	for (u32 steps = 0; steps < count && index < count; steps++) {
		copy_descriptor(&d, table, index);
		if (d.third & DESC_INDIRECT) {
			const u8 *inner;
			u32 length = indirect || (d.third & DESC_NEXT) ? 0 : indirect_table(q, &d, &inner);
			return length ? split_follow(q, chain, inner, length, 0, true) : break_queue(q);
		}
		if (!add_piece(q, chain, &d, d.third & DESC_WRITE))
			return false;
		if (!(d.third & DESC_NEXT))
			return true;
		index = d.fourth;
	}
	return break_queue(q);
}

static u8 *used_event(const struct virtq *q)
{
	return q->driver_area + RING_ENTRIES + (size_t)q->size * 2;
}

static void split_ask_for_event(struct virtq *q)
{
	unsigned offset = RING_ENTRIES + q->size * USED_ENTRY_SIZE;
	store16(q->device_area + offset, q->next_available);
	device_area_written(q, offset, 2);
}

static bool split_any(struct virtq *q)
{
	u16 waiting = (u16)(load16(q->driver_area + RING_INDEX) - q->next_available);
	return waiting && (waiting <= q->size || break_queue(q));
}

/* An empty ring is looked at again after the driver was asked to notify. */
static bool split_pop(struct virtq *q, struct virtq_chain *chain)
{
	if (!split_any(q)) {
		if (q->broken || !q->event_index)
			return false;
		split_ask_for_event(q);
		full_barrier();
		if (!split_any(q))
			return false;
	}
	u16 head = load16(q->driver_area + RING_ENTRIES + (size_t)(q->next_available % q->size) * 2);
	q->next_available++;
	chain->id = head;
	chain->descriptors = 1;
	return split_follow(q, chain, q->ring, q->size, head, false);
}

/* Whether the step from `before` to `now` passes the event ("Used Buffer Notification Suppression"). */
static bool passes(u16 event, u16 now, u16 before)
{
	return (u16)(now - event - 1) < (u16)(now - before);
}

static bool split_push(struct virtq *q, const struct virtq_used *used, unsigned count)
{
	u16 before = q->next_used;
	for (unsigned i = 0; i < count; i++) {
		unsigned offset = RING_ENTRIES + (q->next_used++ % q->size) * USED_ENTRY_SIZE;
		const u32 entry[2] = { used[i].id, used[i].written };
		memcpy(q->device_area + offset, entry, sizeof(entry));
		device_area_written(q, offset, sizeof(entry));
	}
	store16(q->device_area + RING_INDEX, q->next_used);
	device_area_written(q, RING_INDEX, 2);
	full_barrier();
	if (!q->event_index)
		return !(load16(q->driver_area) & AVAILABLE_NO_INTERRUPT);
	return passes(load16(used_event(q)), q->next_used, before);
}

/* ---- packed ---- */

static void advance(const struct virtq *q, u16 *place, bool *wrap, u16 count)
{
	*place += count;
	if (*place >= q->size) {
		*place -= q->size;
		*wrap = !*wrap;
	}
}

static u8 *packed_flags(const struct virtq *q, u16 place)
{
	return q->ring + (size_t)place * sizeof(struct descriptor) + offsetof(struct descriptor, fourth);
}

static bool packed_available(const struct virtq *q, u16 flags)
{
	bool available = flags & PACKED_AVAILABLE, used = flags & PACKED_USED;
	return available != used && available == q->available_wrap;
}

static bool packed_indirect(struct virtq *q, struct virtq_chain *chain, const struct descriptor *outer)
{
	const u8 *table;
	u32 count = outer->fourth & DESC_NEXT ? 0 : indirect_table(q, outer, &table);
	struct descriptor d;
	if (!count)
		return break_queue(q);
	for (u32 i = 0; i < count; i++) {
		copy_descriptor(&d, table, i);
		if ((d.fourth & DESC_INDIRECT) || !add_piece(q, chain, &d, d.fourth & DESC_WRITE))
			return break_queue(q);
	}
	return true;
}

/* The flags of a chain's first descriptor say that all of it is there; those of the others are taken as they are. */
static bool packed_pop(struct virtq *q, struct virtq_chain *chain)
{
	u16 place = q->next_available;
	bool wrap = q->available_wrap;
	struct descriptor d = { 0 };
	if (!packed_available(q, load16(packed_flags(q, place))))
		return false;
	for (chain->descriptors = 0; chain->descriptors < q->size;) {
		copy_descriptor(&d, q->ring, place);
		advance(q, &place, &wrap, 1);
		chain->descriptors++;
		chain->id = d.third;
		bool indirect = d.fourth & DESC_INDIRECT;
		if (indirect && chain->descriptors > 1)
			return break_queue(q);
		if (indirect ? !packed_indirect(q, chain, &d) : !add_piece(q, chain, &d, d.fourth & DESC_WRITE))
			return false;
		if (!(d.fourth & DESC_NEXT)) {
			q->next_available = place;
			q->available_wrap = wrap;
			return true;
		}
	}
	return break_queue(q);
}

/* Whether the driver wants to be told of the used descriptors from `before` on ("Event Suppression Structure Format"). */
static bool packed_wanted(const struct virtq *q, u16 before)
{
	u16 flags = load16(q->driver_area + EVENT_FLAGS) & 3;
	if (flags != EVENT_PLACE_ONLY || !q->event_index)
		return flags != EVENT_DISABLE;
	u16 event = load16(q->driver_area + EVENT_PLACE);
	bool same_lap = (event & EVENT_WRAP ? 1 : 0) == q->used_wrap;
	u16 now = q->next_used, place = event & (u16)~EVENT_WRAP;
	if (now <= before) /* the ring's end was passed: `before` and the event count from where the new lap began */
		before -= q->size;
	if (!same_lap)
		place -= q->size;
	return passes(place, now, before);
}

/* Fill the next used descriptor but for its flags, which are given back: storing them hands it over. */
static u16 packed_fill(struct virtq *q, const struct virtq_used *used)
{
	unsigned offset = q->next_used * (unsigned)sizeof(struct descriptor);
	u16 flags = (q->used_wrap ? PACKED_AVAILABLE | PACKED_USED : 0) | (used->written ? DESC_WRITE : 0);
	memcpy(q->ring + offset + offsetof(struct descriptor, length), &used->written, sizeof(used->written));
	memcpy(q->ring + offset + offsetof(struct descriptor, third), &used->id, sizeof(used->id));
	return flags;
}

static void packed_hand_over(struct virtq *q, u16 place, u16 flags)
{
	store16(packed_flags(q, place), flags);
	ram_written(q->ram, q->descriptors + place * sizeof(struct descriptor), sizeof(struct descriptor));
}

/* The driver goes from one used descriptor to the next: the first is handed over last. */
static bool packed_push(struct virtq *q, const struct virtq_used *used, unsigned count)
{
	u16 before = q->next_used, first = 0;
	for (unsigned i = 0; i < count; i++) {
		u16 flags = packed_fill(q, &used[i]);
		if (i)
			packed_hand_over(q, q->next_used, flags);
		else
			first = flags;
		advance(q, &q->next_used, &q->used_wrap, used[i].descriptors);
	}
	packed_hand_over(q, before, first);
	full_barrier();
	return packed_wanted(q, before);
}

/* ---- both ---- */

bool virtq_pop(struct virtq *q, struct virtq_chain *chain)
{
	chain->readable = chain->pieces = 0;
	if (!q->enabled || q->broken)
		return false;
	return q->packed ? packed_pop(q, chain) : split_pop(q, chain);
}

static void tell_written(struct virtq *q, const struct virtq_chain *chain, u32 written)
{
	for (unsigned i = chain->readable; i < chain->pieces && written; i++) {
		u32 n = MIN(written, chain->piece[i].size);
		ram_written(q->ram, chain->piece[i].gpa, n);
		written -= n;
	}
}

bool virtq_push(struct virtq *q, const struct virtq_chain *chain, u32 written)
{
	if (!q->enabled || q->broken)
		return false;
	tell_written(q, chain, written);
	return virtq_push_all(q, &(struct virtq_used){ chain->id, chain->descriptors, written }, 1);
}

bool virtq_push_all(struct virtq *q, const struct virtq_used *used, unsigned count)
{
	if (!q->enabled || q->broken)
		return false;
	return q->packed ? packed_push(q, used, count) : split_push(q, used, count);
}

bool virtq_take(struct virtq_chain *chain, void *buffer, u32 size)
{
	u8 *to = buffer;
	if (virtq_readable(chain) < size)
		return false;
	for (unsigned i = 0; size; i++) {
		struct virtq_piece *p = &chain->piece[i];
		u32 n = MIN(size, p->size);
		if (to)
			memcpy(to, p->data, n);
		p->data += n;
		p->gpa += n;
		p->size -= n;
		to += to ? n : 0;
		size -= n;
	}
	return true;
}

static u64 sum(const struct virtq_chain *chain, unsigned from, unsigned to)
{
	u64 bytes = 0;
	for (unsigned i = from; i < to; i++)
		bytes += chain->piece[i].size;
	return bytes;
}

u32 virtq_give(const struct virtq_chain *chain, const void *bytes, u32 size)
{
	u32 done = 0;
	for (unsigned i = chain->readable; i < chain->pieces && done < size; i++) {
		u32 n = MIN(chain->piece[i].size, size - done);
		memcpy(chain->piece[i].data, (const u8 *)bytes + done, n);
		done += n;
	}
	return done;
}

u64 virtq_readable(const struct virtq_chain *chain)
{
	return sum(chain, 0, chain->readable);
}

u64 virtq_writable(const struct virtq_chain *chain)
{
	return sum(chain, chain->readable, chain->pieces);
}

/* ---- state ---- */

bool virtq_loaded(struct virtq *q, struct ram *ram)
{
	bool places = !q->packed || (q->next_available < q->size && q->next_used < q->size);
	q->ram = ram;
	return !q->enabled || (possible_size(q) && places && find_areas(q));
}

const struct state_table virtq_state = STATE_TABLE(struct virtq, NULL,
	STATE_MAX(struct virtq, size, VIRTQ_SIZE_MAX), STATE(struct virtq, packed), STATE(struct virtq, event_index),
	STATE(struct virtq, descriptors), STATE(struct virtq, driver), STATE(struct virtq, device), STATE_NONE(struct virtq, ram),
	STATE(struct virtq, enabled), STATE(struct virtq, broken), STATE_NONE(struct virtq, ring), STATE_NONE(struct virtq, driver_area),
	STATE_NONE(struct virtq, device_area), STATE(struct virtq, next_available), STATE(struct virtq, next_used),
	STATE(struct virtq, available_wrap), STATE(struct virtq, used_wrap));
