/* Remote images, with qemu-nbd as the server: what is written is read, by itself and in the server's file; what servers offer or not; servers that are
 * not there, go away, talk nonsense or say nothing. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/linux/disk.h"
#include "host/linux/image_nbd.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (4u << 20)
#define THREADS 6
#define ROUNDS 50u

static char folder[] = "/tmp/nadir-nbd-XXXXXX";
static char file[64], socket_path[64], uri[128];
static pid_t server;

static int group_setup(void **state)
{
	if (!mkdtemp(folder))
		return -1;
	snprintf(file, sizeof(file), "%s/file", folder);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", folder);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", socket_path);
	return 0;
}

static int group_teardown(void **state)
{
	return rmdir(folder);
}

/* Until it listens. */
static void start(const char *option)
{
	server = fork();
	if (!server) {
		execlp("qemu-nbd", "qemu-nbd", "-t", "-e", "8", "-f", "raw", "-k", socket_path, "--discard=unmap", option, file, NULL);
		_exit(127);
	}
	assert_true(server > 0);
	while (access(socket_path, F_OK) < 0 && !waitpid(server, NULL, WNOHANG))
		usleep(10000);
}

static void stop(void)
{
	if (server > 0) {
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
	}
	server = 0;
	unlink(socket_path);
}

static int setup(void **state)
{
	int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0600);
	return fd < 0 || ftruncate(fd, SIZE) < 0 || close(fd) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	stop();
	return unlink(file);
}

static struct image *open_uri(const char *text, bool readonly)
{
	const struct image_wish wish = { .who = "test", .path = text, .remote = true, .readonly = readonly };
	return image_open(&wish);
}

static void fill(u8 *data, u32 size, u32 seed)
{
	for (u32 i = 0; i < size; i++)
		data[i] = (u8)(seed + i * 7 + (i >> 9));
}

static void put(struct image *image, u32 seed, u64 offset, u32 size)
{
	u8 *data = malloc(size);
	fill(data, size, seed);
	const struct iovec vector[] = { { data, 100 }, { data, 0 }, { data + 100, size - 100 } };
	assert_int_equal(image->ops->write(image, vector, 3, offset, size), 0);
	free(data);
}

static void check(struct image *image, u32 seed, u64 offset, u32 size)
{
	u8 *data = malloc(size), *got = malloc(size);
	fill(data, size, seed);
	const struct iovec vector[] = { { got, 1 }, { got + 1, size - 1 } };
	assert_int_equal(image->ops->read(image, vector, 2, offset, size), 0);
	assert_memory_equal(data, got, size);
	free(data);
	free(got);
}

static void what_is_written_is_read(void **state)
{
	start("--cache=writeback");
	struct image *image = open_uri(uri, false);
	assert_non_null(image);
	assert_int_equal(image->size, SIZE);
	put(image, 1, 512, 1024);
	put(image, 2, 1 << 20, 3 << 20); /* in several pieces */
	check(image, 1, 512, 1024);
	check(image, 2, 1 << 20, 3 << 20);
	assert_int_equal(image->ops->zero(image, 1 << 20, 1 << 20, true), 0);
	assert_int_equal(image->ops->zero(image, 2 << 20, 4096, false), 0);
	assert_int_equal(image->ops->discard(image, 3 << 20, 1 << 20), 0);
	assert_int_equal(image->ops->flush(image), 0);
	u8 data[1024], expected[1024];
	int fd = open(file, O_RDONLY);
	assert_int_equal(pread(fd, data, sizeof(data), 512), sizeof(data));
	fill(expected, sizeof(expected), 1);
	assert_memory_equal(data, expected, sizeof(data));
	assert_int_equal(pread(fd, data, sizeof(data), 1 << 20), sizeof(data));
	memset(expected, 0, sizeof(expected));
	assert_memory_equal(data, expected, sizeof(data));
	close(fd);
	image_close(image);
}

struct worker {
	struct image *image;
	u32 own;
	pthread_t thread;
};

static void *work(void *opaque)
{
	struct image *image = ((struct worker *)opaque)->image;
	u32 own = ((struct worker *)opaque)->own;
	for (u32 i = 0; i < ROUNDS; i++) {
		put(image, own * ROUNDS + i, (u64)own * 65536, 65536);
		check(image, own * ROUNDS + i, (u64)own * 65536, 65536);
	}
	return NULL;
}

static void threads_do_not_meet(void **state)
{
	struct worker worker[THREADS];
	start("--cache=writeback");
	struct image *image = open_uri(uri, false);
	const int *sockets;
	assert_non_null(image);
	assert_true(nbd_sockets(&sockets) >= 2);
	for (unsigned i = 0; i < THREADS; i++) {
		worker[i] = (struct worker){ .image = image, .own = i };
		assert_int_equal(pthread_create(&worker[i].thread, NULL, work, &worker[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(worker[i].thread, NULL);
	image_close(image);
}

static void some_are_for_reading_alone(void **state)
{
	start("--read-only");
	assert_null(open_uri(uri, false));
	struct image *image = open_uri(uri, true);
	assert_non_null(image);
	assert_true(image->readonly);
	const u8 zeros[512] = { 0 };
	u8 got[512] = { 1 };
	const struct iovec vector = { got, sizeof(got) };
	assert_int_equal(image->ops->read(image, &vector, 1, 0, sizeof(got)), 0);
	assert_memory_equal(got, zeros, sizeof(got));
	image_close(image);
}

static void changes_can_be_thrown_away(void **state)
{
	struct block_backend backend;
	char option[256];
	start("--read-only");
	snprintf(option, sizeof(option), "nbd=%s,snapshot=on,serial=remote", uri);
	struct disk *disk = disk_open(option, &backend);
	assert_non_null(disk);
	assert_int_equal(backend.size, SIZE);
	assert_false(backend.readonly);
	disk_close(disk);
}

static void a_server_that_is_gone_is_an_error(void **state)
{
	u8 got[512];
	const struct iovec vector = { got, sizeof(got) };
	start("--cache=writeback");
	struct image *image = open_uri(uri, false);
	assert_non_null(image);
	stop();
	for (unsigned i = 0; i < 6; i++) {
		assert_true(image->ops->read(image, &vector, 1, 0, sizeof(got)) < 0);
		assert_true(image->ops->write(image, &vector, 1, 0, sizeof(got)) < 0);
		assert_true(image->ops->flush(image) < 0);
	}
	image_close(image);
}

static void wrong_options_are_refused(void **state)
{
	static const char *const options[] = {
		"nbd=", "nbd=file", "nbd=http://host/", "nbd=nbds://localhost/", "nbd=nbd+unix:///?socket=/nowhere/at/all", "nbd=nbd+vsock://1/",
		"nbd=nbd://localhost:1/", "nbd=nbd://x/,path=file", "nbd=nbd://x/,direct=on", "nbd=nbd://x/,base=a,overlay=b", "nbd=nbd://x/,format=qcow2",
	};
	struct block_backend backend;
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (disk_open(options[i], &backend))
			fail_msg("%s is not refused", options[i]);
}

/* A server that says what it is told, to whoever connects, and goes. */
static void nonsense_is_refused(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	memcpy(address.sun_path, socket_path, strlen(socket_path));
	assert_int_equal(bind(listener, (const struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 4), 0);
	static const char *const lines[] = { "", "NBDMAGIC", "NBDMAGICIHAVEOPT\377\377", "HTTP/1.1 400 Bad Request\r\n\r\n" };
	server = fork();
	for (size_t i = 0; !server; i++) {
		int fd = accept(listener, NULL, NULL);
		const char *line = lines[i % ARRAY_SIZE(lines)];
		if (write(fd, line, strlen(line)) < 0)
			_exit(1);
		close(fd);
	}
	close(listener);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		assert_null(open_uri(uri, false));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_written_is_read),
		TEST(threads_do_not_meet),
		TEST(some_are_for_reading_alone),
		TEST(changes_can_be_thrown_away),
		TEST(a_server_that_is_gone_is_an_error),
		TEST(wrong_options_are_refused),
		TEST(nonsense_is_refused),
	};
	signal(SIGPIPE, SIG_IGN);
	if (system("command -v qemu-nbd >/dev/null")) {
		puts("skipped: there is no qemu-nbd");
		return 77;
	}
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
