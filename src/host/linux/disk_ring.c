/* io_uring for disks (disk_ring.h).
 *
 * The thread that waits also submits, so that completions are its own and interrupt nobody else (IORING_SETUP_DEFER_TASKRUN, where the
 * kernel has it). To be woken it reads an eventfd by the ring. Seccomp does not see what a ring is asked for: so it is restricted to reading and
 * writing registered files before it is switched on. */
#define _GNU_SOURCE
#include "host/linux/disk_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRIES 64u /* to be submitted at once */
#define COMPLETIONS (2 * BLOCK_REQUESTS_MAX)
#define WAKE IMAGE_FILES_MAX /* the eventfd's place among registered files */

struct slot {
	struct block_request *request;
	struct slot *idle;
	struct iovec vector[VIRTQ_PIECES_MAX];
};

struct disk_ring {
	struct io_uring ring;
	struct image *image;
	int wake;
	u64 woken; /* what the eventfd said */
	struct slot *idle;
	unsigned fresh; /* the first slot that was never used: their memory is not there yet */
	struct slot slot[BLOCK_REQUESTS_MAX];
};

/* The library as Debian 12 has it does not export its own functions for these. */
static long change(struct disk_ring *r, unsigned how, const void *what, unsigned count)
{
	return syscall(SYS_io_uring_register, r->ring.ring_fd, how, what, count);
}

static long restrict_ring(struct disk_ring *r)
{
	struct io_uring_restriction allowed[] = {
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ },
		{ .opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE },
		{ .opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_ENABLE_RINGS },
	};
	return change(r, IORING_REGISTER_RESTRICTIONS, allowed, ARRAY_SIZE(allowed));
}

/* Newer kernels first. */
static int open_ring(struct io_uring *ring)
{
	static const unsigned flags[] = { IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 0 };
	int error = -ENOSYS;
	for (size_t i = 0; i < ARRAY_SIZE(flags) && error; i++) {
		struct io_uring_params p = { .flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE | flags[i], .cq_entries = COMPLETIONS };
		error = io_uring_queue_init_params(ENTRIES, ring, &p);
	}
	return error;
}

/* The image's files, opened once more: the kernel takes a ring apart some time after its process has ended, and what is registered there would
 * keep the image's lock until then. */
static bool open_again(struct image *image, int *file)
{
	int own[IMAGE_FILES_MAX];
	bool good = true;
	image->ops->files(image, own);
	for (unsigned i = 0; i < IMAGE_FILES_MAX; i++) {
		char path[32];
		snprintf(path, sizeof(path), "/proc/self/fd/%d", own[i]);
		file[i] = own[i] < 0 ? -1 : open(path, (fcntl(own[i], F_GETFL) & (O_ACCMODE | O_DIRECT)) | O_NONBLOCK | O_CLOEXEC);
		good &= own[i] < 0 || file[i] >= 0;
	}
	return good;
}

static void close_files(const int *file)
{
	for (unsigned i = 0; i < IMAGE_FILES_MAX; i++)
		if (file[i] >= 0)
			close(file[i]);
}

struct disk_ring *disk_ring_create(struct image *image)
{
	int file[IMAGE_FILES_MAX + 1];
	struct disk_ring *r = image->ops->files ? calloc(1, sizeof(*r)) : NULL;
	if (!r)
		return NULL;
	bool readable = open_again(image, file);
	r->image = image;
	r->wake = file[WAKE] = eventfd(0, EFD_CLOEXEC);
	bool opened = readable && r->wake >= 0 && !open_ring(&r->ring);
	bool good = opened && !io_uring_register_files(&r->ring, file, ARRAY_SIZE(file)) && !restrict_ring(r);
	close_files(file);
	if (good)
		return r;
	if (opened)
		io_uring_queue_exit(&r->ring);
	if (r->wake >= 0)
		close(r->wake);
	free(r);
	return NULL;
}

void disk_ring_destroy(struct disk_ring *ring)
{
	if (!ring)
		return;
	io_uring_queue_exit(&ring->ring);
	close(ring->wake);
	free(ring);
}

int disk_ring_file(const struct disk_ring *ring)
{
	return ring->ring.ring_fd;
}

/* ---- what is asked ---- */

static struct io_uring_sqe *next_entry(struct disk_ring *r)
{
	struct io_uring_sqe *e = io_uring_get_sqe(&r->ring);
	while (!e) {
		io_uring_submit(&r->ring);
		e = io_uring_get_sqe(&r->ring);
	}
	return e;
}

/* Of no slot: that is how it is told from requests. */
static void listen_for_wake(struct disk_ring *r)
{
	struct io_uring_sqe *e = next_entry(r);
	io_uring_prep_read(e, WAKE, &r->woken, sizeof(r->woken), 0);
	io_uring_sqe_set_flags(e, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(e, NULL);
}

bool disk_ring_begin(struct disk_ring *ring)
{
	if (change(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0))
		return false;
	listen_for_wake(ring);
	return io_uring_submit(&ring->ring) == 1;
}

static struct slot *take_slot(struct disk_ring *r)
{
	struct slot *s = r->idle;
	if (!s)
		return &r->slot[r->fresh++];
	r->idle = s->idle;
	return s;
}

void disk_ring_add(struct disk_ring *ring, struct block_request *request)
{
	struct slot *s = take_slot(ring);
	for (unsigned i = 0; i < request->pieces; i++)
		s->vector[i] = (struct iovec){ request->piece[i].data, request->piece[i].size };
	s->request = request;
	int file = (int)ring->image->ops->file_for(ring->image, s->vector, request->pieces, request->offset);
	struct io_uring_sqe *e = next_entry(ring);
	if (request->kind == BLOCK_READ)
		io_uring_prep_readv(e, file, s->vector, request->pieces, request->offset);
	else
		io_uring_prep_writev(e, file, s->vector, request->pieces, request->offset);
	io_uring_sqe_set_flags(e, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(e, s);
}

/* ---- what comes ---- */

void disk_ring_wait(struct disk_ring *ring)
{
	int error;
	do
		error = io_uring_submit_and_wait(&ring->ring, 1);
	while (error == -EINTR || error == -EAGAIN || error == -EBUSY);
}

struct block_request *disk_ring_take(struct disk_ring *ring, bool *whole)
{
	struct io_uring_cqe *e;
	while (!io_uring_peek_cqe(&ring->ring, &e)) {
		struct slot *s = io_uring_cqe_get_data(e);
		int result = e->res;
		io_uring_cqe_seen(&ring->ring, e);
		if (!s) {
			listen_for_wake(ring);
			continue;
		}
		*whole = result >= 0 && (u64)result == s->request->size;
		s->idle = ring->idle;
		ring->idle = s;
		return s->request;
	}
	return NULL;
}

void disk_ring_wake(struct disk_ring *ring)
{
	eventfd_write(ring->wake, 1);
}
