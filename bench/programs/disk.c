/* Reads or writes a disk, or a file of its own where there is no disk: disk read|write seq|random SIZE COUNT DEPTH
 * COUNT transfers of SIZE bytes, DEPTH of them under way at a time; a disk without the guest's page cache. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DEPTH_MAX 64

static uint64_t disk_size;
static int fd;

static void fail(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	exit(1);
}

static void open_disk(int flags)
{
	struct stat st;
	fd = open("/dev/vda", flags | O_DIRECT);
	if (fd < 0)
		fd = open("/bench/disk", flags);
	if (fd < 0 || fstat(fd, &st) < 0)
		fail("open");
	disk_size = (uint64_t)st.st_size;
	if (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, &disk_size) < 0)
		fail("size");
}

static uint64_t place(int is_random, uint64_t i, uint64_t size)
{
	static uint64_t state = 88172645463325252u;
	uint64_t places = disk_size / size;
	if (!is_random)
		return i % places * size;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % places * size;
}

int main(int argc, char **argv)
{
	static struct iocb control[DEPTH_MAX];
	struct io_event event[DEPTH_MAX];
	aio_context_t context = 0;
	if (argc != 6)
		return 2;
	int is_write = !strcmp(argv[1], "write"), is_random = !strcmp(argv[2], "random");
	uint64_t size = strtoull(argv[3], NULL, 0), count = strtoull(argv[4], NULL, 0), depth = strtoull(argv[5], NULL, 0);
	open_disk(is_write ? O_WRONLY : O_RDONLY);
	if (depth > DEPTH_MAX || syscall(SYS_io_setup, DEPTH_MAX, &context) < 0)
		fail("io_setup");
	for (uint64_t i = 0; i < depth; i++) {
		char *buffer = aligned_alloc(4096, size);
		memset(buffer, 'd', size);
		control[i] = (struct iocb){ .aio_lio_opcode = is_write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD, .aio_fildes = (uint32_t)fd,
					    .aio_buf = (uintptr_t)buffer, .aio_nbytes = size, .aio_data = i };
	}
	uint64_t begun = 0, done = 0;
	long events = (long)(depth < count ? depth : count);
	for (long i = 0; i < events; i++)
		event[i].data = (uint64_t)i;
	while (done < count) {
		struct iocb *list[DEPTH_MAX];
		long n = 0;
		for (long i = 0; i < events && begun < count; i++) {
			list[n] = &control[event[i].data];
			list[n++]->aio_offset = (int64_t)place(is_random, begun++, size);
		}
		if (n && syscall(SYS_io_submit, context, n, list) != n)
			fail("io_submit");
		events = syscall(SYS_io_getevents, context, 1, (long)depth, event, NULL);
		for (long i = 0; i < events; i++, done++)
			if ((uint64_t)event[i].res != size)
				fail("transfer");
	}
	printf("%llu transfers\n", (unsigned long long)done);
	return 0;
}
