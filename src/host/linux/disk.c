/* The cable between a block device and an image. A request is carried out at once, by the vCPU's thread that submits it, if that does not
 * take long; else by one of the disk's threads.
 *
 * Waking a thread, and the sleeping vCPU after it, takes longer than a small transfer to or from the host's page cache. Reads can ask for no
 * waiting (RWF_NOWAIT), but file systems refuse this for writes. So a write is made at once as long as writes are found to be quick. After one that
 * was not, the next ones are watched; if one of these is slow because it had to wait, not because our thread lost its CPU, it is paid for
 * with a hundred times its duration, during which all writes go to the threads. Large transfers want several CPUs: they are made at once only
 * while a thread has something to do.
 *
 * What waits for storage and not for a CPU goes by io_uring where there is one (disk_ring.h): reads of what is not in the page cache, and
 * everything that goes past it. There one thread keeps as many transfers under way as the guest asks for. What does not come out whole is
 * done again by the other threads, which know all cases. */
#define _GNU_SOURCE
#include "host/linux/disk.h"

#include "host/linux/disk_ring.h"
#include "host/linux/image.h"
#include "host/linux/sandbox_thread.h"
#include "host/port.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>

#define THREADS 4
#define AT_ONCE_MAX 65536u /* bytes */
#define SLOW 1000000u	   /* ns */
#define SLOW_COSTS 100u
#define WATCHED 16u /* writes after a slow one */

static_assert(VIRTQ_PIECES_MAX <= IMAGE_PARTS_MAX, "a request is one vector");

/* Oldest first. */
struct queue {
	struct block_request *first, **last;
};

struct disk {
	struct image *image;
	bool threads_only;
	struct disk_ring *ring; /* or NULL; this and what belongs to it set by disk_start */
	u64 writes_wait_until; /* host_now(): writes go to the threads. The submitting thread's, as are the next two. */
	unsigned watched; /* so many more writes */
	struct iovec vector[VIRTQ_PIECES_MAX];

	pthread_mutex_t lock; /* of all that follows */
	pthread_cond_t work, idle;
	struct queue queue, for_ring; /* those that wait for a thread, and for the ring's */
	bool ring_sleeps;
	unsigned in_ring; /* requests */
	_Atomic unsigned unfinished; /* that wait, or are in a thread's hands; read without the lock by whom a guess is enough */
	struct block_request *done;
	bool told; /* `completed` was called, and has not yet found `done` empty */
	bool stop;
	void (*completed)(void *opaque); /* this and what follows: set by disk_start */
	void *opaque;
	pthread_t thread[THREADS], ring_thread;
	unsigned threads;
	enum { RING_STARTS, RING_WORKS, RING_REFUSED } ring_state;
};

/* ---- carrying out ---- */

static unsigned make_vector(const struct block_request *r, struct iovec *vector)
{
	for (unsigned i = 0; i < r->pieces; i++)
		vector[i] = (struct iovec){ r->piece[i].data, r->piece[i].size };
	return r->pieces;
}

static int carry_out(struct image *image, const struct block_request *r, struct iovec *vector)
{
	switch (r->kind) {
	case BLOCK_READ:
		return image->ops->read(image, vector, make_vector(r, vector), r->offset, r->size);
	case BLOCK_WRITE:
		return image->ops->write(image, vector, make_vector(r, vector), r->offset, r->size);
	case BLOCK_FLUSH:
		return image->ops->flush(image);
	case BLOCK_DISCARD:
		return image->ops->discard(image, r->offset, r->size);
	case BLOCK_ZERO:
		return image->ops->zero(image, r->offset, r->size, r->unmap);
	}
	return -EINVAL;
}

static int carry_out_durably(struct image *image, const struct block_request *r, struct iovec *vector)
{
	int error = carry_out(image, r, vector);
	return !error && r->durable && r->kind != BLOCK_FLUSH ? image->ops->flush(image) : error;
}

/* How often this thread has waited for something. */
static long waits(void)
{
	struct rusage usage;
	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nvcsw;
}

static bool write_at_once(struct disk *d, struct block_request *r)
{
	u64 begin = host_now();
	if (begin < d->writes_wait_until)
		return false;
	long waited = d->watched ? waits() : 0;
	r->error = carry_out(d->image, r, d->vector);
	u64 end = host_now();
	if (d->watched && end - begin > SLOW && waits() != waited)
		d->writes_wait_until = end + (end - begin) * SLOW_COSTS;
	d->watched = end - begin > SLOW ? WATCHED : d->watched - (d->watched > 0);
	return true;
}

static bool at_once(struct disk *d, struct block_request *r)
{
	const struct image_ops *ops = d->image->ops;
	if (r->kind > BLOCK_WRITE || r->durable || d->image->remote || (r->size > AT_ONCE_MAX && !d->unfinished) || (d->image->direct && d->ring))
		return false;
	bool (*try)(struct image *, const struct iovec *, unsigned, u64, u64) = r->kind == BLOCK_READ ? ops->try_read : ops->try_write;
	r->error = 0;
	if (try && try(d->image, d->vector, make_vector(r, d->vector), r->offset, r->size))
		return true;
	return r->kind == BLOCK_WRITE && write_at_once(d, r);
}

/* ---- the queues: with the lock ---- */

static void put(struct queue *q, struct block_request *r)
{
	r->next = NULL;
	*q->last = r;
	q->last = &r->next;
}

static struct block_request *take(struct queue *q)
{
	struct block_request *r = q->first;
	if (r)
		q->first = r->next;
	if (!q->first)
		q->last = &q->first;
	return r;
}

static void finish(struct disk *d, struct block_request *r)
{
	r->next = d->done;
	d->done = r;
	if (!--d->unfinished)
		pthread_cond_broadcast(&d->idle);
}

/* Some are complete. The lock is let go meanwhile. */
static void tell(struct disk *d)
{
	if (d->told || !d->done)
		return;
	d->told = true;
	pthread_mutex_unlock(&d->lock);
	d->completed(d->opaque);
	pthread_mutex_lock(&d->lock);
}

/* ---- threads ---- */

static void *disk_thread(void *opaque)
{
	struct disk *d = opaque;
	struct iovec vector[VIRTQ_PIECES_MAX];
	pthread_mutex_lock(&d->lock);
	for (;;) {
		while (!d->queue.first && !d->stop)
			pthread_cond_wait(&d->work, &d->lock);
		struct block_request *r = take(&d->queue);
		if (!r)
			break;
		pthread_mutex_unlock(&d->lock);
		r->error = carry_out_durably(d->image, r, vector);
		pthread_mutex_lock(&d->lock);
		finish(d, r);
		tell(d);
	}
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

/* What waits for the ring goes to it, and we sleep, if there is nothing to be done at once. The lock is let go meanwhile. */
static void ring_turn(struct disk *d)
{
	struct block_request *r, *next;
	bool whole;
	for (r = d->for_ring.first; r; r = next) {
		next = r->next; /* it is another list's when it is complete */
		disk_ring_add(d->ring, r);
		d->in_ring++;
	}
	d->for_ring = (struct queue){ .last = &d->for_ring.first };
	d->ring_sleeps = true;
	pthread_mutex_unlock(&d->lock);
	disk_ring_wait(d->ring);
	pthread_mutex_lock(&d->lock);
	d->ring_sleeps = false;
	while ((r = disk_ring_take(d->ring, &whole))) {
		d->in_ring--;
		if (whole) {
			finish(d, r);
			continue;
		}
		put(&d->queue, r);
		pthread_cond_signal(&d->work);
	}
	tell(d);
}

static void *ring_thread(void *opaque)
{
	struct disk *d = opaque;
	pthread_mutex_lock(&d->lock);
	d->ring_state = disk_ring_begin(d->ring) ? RING_WORKS : RING_REFUSED;
	pthread_cond_broadcast(&d->idle);
	pthread_mutex_unlock(&d->lock);
	sandbox_thread_confine(SANDBOX_RING);
	pthread_mutex_lock(&d->lock);
	while (d->ring_state == RING_WORKS && (!d->stop || d->for_ring.first || d->in_ring))
		ring_turn(d);
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

/* Whether it waits for storage, as far as can be known, and has nothing to do afterwards. */
static bool is_for_ring(const struct disk *d, const struct block_request *r)
{
	if (!d->ring || r->kind > BLOCK_WRITE || r->durable)
		return false;
	return d->image->direct || (r->kind == BLOCK_READ && r->size <= AT_ONCE_MAX);
}

static bool disk_submit(void *disk, struct block_request *request)
{
	struct disk *d = disk;
	if (at_once(d, request))
		return true;
	bool ring = is_for_ring(d, request);
	pthread_mutex_lock(&d->lock);
	put(ring ? &d->for_ring : &d->queue, request);
	d->unfinished++;
	bool wake = ring && d->ring_sleeps;
	d->ring_sleeps = d->ring_sleeps && !wake;
	if (!ring)
		pthread_cond_signal(&d->work);
	pthread_mutex_unlock(&d->lock);
	if (wake)
		disk_ring_wake(d->ring);
	return false;
}

static struct block_request *disk_completed(void *disk)
{
	struct disk *d = disk;
	pthread_mutex_lock(&d->lock);
	struct block_request *r = d->done;
	if (r)
		d->done = r->next;
	else
		d->told = false;
	pthread_mutex_unlock(&d->lock);
	return r;
}

static void disk_drain(void *disk)
{
	struct disk *d = disk;
	pthread_mutex_lock(&d->lock);
	struct block_request *r;
	while ((r = take(&d->queue)) || (r = take(&d->for_ring)))
		finish(d, r);
	while (d->unfinished)
		pthread_cond_wait(&d->idle, &d->lock);
	pthread_mutex_unlock(&d->lock);
}

/* ---- life ---- */

static int disk_flush(void *disk)
{
	struct image *image = ((struct disk *)disk)->image;
	return image->readonly ? 0 : image->ops->flush(image);
}

struct disk *disk_create(struct image *image, struct block_backend *backend)
{
	struct disk *d = calloc(1, sizeof(*d));
	if (!d) {
		image_close(image);
		return NULL;
	}
	d->image = image;
	d->queue.last = &d->queue.first;
	d->for_ring.last = &d->for_ring.first;
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->work, NULL);
	pthread_cond_init(&d->idle, NULL);
	*backend = (struct block_backend){ .submit = disk_submit,
					   .completed = disk_completed,
					   .drain = disk_drain,
					   .flush = disk_flush,
					   .disk = d,
					   .size = image->size,
					   .readonly = image->readonly };
	return d;
}

static void forget_ring(struct disk *d)
{
	disk_ring_destroy(d->ring);
	d->ring = NULL;
}

/* Without one all goes to the threads. */
static void start_ring(struct disk *d)
{
	d->ring = d->threads_only ? NULL : disk_ring_create(d->image);
	if (!d->ring)
		return;
	if (sandbox_thread_create(&d->ring_thread, SANDBOX_RING, ring_thread, d)) {
		forget_ring(d);
		return;
	}
	pthread_mutex_lock(&d->lock);
	while (d->ring_state == RING_STARTS)
		pthread_cond_wait(&d->idle, &d->lock);
	pthread_mutex_unlock(&d->lock);
	if (d->ring_state == RING_WORKS)
		return;
	pthread_join(d->ring_thread, NULL);
	forget_ring(d);
}

int disk_ring(const struct disk *disk)
{
	return disk->ring ? disk_ring_file(disk->ring) : -1;
}

void disk_keep_to_threads(struct disk *disk)
{
	disk->threads_only = true;
}

int disk_start(struct disk *disk, void (*completed)(void *opaque), void *opaque)
{
	disk->completed = completed;
	disk->opaque = opaque;
	while (disk->threads < THREADS) {
		int error = sandbox_thread_create(&disk->thread[disk->threads], SANDBOX_DISK, disk_thread, disk);
		if (error)
			return error;
		disk->threads++;
	}
	start_ring(disk);
	return 0;
}

void disk_stop(struct disk *disk)
{
	pthread_mutex_lock(&disk->lock);
	disk->stop = true;
	pthread_cond_broadcast(&disk->work);
	pthread_mutex_unlock(&disk->lock);
	if (disk->ring) {
		disk_ring_wake(disk->ring);
		pthread_join(disk->ring_thread, NULL);
		forget_ring(disk);
	}
	while (disk->threads)
		pthread_join(disk->thread[--disk->threads], NULL);
}

void disk_close(struct disk *disk)
{
	if (!disk)
		return;
	image_close(disk->image);
	pthread_mutex_destroy(&disk->lock);
	pthread_cond_destroy(&disk->work);
	pthread_cond_destroy(&disk->idle);
	free(disk);
}
