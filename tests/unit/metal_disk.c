/* Disks in memory: what is written stays apart from the image and from other disks of it, what is discarded is given back, and large requests are the
 * thread's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/metal/disk.h"
#include "host/metal/pages.h"
#include "host/port.h"

#include <stdlib.h>
#include <string.h>

#define SIZE (5 * PAGE_SIZE + 512) /* the last page is not whole */
#define LARGE (64 * PAGE_SIZE)

static u64 available = 1000, woken;

void *host_pages_create(unsigned count)
{
	available--;
	return calloc(count, PAGE_SIZE);
}

void host_pages_destroy(void *pages, unsigned count)
{
	available += pages != NULL;
	free(pages);
}

u64 pages_total(void)
{
	return 1000;
}

u64 pages_available(void)
{
	return available;
}

static void wake(void *opaque)
{
	woken++;
}

static u8 *make_image(u64 size)
{
	u8 *image = malloc(size);
	for (u64 i = 0; i < size; i++)
		image[i] = (u8)(i / 512 + 1);
	return image;
}

static int ask(const struct block_backend *b, enum block_kind kind, u64 offset, u64 size, u8 *data)
{
	/* In uneven pieces. */
	struct virtq_piece piece[2] = { { data, 0, (u32)(size / 3) }, { data + size / 3, 0, (u32)(size - size / 3) } };
	struct block_request r = { .kind = kind, .offset = offset, .size = size, .piece = piece, .pieces = data ? 2 : 0, .error = 1 };
	assert_true(b->submit(b->disk, &r));
	return r.error;
}

static void expect(const struct block_backend *b, u64 offset, u64 size, const u8 *wanted)
{
	u8 *data = calloc(1, size);
	assert_int_equal(ask(b, BLOCK_READ, offset, size, data), 0);
	assert_memory_equal(data, wanted, size);
	free(data);
}

static void test_two_disks(void **state)
{
	u8 *image = make_image(SIZE), *kept = make_image(SIZE), data[SIZE], mine[SIZE];
	struct block_backend a, b;
	struct disk *one = disk_create(image, SIZE, false, &a), *two = disk_create(image, SIZE, true, &b);
	assert_int_equal(a.size, SIZE);
	assert_false(a.readonly);
	assert_true(b.readonly);
	memset(data, 0xaa, sizeof(data));
	memcpy(mine, kept, SIZE);
	static const struct {
		u64 offset, size;
	} writes[] = { { 512, 512 }, { PAGE_SIZE - 512, 1024 }, { SIZE - 512, 512 }, { 2 * PAGE_SIZE, 2 * PAGE_SIZE }, { 0, SIZE } };
	for (unsigned i = 0; i < ARRAY_SIZE(writes); i++) {
		data[writes[i].offset] = (u8)i;
		assert_int_equal(ask(&a, BLOCK_WRITE, writes[i].offset, writes[i].size, data + writes[i].offset), 0);
		memcpy(mine + writes[i].offset, data + writes[i].offset, writes[i].size);
		expect(&a, 0, SIZE, mine);
		expect(&b, 0, SIZE, kept);
	}
	assert_int_equal(disk_written(one), 6 * PAGE_SIZE);
	assert_int_equal(disk_written(two), 0);
	assert_memory_equal(image, kept, SIZE);
	assert_int_equal(ask(&a, BLOCK_FLUSH, 0, 0, NULL), 0);
	disk_destroy(one);
	disk_destroy(two);
	assert_int_equal(available, 1000);
	free(image);
	free(kept);
}

static void test_bounds(void **state)
{
	u8 *image = make_image(SIZE), data[1024];
	struct block_backend a;
	struct disk *d = disk_create(image, SIZE, false, &a);
	static const enum block_kind kinds[] = { BLOCK_READ, BLOCK_WRITE, BLOCK_DISCARD, BLOCK_ZERO };
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		assert_true(ask(&a, kinds[i], SIZE - 512, 1024, data) < 0);
		assert_true(ask(&a, kinds[i], ~0ull - 511, 1024, data) < 0);
		assert_int_equal(ask(&a, kinds[i], SIZE, 0, data), 0);
	}
	disk_destroy(d);
	free(image);
}

static void test_discard(void **state)
{
	u8 *image = make_image(SIZE), mine[SIZE];
	struct block_backend a;
	struct disk *d = disk_create(image, SIZE, false, &a);
	memcpy(mine, image, SIZE);
	assert_int_equal(ask(&a, BLOCK_WRITE, PAGE_SIZE, PAGE_SIZE, mine), 0);
	memcpy(mine + PAGE_SIZE, image, PAGE_SIZE);
	assert_int_equal(ask(&a, BLOCK_ZERO, PAGE_SIZE + 512, PAGE_SIZE, NULL), 0); /* half of it, half of an untouched one */
	memset(mine + PAGE_SIZE + 512, 0, PAGE_SIZE);
	expect(&a, 0, SIZE, mine);
	assert_int_equal(disk_written(d), 2 * PAGE_SIZE);
	assert_int_equal(ask(&a, BLOCK_DISCARD, PAGE_SIZE, 2 * PAGE_SIZE, NULL), 0);
	memset(mine + PAGE_SIZE, 0, 2 * PAGE_SIZE);
	expect(&a, 0, SIZE, mine);
	assert_int_equal(disk_written(d), 0);
	assert_int_equal(ask(&a, BLOCK_ZERO, 0, SIZE, NULL), 0);
	memset(mine, 0, SIZE);
	expect(&a, 0, SIZE, mine);
	assert_int_equal(ask(&a, BLOCK_WRITE, PAGE_SIZE, 512, image), 0);
	memcpy(mine + PAGE_SIZE, image, 512);
	expect(&a, 0, SIZE, mine);
	assert_int_equal(disk_written(d), PAGE_SIZE);
	disk_destroy(d);
	assert_int_equal(available, 1000);
	free(image);
}

/* The last eighth of memory is not for disks. */
static void test_full(void **state)
{
	u8 *image = make_image(SIZE), data[512] = { 7 };
	struct block_backend a;
	struct disk *d = disk_create(image, SIZE, false, &a);
	available = 126;
	assert_int_equal(ask(&a, BLOCK_WRITE, 0, 512, data), 0);
	assert_true(ask(&a, BLOCK_WRITE, PAGE_SIZE, 512, data) < 0);
	assert_true(ask(&a, BLOCK_ZERO, PAGE_SIZE, 512, NULL) < 0);
	assert_int_equal(ask(&a, BLOCK_WRITE, 512, 512, data), 0); /* where it has a page */
	assert_int_equal(ask(&a, BLOCK_DISCARD, 0, PAGE_SIZE, NULL), 0);
	expect(&a, PAGE_SIZE, 512, image + PAGE_SIZE);
	disk_destroy(d);
	available = 1000;
	free(image);
}

static void test_large(void **state)
{
	u8 *image = make_image(LARGE), *data = calloc(1, LARGE);
	struct block_backend a;
	struct disk *d = disk_create(image, LARGE, false, &a);
	struct virtq_piece piece = { data, 0, LARGE };
	struct block_request large = { .kind = BLOCK_READ, .size = LARGE, .piece = &piece, .pieces = 1, .error = 1 };
	struct block_request small = { .kind = BLOCK_READ, .size = 512, .piece = &piece, .pieces = 1, .error = 1 };
	disk_set_waker(d, wake, NULL);
	assert_false(disk_work(d));
	assert_false(a.submit(a.disk, &large));
	assert_false(a.submit(a.disk, &small)); /* behind it */
	assert_int_equal(woken, 2);
	assert_null(a.completed(a.disk));
	assert_true(disk_work(d));
	assert_non_null(a.completed(a.disk));
	assert_non_null(a.completed(a.disk));
	assert_null(a.completed(a.disk));
	assert_int_equal(large.error, 0);
	assert_int_equal(small.error, 0);
	assert_memory_equal(data, image, LARGE);
	assert_true(a.submit(a.disk, &small));
	assert_false(a.submit(a.disk, &large));
	a.drain(a.disk);
	assert_ptr_equal(a.completed(a.disk), &large);
	assert_true(large.error < 0);
	disk_destroy(d);
	free(image);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_disks), cmocka_unit_test(test_bounds), cmocka_unit_test(test_discard),
		cmocka_unit_test(test_full),	  cmocka_unit_test(test_large),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
