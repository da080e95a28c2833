/* The virtio block device with a disk that completes when the test says so: requests of every kind, in pieces of any size, refused where they
 * are wrong, and forgotten by a reset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/virtio/block.h"
#include "fake_host.h"
#include "virtio_driver.h"

#define SECTORS 64u
#define HEADER 0x4000ull
#define STATUS 0x5000ull
#define DATA 0x10000ull
#define FLUSH BIT(9)
#define CONFIG_WCE BIT(11)

enum { READ_TYPE = 0, WRITE_TYPE = 1, FLUSH_TYPE = 4, ID_TYPE = 8, DISCARD_TYPE = 11, ZERO_TYPE = 13 };

struct machine {
	struct driver driver;
	struct virtio_block block;
	struct block_request *waiting[BLOCK_REQUESTS_MAX], *done;
	unsigned waits, submitted;
	struct block_request last;
	bool at_once;
};

static bool submit(void *disk, struct block_request *request)
{
	struct machine *m = disk;
	m->last = *request;
	m->submitted++;
	if (m->at_once)
		return true;
	m->waiting[m->waits++] = request;
	return false;
}

static struct block_request *completed(void *disk)
{
	struct machine *m = disk;
	struct block_request *r = m->done;
	if (r)
		m->done = r->next;
	return r;
}

static void complete(struct machine *m, unsigned which, int error)
{
	struct block_request *r = m->waiting[which];
	m->waiting[which] = m->waiting[--m->waits];
	r->error = error;
	r->next = m->done;
	m->done = r;
}

static void drain(void *disk)
{
	struct machine *m = disk;
	while (m->waits)
		complete(m, 0, -1);
}

static int setup_with(void **state, bool readonly)
{
	struct machine *m = host_alloc(sizeof(*m));
	const struct block_backend disk = { .submit = submit,
					    .completed = completed,
					    .drain = drain,
					    .disk = m,
					    .size = SECTORS * BLOCK_SECTOR,
					    .readonly = readonly,
					    .serial = "twenty characters, o" };
	assert_true(driver_create(&m->driver));
	assert_int_equal(virtio_block_attach(&m->block, &disk, 2, &m->driver.pci, &m->driver.ram, DRIVER_SLOT), 0);
	driver_plug(&m->driver);
	driver_start(&m->driver, FLUSH, 1);
	*state = m;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, false);
}

static int setup_readonly(void **state)
{
	return setup_with(state, true);
}

static int teardown(void **state)
{
	struct machine *m = *state;
	virtio_block_destroy(&m->block);
	driver_destroy(&m->driver);
	host_free(m);
	return 0;
}

/* The chain that begins at descriptor 0. */
static void offer(struct machine *m)
{
	m->driver.bytes[STATUS] = 0xee;
	driver_offer(&m->driver, 0, 0);
}

static void header(struct machine *m, u32 type, u64 sector)
{
	const struct {
		u32 type, reserved;
		u64 sector;
	} h = { type, 0, sector };
	memcpy(m->driver.bytes + HEADER, &h, sizeof(h));
}

/* Header, data and status in a descriptor each. */
static void request(struct machine *m, u32 type, u64 sector, u32 size)
{
	header(m, type, sector);
	driver_descriptor(&m->driver, 0, 0, HEADER, 16, DESC_NEXT);
	driver_descriptor(&m->driver, 0, 1, DATA, size, DESC_NEXT | (type == READ_TYPE || type == ID_TYPE ? DESC_WRITE : 0));
	driver_descriptor(&m->driver, 0, 2, STATUS, 1, DESC_WRITE);
	offer(m);
}

static u16 used(const struct machine *m)
{
	return driver_used(&m->driver, 0);
}

static u32 last_written(const struct machine *m)
{
	return driver_written(&m->driver, 0, (u16)(used(m) - 1));
}

static void finish(struct machine *m, unsigned which, int error)
{
	complete(m, which, error);
	virtio_block_completed(&m->block);
}

static void describes_the_disk(void **state)
{
	struct machine *m = *state;
	assert_int_equal(driver_get(&m->driver, 0x2000, 4), SECTORS);
	assert_int_equal(driver_get(&m->driver, 0x2000 + 34, 2), 2); /* queues */
	driver_set(&m->driver, 0, 4, 0);
	assert_int_equal(driver_get(&m->driver, 4, 4), 0x30007a44);
}

static void reads_and_writes(void **state)
{
	struct machine *m = *state;
	request(m, READ_TYPE, 2, 1024);
	assert_int_equal(m->last.kind, BLOCK_READ);
	assert_int_equal(m->last.offset, 1024);
	assert_int_equal(m->last.size, 1024);
	assert_int_equal(m->last.pieces, 1);
	assert_ptr_equal(m->waiting[0]->piece[0].data, m->driver.bytes + DATA);
	assert_int_equal(used(m), 0);
	finish(m, 0, 0);
	assert_int_equal(used(m), 1);
	assert_int_equal(last_written(m), 1025);
	assert_int_equal(m->driver.bytes[STATUS], 0);
	request(m, WRITE_TYPE, SECTORS - 1, 512);
	assert_int_equal(m->last.kind, BLOCK_WRITE);
	assert_false(m->last.durable);
	finish(m, 0, -5);
	assert_int_equal(m->driver.bytes[STATUS], 1);
	assert_int_equal(last_written(m), 1);
	m->at_once = true;
	request(m, FLUSH_TYPE, 0, 0);
	assert_int_equal(m->last.kind, BLOCK_FLUSH);
	assert_int_equal(used(m), 3);
	assert_int_equal(m->driver.bytes[STATUS], 0);
}

/* Nothing in the buffer counts then, but it may hold anything: code there is stale. */
static void a_read_that_fails(void **state)
{
	struct machine *m = *state;
	m->driver.ram.slot[0].log_dirty = true;
	request(m, READ_TYPE, 0, 1024);
	finish(m, 0, -5);
	assert_int_equal(m->driver.bytes[STATUS], 1);
	assert_int_equal(last_written(m), 1);
	assert_true(m->driver.ram.slot[0].flags[DATA >> PAGE_SHIFT] & PAGE_DIRTY);
}

/* "Message Framing": a driver may cut a request into pieces wherever it likes. */
static void pieces_of_any_size(void **state)
{
	struct machine *m = *state;
	header(m, READ_TYPE, 0);
	driver_descriptor(&m->driver, 0, 0, HEADER, 5, DESC_NEXT);
	driver_descriptor(&m->driver, 0, 1, HEADER + 5, 11, DESC_NEXT);
	driver_descriptor(&m->driver, 0, 2, DATA, 1, DESC_NEXT | DESC_WRITE);
	driver_descriptor(&m->driver, 0, 3, DATA + 1, 512, DESC_WRITE); /* with the status at its end */
	offer(m);
	assert_int_equal(m->last.size, 512);
	assert_int_equal(m->waiting[0]->pieces, 2);
	assert_int_equal(m->waiting[0]->piece[1].size, 511);
	m->driver.bytes[DATA + 512] = 0xee;
	finish(m, 0, 0);
	assert_int_equal(m->driver.bytes[DATA + 512], 0);
	assert_int_equal(last_written(m), 513);
}

static void without_flush_writes_are_durable(void **state)
{
	struct machine *m = *state;
	driver_start(&m->driver, 0, 1);
	request(m, WRITE_TYPE, 0, 512);
	assert_true(m->last.durable);
	request(m, READ_TYPE, 0, 512);
	assert_false(m->last.durable);
}

static void the_cache_can_be_switched_off(void **state)
{
	struct machine *m = *state;
	driver_set(&m->driver, 0x2000 + 32, 1, 0); /* not without the feature */
	assert_int_equal(driver_get(&m->driver, 0x2000 + 32, 1), 1);
	driver_start(&m->driver, FLUSH | CONFIG_WCE, 1);
	request(m, WRITE_TYPE, 0, 512);
	assert_false(m->last.durable);
	driver_set(&m->driver, 0x2000 + 32, 1, 0);
	driver_set(&m->driver, 0x2000, 1, 99); /* a field that is not the driver's */
	request(m, WRITE_TYPE, 0, 512);
	assert_true(m->last.durable);
	assert_int_equal(driver_get(&m->driver, 0x2000, 1), SECTORS);
	driver_start(&m->driver, FLUSH | CONFIG_WCE, 1);
	assert_int_equal(driver_get(&m->driver, 0x2000 + 32, 1), 1);
}

static void segments(void **state)
{
	struct machine *m = *state;
	static const struct {
		u32 type;
		u64 sector;
		u32 sectors, flags, size;
		u8 status;
		enum block_kind kind;
	} rows[] = {
		{ DISCARD_TYPE, 8, 16, 0, 16, 0, BLOCK_DISCARD }, { ZERO_TYPE, 8, 16, 1, 16, 0, BLOCK_ZERO },
		{ ZERO_TYPE, 0, SECTORS, 0, 16, 0, BLOCK_ZERO },  { DISCARD_TYPE, 8, 16, 1, 16, 2, 0 },
		{ ZERO_TYPE, 8, 16, 2, 16, 2, 0 },                { ZERO_TYPE, 1, SECTORS, 0, 16, 1, 0 },
		{ ZERO_TYPE, ~0ull, 1, 0, 16, 1, 0 },             { ZERO_TYPE, 0, 0xffffffff, 0, 16, 1, 0 },
		{ DISCARD_TYPE, 0, 1, 0, 32, 1, 0 },              { DISCARD_TYPE, 0, 1, 0, 8, 1, 0 },
	};
	m->at_once = true;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct {
			u64 sector;
			u32 sectors, flags;
		} s = { rows[i].sector, rows[i].sectors, rows[i].flags };
		memcpy(m->driver.bytes + DATA, &s, sizeof(s));
		m->submitted = 0;
		request(m, rows[i].type, 0, rows[i].size);
		assert_int_equal(m->driver.bytes[STATUS], rows[i].status);
		assert_int_equal(m->submitted, !rows[i].status);
		if (rows[i].status)
			continue;
		assert_int_equal(m->last.kind, rows[i].kind);
		assert_int_equal(m->last.offset, rows[i].sector * BLOCK_SECTOR);
		assert_int_equal(m->last.size, rows[i].sectors * BLOCK_SECTOR);
		assert_int_equal(m->last.unmap, rows[i].flags);
	}
}

static void wrong_requests_are_refused(void **state)
{
	struct machine *m = *state;
	static const struct {
		u32 type;
		u64 sector;
		u32 size;
		u8 status;
	} rows[] = {
		{ READ_TYPE, SECTORS, 512, 1 }, { READ_TYPE, SECTORS - 1, 1024, 1 }, { READ_TYPE, ~0ull, 512, 1 },
		{ WRITE_TYPE, BIT(55), 512, 1 }, { READ_TYPE, 0, 511, 1 },           { WRITE_TYPE, 0, 513, 1 },
		{ 2, 0, 512, 2 },               { 0xffffffff, 0, 512, 2 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		request(m, rows[i].type, rows[i].sector, rows[i].size);
		assert_int_equal(m->driver.bytes[STATUS], rows[i].status);
		assert_int_equal(used(m), i + 1);
	}
	driver_descriptor(&m->driver, 0, 0, HEADER, 15, DESC_NEXT); /* half a header */
	driver_descriptor(&m->driver, 0, 1, STATUS, 1, DESC_WRITE);
	offer(m);
	assert_int_equal(m->driver.bytes[STATUS], 1);
	driver_descriptor(&m->driver, 0, 0, HEADER, 16, 0); /* no place for a status */
	offer(m);
	assert_int_equal(last_written(m), 0);
	assert_int_equal(m->submitted, 0);
}

static void a_read_only_disk_is_not_changed(void **state)
{
	struct machine *m = *state;
	static const u32 types[] = { WRITE_TYPE, DISCARD_TYPE, ZERO_TYPE };
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		request(m, types[i], 0, 512);
		assert_int_equal(m->driver.bytes[STATUS], 1);
	}
	assert_int_equal(m->submitted, 0);
	driver_set(&m->driver, 0, 4, 0);
	assert_int_equal(driver_get(&m->driver, 4, 4) & (BIT(5) | BIT(13) | BIT(14)), BIT(5));
}

static void identity(void **state)
{
	struct machine *m = *state;
	request(m, ID_TYPE, 0, 20);
	assert_memory_equal(m->driver.bytes + DATA, "twenty characters, o", 20);
	assert_int_equal(m->driver.bytes[DATA + 20], 0);
	assert_int_equal(last_written(m), 21);
}

/* The same buffer over and over, faster than the disk: what does not fit waits in the ring. */
static void more_requests_than_there_are(void **state)
{
	struct machine *m = *state;
	for (unsigned i = 0; i < BLOCK_REQUESTS_MAX + 10; i++)
		request(m, READ_TYPE, 0, 512);
	assert_int_equal(m->waits, BLOCK_REQUESTS_MAX);
	for (unsigned i = 0; i < BLOCK_REQUESTS_MAX + 10; i++)
		finish(m, 0, 0);
	assert_int_equal(m->waits, 0);
	assert_int_equal(used(m), BLOCK_REQUESTS_MAX + 10);
}

static void a_reset_forgets_requests(void **state)
{
	struct machine *m = *state;
	request(m, READ_TYPE, 0, 512);
	request(m, READ_TYPE, 0, 512);
	complete(m, 0, 0);
	driver_start(&m->driver, FLUSH, 1);
	assert_int_equal(m->waits, 0);
	assert_null(m->done);
	virtio_block_completed(&m->block);
	assert_int_equal(used(m), 0);
	request(m, READ_TYPE, 0, 512);
	finish(m, 0, 0);
	assert_int_equal(used(m), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(describes_the_disk),
		TEST(reads_and_writes),
		TEST(a_read_that_fails),
		TEST(the_cache_can_be_switched_off),
		TEST(pieces_of_any_size),
		TEST(without_flush_writes_are_durable),
		TEST(segments),
		TEST(wrong_requests_are_refused),
		cmocka_unit_test_setup_teardown(a_read_only_disk_is_not_changed, setup_readonly, teardown),
		TEST(identity),
		TEST(more_requests_than_there_are),
		TEST(a_reset_forgets_requests),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
