/* The cable between a block device and an image. A request is carried out at once, by the vCPU's thread that submits it, if that does not
 * take long; else by one of the disk's threads.
 *
 * Waking a thread, and the sleeping vCPU after it, takes longer than a small transfer to or from the host's page cache. Reads can ask for no
 * waiting (RWF_NOWAIT), but file systems refuse this for writes. So a write is made at once as long as writes are found to be quick. After one that
 * was not, the next ones are watched; if one of these is slow because it had to wait, not because our thread lost its CPU, it is paid for
 * with a hundred times its duration, during which all writes go to the threads. Large transfers want several CPUs: they are made at once only
 * while a thread has something to do. */
#define _GNU_SOURCE
#include "host/linux/disk.h"

#include "host/linux/image.h"
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

struct disk {
	struct image *image;
	u64 writes_wait_until; /* host_now(): writes go to the threads. The submitting thread's, as are the next two. */
	unsigned watched; /* so many more writes */
	struct iovec vector[VIRTQ_PIECES_MAX];

	pthread_mutex_t lock; /* of all that follows */
	pthread_cond_t work, idle;
	struct block_request *first, **last; /* those that wait for a thread, oldest first */
	_Atomic unsigned unfinished; /* that wait, or are in a thread's hands; read without the lock by whom a guess is enough */
	struct block_request *done;
	bool told; /* `completed` was called, and has not yet found `done` empty */
	bool stop;
	void (*completed)(void *opaque); /* this and what follows: set by disk_start */
	void *opaque;
	pthread_t thread[THREADS];
	unsigned threads;
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
	if (r->kind > BLOCK_WRITE || r->durable || d->image->remote || (r->size > AT_ONCE_MAX && !d->unfinished))
		return false;
	bool (*try)(struct image *, const struct iovec *, unsigned, u64, u64) = r->kind == BLOCK_READ ? ops->try_read : ops->try_write;
	r->error = 0;
	if (try && try(d->image, d->vector, make_vector(r, d->vector), r->offset, r->size))
		return true;
	return r->kind == BLOCK_WRITE && write_at_once(d, r);
}

/* ---- the queue ---- */

/* With the lock. */
static void finish(struct disk *d, struct block_request *r)
{
	r->next = d->done;
	d->done = r;
	if (!--d->unfinished)
		pthread_cond_broadcast(&d->idle);
}

/* With the lock, which is let go meanwhile. */
static void run(struct disk *d, struct block_request *r, struct iovec *vector)
{
	pthread_mutex_unlock(&d->lock);
	r->error = carry_out_durably(d->image, r, vector);
	pthread_mutex_lock(&d->lock);
	finish(d, r);
	if (d->told)
		return;
	d->told = true;
	pthread_mutex_unlock(&d->lock);
	d->completed(d->opaque);
	pthread_mutex_lock(&d->lock);
}

static struct block_request *take(struct disk *d)
{
	struct block_request *r = d->first;
	d->first = r->next;
	if (!d->first)
		d->last = &d->first;
	return r;
}

static void *disk_thread(void *opaque)
{
	struct disk *d = opaque;
	struct iovec vector[VIRTQ_PIECES_MAX];
	pthread_mutex_lock(&d->lock);
	for (;;) {
		while (!d->first && !d->stop)
			pthread_cond_wait(&d->work, &d->lock);
		if (!d->first)
			break;
		run(d, take(d), vector);
	}
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

static bool disk_submit(void *disk, struct block_request *request)
{
	struct disk *d = disk;
	if (at_once(d, request))
		return true;
	pthread_mutex_lock(&d->lock);
	request->next = NULL;
	*d->last = request;
	d->last = &request->next;
	d->unfinished++;
	pthread_cond_signal(&d->work);
	pthread_mutex_unlock(&d->lock);
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
	while (d->first)
		finish(d, take(d));
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
	d->last = &d->first;
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

int disk_start(struct disk *disk, void (*completed)(void *opaque), void *opaque)
{
	disk->completed = completed;
	disk->opaque = opaque;
	while (disk->threads < THREADS) {
		int error = pthread_create(&disk->thread[disk->threads], NULL, disk_thread, disk);
		if (error)
			return error;
		disk->threads++;
	}
	return 0;
}

void disk_stop(struct disk *disk)
{
	pthread_mutex_lock(&disk->lock);
	disk->stop = true;
	pthread_cond_broadcast(&disk->work);
	pthread_mutex_unlock(&disk->lock);
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
