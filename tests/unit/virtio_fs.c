/* The virtio file system device with a back end that answers when the test says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/virtio/fs.h"
#include "fake_host.h"
#include "virtio_driver.h"

#define IN 0x4000ull
#define OUT 0x5000ull
#define REQUESTS 1u /* the queue */

struct machine {
	struct driver driver;
	struct virtio_fs fs;
	struct fs_request *waiting[FS_REQUESTS_MAX], *done, last;
	unsigned waits;
	bool at_once;
};

static bool submit(void *share, struct fs_request *request)
{
	struct machine *m = share;
	m->last = *request;
	request->written = 8;
	if (m->at_once)
		return true;
	m->waiting[m->waits++] = request;
	return false;
}

static struct fs_request *completed(void *share)
{
	struct machine *m = share;
	struct fs_request *r = m->done;
	if (r)
		m->done = r->next;
	return r;
}

static void complete(struct machine *m, u32 written)
{
	struct fs_request *r = m->waiting[--m->waits];
	r->written = written;
	r->next = m->done;
	m->done = r;
}

static void drain(void *share)
{
	struct machine *m = share;
	while (m->waits)
		complete(m, 0);
}

static int setup(void **state)
{
	struct machine *m = host_alloc(sizeof(*m));
	const struct fs_backend files = { .submit = submit, .completed = completed, .drain = drain, .share = m, .tag = "files" };
	assert_true(driver_create(&m->driver));
	assert_int_equal(virtio_fs_attach(&m->fs, &files, &m->driver.pci, &m->driver.ram, DRIVER_SLOT), 0);
	driver_plug(&m->driver);
	driver_start(&m->driver, 0, 2);
	*state = m;
	return 0;
}

static int teardown(void **state)
{
	struct machine *m = *state;
	virtio_fs_destroy(&m->fs);
	driver_destroy(&m->driver);
	host_free(m);
	return 0;
}

static void ask(struct machine *m, unsigned queue)
{
	driver_descriptor(&m->driver, queue, 0, IN, 40, DESC_NEXT);
	driver_descriptor(&m->driver, queue, 1, OUT, 16, DESC_WRITE);
	driver_offer(&m->driver, queue, 0);
}

static void describes_itself(void **state)
{
	struct machine *m = *state;
	char tag[FS_TAG_SIZE];
	for (unsigned i = 0; i < sizeof(tag); i++)
		tag[i] = (char)bus_read(&m->driver.memory, DRIVER_CONFIG + i, 1, 0);
	assert_string_equal(tag, "files");
	assert_int_equal(bus_read(&m->driver.memory, DRIVER_CONFIG + 36, 4, 0), 1);
}

static void carries_requests(void **state)
{
	struct machine *m = *state;
	for (unsigned queue = 0; queue < 2; queue++) {
		ask(m, queue);
		assert_int_equal(m->last.readable, 1);
		assert_int_equal(m->last.pieces, 2);
		assert_int_equal(driver_used(&m->driver, queue), 0);
		assert_true(m->fs.virtio.busy(&m->fs.virtio));
		complete(m, 12);
		virtio_fs_completed(&m->fs);
		assert_int_equal(driver_used(&m->driver, queue), 1);
		assert_int_equal(driver_written(&m->driver, queue, 0), 12);
		assert_false(m->fs.virtio.busy(&m->fs.virtio));
	}
	m->at_once = true;
	ask(m, REQUESTS);
	assert_int_equal(driver_used(&m->driver, REQUESTS), 2);
	assert_int_equal(driver_written(&m->driver, REQUESTS, 1), 8);
}

static void believes_no_more_than_there_was_room_for(void **state)
{
	struct machine *m = *state;
	ask(m, REQUESTS);
	complete(m, ~0u);
	virtio_fs_completed(&m->fs);
	assert_int_equal(driver_written(&m->driver, REQUESTS, 0), 16);
}

static void reset_waits_for_all(void **state)
{
	struct machine *m = *state;
	ask(m, REQUESTS);
	driver_start(&m->driver, 0, 2);
	assert_int_equal(m->waits, 0);
	assert_false(m->fs.virtio.busy(&m->fs.virtio));
	virtio_fs_completed(&m->fs);
	assert_int_equal(driver_used(&m->driver, REQUESTS), 0);
	ask(m, REQUESTS);
	assert_int_equal(m->waits, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(describes_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(carries_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(believes_no_more_than_there_was_room_for, setup, teardown),
		cmocka_unit_test_setup_teardown(reset_waits_for_all, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
