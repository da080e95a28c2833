/* Virtqueues: buffers that go round in split and packed rings, suppression of interrupts, and rings that break the rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/virtio/queue.h"
#include "fake_host.h"
#include "host/port.h"

#include <string.h>

#define RAM_SIZE 0x100000ull
#define ROM 0x200000ull
#define ROM_SIZE 0x1000ull
#define RING 0x1000ull
#define DRIVER 0x3000ull
#define DEVICE 0x4000ull
#define TABLE 0x5000ull
#define DATA 0x10000ull
#define SIZE 8

#define NEXT 1
#define WRITE 2
#define INDIRECT 4
#define AVAILABLE 0x80
#define USED 0x8000

struct ground {
	struct ram ram;
	u8 *memory, *rom;
	struct virtq q;
	struct virtq_chain chain;
};

static void put(struct ground *g, gpa_t gpa, const void *data, size_t size)
{
	memcpy(g->memory + gpa, data, size);
}

static u16 get16(const struct ground *g, gpa_t gpa)
{
	u16 value;
	memcpy(&value, g->memory + gpa, 2);
	return value;
}

static u32 get32(const struct ground *g, gpa_t gpa)
{
	u32 value;
	memcpy(&value, g->memory + gpa, 4);
	return value;
}

static void put16(struct ground *g, gpa_t gpa, u16 value)
{
	put(g, gpa, &value, 2);
}

/* A descriptor: of a split ring with flags and next, of a packed one with id and flags. */
static void descriptor(struct ground *g, gpa_t table, unsigned index, u64 address, u32 length, u16 third, u16 fourth)
{
	const struct {
		u64 address;
		u32 length;
		u16 third, fourth;
	} d = { address, length, third, fourth };
	put(g, table + 16ull * index, &d, sizeof(d));
}

static int teardown(void **state)
{
	struct ground *g = *state;
	ram_release(&g->ram);
	host_ram_destroy(g->memory, RAM_SIZE);
	host_ram_destroy(g->rom, ROM_SIZE);
	host_free(g);
	return 0;
}

static int setup(void **state)
{
	struct ground *g = host_alloc(sizeof(*g));
	g->memory = host_ram_create(RAM_SIZE);
	g->rom = host_ram_create(ROM_SIZE);
	assert_int_equal(ram_add(&g->ram, 0, RAM_SIZE, g->memory, false), 0);
	assert_int_equal(ram_add(&g->ram, ROM, ROM_SIZE, g->rom, true), 0);
	*state = g;
	return 0;
}

static struct virtq *queue(struct ground *g, bool packed, bool event_index)
{
	memset(g->memory, 0, RAM_SIZE);
	g->q = (struct virtq){ .size = SIZE,
			       .packed = packed,
			       .event_index = event_index,
			       .descriptors = RING,
			       .driver = DRIVER,
			       .device = DEVICE };
	assert_true(virtq_enable(&g->q, &g->ram));
	return &g->q;
}

/* Make the chain that begins at `head` available in a split ring. */
static void offer(struct ground *g, u16 head)
{
	u16 index = get16(g, DRIVER + 2);
	put16(g, DRIVER + 4 + 2ull * (index % SIZE), head);
	put16(g, DRIVER + 2, (u16)(index + 1));
}

static void split_buffers_go_round(void **state)
{
	struct ground *g = *state;
	struct virtq *q = queue(g, false, false);
	assert_false(virtq_pop(q, &g->chain));
	for (unsigned i = 0; i < 70000; i++) { /* past the end of the 16-bit counters */
		descriptor(g, RING, 3, DATA, 16, NEXT, 6);
		descriptor(g, RING, 6, DATA + 0x100, 512, NEXT | WRITE, 1);
		descriptor(g, RING, 1, DATA + 0x400, 1, WRITE, 0);
		offer(g, 3);
		assert_true(virtq_pop(q, &g->chain));
		assert_int_equal(g->chain.pieces, 3);
		assert_int_equal(g->chain.readable, 1);
		assert_int_equal(virtq_readable(&g->chain), 16);
		assert_int_equal(virtq_writable(&g->chain), 513);
		assert_true(virtq_push(q, &g->chain, 513));
		assert_int_equal(get16(g, DEVICE + 2), (u16)(i + 1));
		assert_int_equal(get32(g, DEVICE + 4 + 8ull * (i % SIZE)), 3);
		assert_int_equal(get32(g, DEVICE + 8 + 8ull * (i % SIZE)), 513);
		assert_false(virtq_pop(q, &g->chain));
	}
	assert_false(q->broken);
}

static void split_suppression(void **state)
{
	struct ground *g = *state;
	struct virtq *q = queue(g, false, false);
	put16(g, DRIVER, 1);
	offer(g, 0);
	descriptor(g, RING, 0, DATA, 4, WRITE, 0);
	assert_true(virtq_pop(q, &g->chain));
	assert_false(virtq_push(q, &g->chain, 4));

	q = queue(g, false, true);
	descriptor(g, RING, 0, DATA, 4, WRITE, 0);
	put16(g, DRIVER + 4 + 2 * SIZE, 1); /* tell me when the second is used */
	for (unsigned i = 0; i < 3; i++) {
		offer(g, 0);
		assert_true(virtq_pop(q, &g->chain));
		assert_false(virtq_pop(q, &g->chain));
		assert_int_equal(get16(g, DEVICE + 4 + 8 * SIZE), i + 1); /* and we: when there is another */
		assert_int_equal(virtq_push(q, &g->chain, 4), i == 1);
	}
}

static void indirect_tables(void **state)
{
	struct ground *g = *state;
	struct virtq *q = queue(g, false, false);
	descriptor(g, RING, 0, DATA, 8, NEXT, 1);
	descriptor(g, RING, 1, TABLE, 32, INDIRECT, 0);
	descriptor(g, TABLE, 0, DATA + 8, 8, NEXT, 1);
	descriptor(g, TABLE, 1, DATA + 16, 8, WRITE, 0);
	offer(g, 0);
	assert_true(virtq_pop(q, &g->chain));
	assert_int_equal(g->chain.pieces, 3);
	assert_int_equal(g->chain.readable, 2);

	q = queue(g, true, false);
	descriptor(g, RING, 0, TABLE, 32, 77, INDIRECT | AVAILABLE);
	descriptor(g, TABLE, 0, DATA + 8, 8, 0, 0);
	descriptor(g, TABLE, 1, DATA + 16, 8, 0, WRITE);
	assert_true(virtq_pop(q, &g->chain));
	assert_int_equal(g->chain.id, 77);
	assert_int_equal(g->chain.descriptors, 1);
	assert_int_equal(g->chain.pieces, 2);
	assert_true(virtq_push(q, &g->chain, 8));
	assert_int_equal(get16(g, RING + 14), USED | AVAILABLE | WRITE);
}

/* Chains of three descriptors in a ring of eight: laps end in the middle of chains. */
static void packed_buffers_go_round(void **state)
{
	struct ground *g = *state;
	struct virtq *q = queue(g, true, false);
	unsigned place = 0, used = 0;
	u16 lap = AVAILABLE;
	for (unsigned i = 0; i < 100; i++) {
		unsigned first = place;
		u16 first_lap = lap;
		assert_false(virtq_pop(q, &g->chain));
		for (unsigned n = 0; n < 3; n++) {
			descriptor(g, RING, place, DATA + 64 * n, 16, (u16)i,
				   (u16)((n == 2 ? WRITE : NEXT) | (n ? lap : lap ^ AVAILABLE ^ USED)));
			if (++place == SIZE) {
				place = 0;
				lap ^= AVAILABLE | USED;
			}
		}
		assert_false(virtq_pop(q, &g->chain)); /* the first is not there yet */
		put16(g, RING + 16ull * first + 14, NEXT | first_lap);
		assert_true(virtq_pop(q, &g->chain));
		assert_int_equal(g->chain.descriptors, 3);
		assert_int_equal(g->chain.id, i);
		assert_int_equal(g->chain.pieces, 3);
		assert_true(virtq_push(q, &g->chain, 16));
		assert_int_equal(get16(g, RING + 16ull * used + 14),
				 WRITE | (first_lap == AVAILABLE ? AVAILABLE | USED : 0));
		assert_int_equal(get16(g, RING + 16ull * used + 12), i);
		used = (used + 3) % SIZE;
	}
}

static void packed_suppression(void **state)
{
	struct ground *g = *state;
	struct virtq *q = queue(g, true, true);
	put16(g, DRIVER, 1 | 0x8000); /* when the descriptor at 1 of the first lap is used */
	put16(g, DRIVER + 2, 2);
	for (unsigned i = 0; i < 2 * SIZE; i++) {
		bool first_lap = i < SIZE;
		if (i == SIZE)
			put16(g, DRIVER, 0); /* at 0 of the second */
		descriptor(g, RING, i % SIZE, DATA, 16, 0, (u16)(WRITE | (first_lap ? AVAILABLE : USED)));
		assert_true(virtq_pop(q, &g->chain));
		assert_int_equal(virtq_push(q, &g->chain, 16), i == 1 || i == SIZE);
	}
	put16(g, DRIVER + 2, 1);
	descriptor(g, RING, 0, DATA, 16, 0, WRITE | AVAILABLE);
	assert_true(virtq_pop(q, &g->chain));
	assert_false(virtq_push(q, &g->chain, 16));
}

static void used_buffers_are_told_to_the_memory(void **state)
{
	struct ground *g = *state;
	struct virtq *q = queue(g, false, false);
	const u64 pages[] = { DATA, DEVICE };
	descriptor(g, RING, 0, DATA, 4, WRITE, 0);
	offer(g, 0);
	for (unsigned i = 0; i < 2; i++)
		g->ram.slot[0].flags[pages[i] >> PAGE_SHIFT] = PAGE_CODE;
	assert_true(virtq_pop(q, &g->chain));
	virtq_push(q, &g->chain, 4);
	for (unsigned i = 0; i < 2; i++)
		assert_true(g->ram.slot[0].generation[pages[i] >> PAGE_SHIFT] > 0);
	memset(g->ram.slot[0].flags, 0, RAM_SIZE >> PAGE_SHIFT);
}

static void headers_are_taken_across_pieces(void **state)
{
	struct ground *g = *state;
	struct virtq *q = queue(g, false, false);
	char text[8] = "";
	put(g, DATA, "hel", 3);
	put(g, DATA + 100, "lo, world", 9);
	descriptor(g, RING, 0, DATA, 3, NEXT, 1);
	descriptor(g, RING, 1, DATA + 100, 9, 0, 0);
	offer(g, 0);
	assert_true(virtq_pop(q, &g->chain));
	assert_true(virtq_take(&g->chain, text, 5));
	assert_string_equal(text, "hello");
	assert_int_equal(virtq_readable(&g->chain), 7);
	assert_false(virtq_take(&g->chain, text, 8));
}

/* ---- hostile rings ---- */

static void split_hostile(void **state)
{
	struct ground *g = *state;
	static const struct {
		u64 address;
		u32 length;
		u16 flags, next;
	} rows[] = {
		{ DATA, 16, NEXT, 0 },                /* a loop */
		{ DATA, 0, NEXT, 0 },                 /* of nothing */
		{ DATA, 16, NEXT, SIZE },             /* out of the table */
		{ RAM_SIZE - 8, 16, 0, 0 },           /* past the end of memory */
		{ ~0ull - 7, 16, 0, 0 },              /* around the end of addresses */
		{ DATA, 0xffffffff, WRITE, 0 },       /* long */
		{ 0xfee00000, 4, WRITE, 0 },          /* not memory */
		{ ROM, 16, WRITE, 0 },                /* memory that nobody writes */
		{ TABLE, 0, INDIRECT, 0 },            /* an empty table */
		{ TABLE, 24, INDIRECT, 0 },           /* one and a half */
		{ TABLE, 16 * 129, INDIRECT, 0 },     /* a long one */
		{ RAM_SIZE - 16, 32, INDIRECT, 0 },   /* one past the end of memory */
		{ TABLE, 32, INDIRECT | NEXT, 0 },    /* and on */
		{ RING, 16 * SIZE, INDIRECT, 0 },     /* itself */
		{ TABLE, 16, INDIRECT | WRITE, 0 },   /* whose chain leaves it */
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct virtq *q = queue(g, false, true);
		descriptor(g, TABLE, 0, DATA, 4, NEXT, 1);
		descriptor(g, RING, 0, rows[i].address, rows[i].length, rows[i].flags, rows[i].next);
		offer(g, 0);
		assert_false(virtq_pop(q, &g->chain));
		assert_true(q->broken);
		assert_false(virtq_pop(q, &g->chain)); /* and stays so */
		assert_false(virtq_push(q, &g->chain, 0));
	}
}

static void split_impossible_indices(void **state)
{
	struct ground *g = *state;
	struct virtq *q = queue(g, false, false);
	offer(g, SIZE);
	assert_false(virtq_pop(q, &g->chain));
	assert_true(q->broken);
	q = queue(g, false, false);
	put16(g, DRIVER + 2, SIZE + 1); /* more than the ring holds */
	assert_false(virtq_pop(q, &g->chain));
	assert_true(q->broken);
	q = queue(g, false, false);
	descriptor(g, RING, 0, DATA, 4, WRITE | NEXT, 1);
	descriptor(g, RING, 1, DATA, 4, 0, 0); /* reading after writing */
	offer(g, 0);
	assert_false(virtq_pop(q, &g->chain));
	assert_true(q->broken);
}

static void packed_hostile(void **state)
{
	struct ground *g = *state;
	static const struct {
		u64 address;
		u32 length;
		u16 flags;
	} rows[] = {
		{ DATA, 16, NEXT },                /* all descriptors in one chain without an end */
		{ ROM, 16, WRITE },                /* memory that nobody writes */
		{ RAM_SIZE, 1, 0 },                /* not memory */
		{ TABLE, 32, INDIRECT | NEXT },    /* a table and more */
		{ TABLE, 8, INDIRECT },            /* half a descriptor */
		{ TABLE, 16 * 129, INDIRECT },     /* too many */
		{ TABLE + 0x100, 16, INDIRECT },   /* a table in a table */
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct virtq *q = queue(g, true, true);
		descriptor(g, TABLE + 0x100, 0, TABLE, 16, 0, INDIRECT);
		for (unsigned n = 0; n < SIZE; n++)
			descriptor(g, RING, n, rows[i].address, rows[i].length, 0, rows[i].flags | AVAILABLE);
		assert_false(virtq_pop(q, &g->chain));
		assert_true(q->broken);
		assert_false(virtq_pop(q, &g->chain));
	}
}

static void places_of_rings_are_checked(void **state)
{
	struct ground *g = *state;
	static const struct {
		u16 size;
		bool packed;
		u64 descriptors, driver, device;
		bool good;
	} rows[] = {
		{ 8, false, RING, DRIVER, DEVICE, true },   { 7, false, RING, DRIVER, DEVICE, false },
		{ 7, true, RING, DRIVER, DEVICE, true },    { 0, false, RING, DRIVER, DEVICE, false },
		{ 256, true, RING, DRIVER, DEVICE, false }, { 8, false, RING + 8, DRIVER, DEVICE, false },
		{ 8, false, RING, DRIVER + 1, DEVICE, false }, { 8, false, RING, DRIVER, DEVICE + 2, false },
		{ 8, false, RAM_SIZE - 16, DRIVER, DEVICE, false }, { 8, false, RING, RAM_SIZE - 4, DEVICE, false },
		{ 8, false, RING, DRIVER, ROM, false },     { 8, false, ROM, DRIVER, DEVICE, true },
		{ 8, true, ROM, DRIVER, DEVICE, false },    { 8, true, RING, ROM, DEVICE, true },
		{ 8, false, ~0ull << 4, DRIVER, DEVICE, false },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct virtq q = { .size = rows[i].size,
				   .packed = rows[i].packed,
				   .descriptors = rows[i].descriptors,
				   .driver = rows[i].driver,
				   .device = rows[i].device };
		assert_int_equal(virtq_enable(&q, &g->ram), rows[i].good);
		assert_int_equal(q.broken, !rows[i].good);
	}
}

/* Several buffers, of several descriptors each, that come back at once: the driver sees nothing of them before. */
static void buffers_come_back_together(void **state)
{
	struct ground *g = *state;
	for (unsigned packed = 0; packed < 2; packed++) {
		struct virtq *q = queue(g, packed, false);
		struct virtq_used used[4];
		for (u16 i = 0; i < 4; i++) {
			descriptor(g, RING, 2u * i, DATA, 16, packed ? i : NEXT | WRITE, packed ? NEXT | WRITE | AVAILABLE : (u16)(2 * i + 1));
			descriptor(g, RING, 2u * i + 1, DATA, 16, packed ? i : WRITE, packed ? WRITE | AVAILABLE : 0);
			if (!packed)
				offer(g, (u16)(2 * i));
		}
		struct virtq_place place = virtq_mark(q);
		for (unsigned round = 0; round < 2; round++) { /* the first time they are taken in vain */
			if (round)
				virtq_rewind(q, place);
			for (u16 i = 0; i < 4; i++) {
				assert_true(virtq_pop(q, &g->chain));
				used[i] = (struct virtq_used){ g->chain.id, g->chain.descriptors, 100u + i };
			}
			assert_false(virtq_pop(q, &g->chain));
		}
		assert_int_equal(packed ? get16(g, RING + 14) & USED : get16(g, DEVICE + 2), 0);
		assert_true(virtq_push_all(q, used, 4)); /* the whole ring */
		assert_int_equal(packed ? get16(g, RING + 14) : get16(g, DEVICE + 2), packed ? USED | AVAILABLE | WRITE : 4);
		for (u16 i = 0; i < 4; i++)
			assert_int_equal(get32(g, packed ? RING + 32ull * i + 8 : DEVICE + 8 + 8ull * i), 100u + i);
		assert_false(q->broken);
	}
}

/* A whole lap at once passes every event. */
static void a_lap_passes_the_event(void **state)
{
	struct ground *g = *state;
	struct virtq *q = queue(g, true, true);
	put16(g, DRIVER, 5 | 0x8000);
	put16(g, DRIVER + 2, 2);
	const struct virtq_used all = { 0, SIZE, 1 };
	assert_true(virtq_push_all(q, &all, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split_buffers_go_round),
		cmocka_unit_test(split_suppression),
		cmocka_unit_test(indirect_tables),
		cmocka_unit_test(packed_buffers_go_round),
		cmocka_unit_test(packed_suppression),
		cmocka_unit_test(used_buffers_are_told_to_the_memory),
		cmocka_unit_test(headers_are_taken_across_pieces),
		cmocka_unit_test(split_hostile),
		cmocka_unit_test(split_impossible_indices),
		cmocka_unit_test(packed_hostile),
		cmocka_unit_test(buffers_come_back_together),
		cmocka_unit_test(a_lap_passes_the_event),
		cmocka_unit_test(places_of_rings_are_checked),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
