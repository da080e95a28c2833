/* Disks on real files: options, locking, and requests carried out by the threads. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/linux/disk.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE 0x100000u

static char path[] = "/tmp/nadir-disk-XXXXXX";
static struct block_backend disk;
static struct disk *opened;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned finished;

static void completed(void *opaque)
{
	pthread_mutex_lock(&lock);
	while (disk.completed(disk.disk))
		finished++;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&lock);
}

static struct disk *open_with(const char *more, struct block_backend *backend)
{
	char option[128];
	snprintf(option, sizeof(option), "path=%s%s", path, more);
	return disk_open(option, backend);
}

static int setup(void **state)
{
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	close(fd);
	opened = open_with(",serial=12345678901234567890,readonly=off", &disk);
	assert_non_null(opened);
	return disk_start(opened, completed, NULL);
}

static int teardown(void **state)
{
	disk_stop(opened);
	disk_close(opened);
	return unlink(path);
}

/* Carry a request out, wherever that is done, and give its error. */
static int carry(struct block_request *r)
{
	pthread_mutex_lock(&lock);
	unsigned before = finished;
	bool at_once = disk.submit(disk.disk, r);
	while (!at_once && finished == before)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	return r->error;
}

static int transfer(enum block_kind kind, u64 offset, u8 *data, u32 size, bool durable)
{
	/* An empty piece, and two that are not. */
	const struct virtq_piece pieces[] = { { data, 0, 0 }, { data, 0, 5 }, { data + 5, 0, size - 5 } };
	struct block_request r = { .kind = kind, .durable = durable, .offset = offset, .size = size, .piece = pieces, .pieces = 3 };
	return carry(&r);
}

static void data_comes_back(void **state)
{
	static u8 out[8192], in[8192];
	for (unsigned round = 0; round < 64; round++) {
		memset(out, (int)round + 1, sizeof(out));
		assert_int_equal(transfer(BLOCK_WRITE, round * 8192, out, sizeof(out), round & 1), 0);
		assert_int_equal(transfer(BLOCK_READ, round * 8192, in, sizeof(in), false), 0);
		assert_memory_equal(in, out, sizeof(in));
	}
	struct block_request flush = { .kind = BLOCK_FLUSH };
	assert_int_equal(carry(&flush), 0);
	assert_int_equal(disk.flush(disk.disk), 0);
}

static void zeros_and_discards(void **state)
{
	static u8 ones[65536], in[65536], zeros[65536];
	static const struct {
		enum block_kind kind;
		bool unmap;
	} rows[] = { { BLOCK_ZERO, false }, { BLOCK_ZERO, true }, { BLOCK_DISCARD, false } };
	memset(ones, 0xff, sizeof(ones));
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(transfer(BLOCK_WRITE, 0, ones, sizeof(ones), false), 0);
		struct block_request r = { .kind = rows[i].kind, .unmap = rows[i].unmap, .durable = true, .offset = 512, .size = 65024 };
		assert_int_equal(carry(&r), 0);
		assert_int_equal(transfer(BLOCK_READ, 0, in, sizeof(in), false), 0);
		assert_memory_equal(in, ones, 512);
		if (rows[i].kind == BLOCK_ZERO)
			assert_memory_equal(in + 512, zeros, sizeof(in) - 512);
	}
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, SIZE);
}

static void a_file_that_was_cut_short_is_an_error(void **state)
{
	u8 data[512];
	assert_int_equal(truncate(path, SIZE / 2), 0);
	assert_true(transfer(BLOCK_READ, SIZE - 512, data, sizeof(data), false) < 0);
	assert_int_equal(truncate(path, SIZE), 0);
	assert_int_equal(transfer(BLOCK_READ, SIZE - 512, data, sizeof(data), false), 0);
}

static void a_drain_leaves_nothing(void **state)
{
	static struct block_request r[BLOCK_REQUESTS_MAX];
	static u8 data[4096];
	const struct virtq_piece piece = { data, 0, sizeof(data) };
	pthread_mutex_lock(&lock); /* so that nobody takes them */
	unsigned pending = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(r); i++) {
		r[i] = (struct block_request){ .kind = BLOCK_WRITE, .durable = true, .size = sizeof(data), .piece = &piece, .pieces = 1 };
		pending += !disk.submit(disk.disk, &r[i]);
	}
	disk.drain(disk.disk);
	while (disk.completed(disk.disk))
		pending--;
	assert_int_equal(pending, 0);
	pthread_mutex_unlock(&lock);
}

/* Requests that are not aligned as O_DIRECT wants them go another way; both see the same bytes. */
static void direct_and_not(void **state)
{
	static char other[] = "/var/tmp/nadir-direct-XXXXXX";
	alignas(4096) static u8 out[8192 + 64], in[8192 + 64];
	char option[128];
	struct block_backend direct;
	int fd = mkstemp(other);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	close(fd);
	snprintf(option, sizeof(option), "path=%s,direct=on", other);
	struct disk *d = disk_open(option, &direct);
	unlink(other);
	if (!d)
		skip(); /* the file system has no direct I/O */
	pthread_mutex_lock(&lock);
	struct block_backend kept = disk;
	disk = direct;
	pthread_mutex_unlock(&lock);
	assert_int_equal(disk_start(d, completed, NULL), 0);
	for (unsigned i = 0; i < 32; i++) {
		struct block_request r = { .kind = BLOCK_WRITE, .offset = i * 512ull, .size = 8192, .pieces = 1 };
		const struct virtq_piece piece = { out + i % 3, 0, 8192 }, back = { in + i % 5, 0, 8192 };
		memset(out, (int)i + 1, sizeof(out));
		r.piece = &piece;
		assert_int_equal(carry(&r), 0);
		r.kind = BLOCK_READ;
		r.piece = &back;
		assert_int_equal(carry(&r), 0);
		assert_memory_equal(in + i % 5, out, 8192);
	}
	disk_stop(d);
	disk_close(d);
	disk = kept;
}

static u8 many_data[BLOCK_REQUESTS_MAX][4096] __attribute__((aligned(4096)));

/* All there can be at once, and wait for them. */
static void carry_many(enum block_kind kind)
{
	static struct block_request r[BLOCK_REQUESTS_MAX];
	static struct virtq_piece piece[BLOCK_REQUESTS_MAX];
	pthread_mutex_lock(&lock);
	unsigned wanted = finished + ARRAY_SIZE(r);
	for (unsigned i = 0; i < ARRAY_SIZE(r); i++) {
		piece[i] = (struct virtq_piece){ many_data[i], 0, sizeof(many_data[i]) };
		r[i] = (struct block_request){ .kind = kind, .offset = (i * 37 % ARRAY_SIZE(r)) * 4096ull, .size = 4096, .piece = &piece[i], .pieces = 1 };
		wanted -= disk.submit(disk.disk, &r[i]);
	}
	while (finished != wanted)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	for (unsigned i = 0; i < ARRAY_SIZE(r); i++)
		assert_int_equal(r[i].error, 0);
}

static void check_many_at_once(const char *more)
{
	static char other[] = "/var/tmp/nadir-direct-XXXXXX";
	char option[128];
	struct block_backend direct;
	memcpy(other + strlen(other) - 6, "XXXXXX", 6);
	int fd = mkstemp(other);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	close(fd);
	snprintf(option, sizeof(option), "path=%s,direct=on%s", other, more);
	struct disk *d = disk_open(option, &direct);
	if (!d)
		unlink(other);
	if (!d)
		skip(); /* the file system has no direct I/O */
	struct block_backend kept = disk;
	disk = direct;
	assert_int_equal(disk_start(d, completed, NULL), 0);
	assert_true(!*more || disk_ring(d) < 0);
	for (unsigned i = 0; i < BLOCK_REQUESTS_MAX; i++)
		memset(many_data[i], (int)i, sizeof(many_data[i]));
	carry_many(BLOCK_WRITE);
	memset(many_data, 0xee, sizeof(many_data));
	carry_many(BLOCK_READ);
	for (unsigned i = 0; i < BLOCK_REQUESTS_MAX; i++)
		assert_true(many_data[i][0] == (u8)i && many_data[i][4095] == (u8)i);
	/* What does not come out whole is the threads' to tell. */
	struct virtq_piece piece = { many_data[0], 0, 4096 };
	struct block_request beyond = { .kind = BLOCK_READ, .offset = SIZE - 4096, .size = 4096, .piece = &piece, .pieces = 1 };
	assert_int_equal(truncate(other, SIZE - 8192), 0);
	assert_true(carry(&beyond) < 0);
	disk_stop(d);
	disk_close(d);
	disk = kept;
	unlink(other);
}

static void many_at_once(void **state)
{
	check_many_at_once("");
}

static void many_at_once_by_threads(void **state)
{
	check_many_at_once(",aio=threads");
}

static void describes_itself(void **state)
{
	assert_int_equal(disk.size, SIZE);
	assert_false(disk.readonly);
	assert_memory_equal(disk.serial, "12345678901234567890", 20);
}

static void bad_options_are_refused(void **state)
{
	static const char *const options[] = { "", "x", "path", "path=", "readonly=on", "path=/nonexistent", "path=/tmp", "path=/dev/null" };
	static const char *const more[] = { ",", ",readonly", ",readonly=yes", ",colour=red", ",aio=x", ",serial=123456789012345678901", "" /* in use */,
					    ",readonly=on" };
	struct block_backend none;
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		assert_null(disk_open(options[i], &none));
	for (size_t i = 0; i < ARRAY_SIZE(more); i++)
		assert_null(open_with(more[i], &none));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(describes_itself),
		cmocka_unit_test(data_comes_back),
		cmocka_unit_test(zeros_and_discards),
		cmocka_unit_test(a_file_that_was_cut_short_is_an_error),
		cmocka_unit_test(a_drain_leaves_nothing),
		cmocka_unit_test(direct_and_not),
		cmocka_unit_test(many_at_once),
		cmocka_unit_test(many_at_once_by_threads),
		cmocka_unit_test(bad_options_are_refused),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
