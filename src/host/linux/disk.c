/* Disks (disk.h): requests of virtual disks become reads and writes of files.
 *
 * What the page cache can take or give without waiting is done at once, by the thread that asks; everything else waits in one queue for a
 * few threads, which may be kept waiting by the host's disks as long as it takes. */
#define _GNU_SOURCE
#include "host/linux/disk.h"

#include "host/port.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define THREADS 4
#define ZERO_PIECE 65536u

struct disk {
	unsigned index;
	int fd;
	bool no_wait[2]; /* BLOCK_READ, BLOCK_WRITE: the file system knows RWF_NOWAIT. Submitting thread only. */
	unsigned running; /* requests in the threads' hands */
	struct block_request *done;
	bool told; /* `completed` was called, and has not yet found `done` empty */
};

/* All disks of the process. `lock` guards the queue and the last three fields of each disk. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t work, idle;
	struct job {
		struct disk *disk;
		struct block_request *request;
	} job[DISKS_MAX * BLOCK_REQUESTS_MAX];
	unsigned first, jobs;
	bool stop;
	pthread_t thread[THREADS];
	unsigned threads;
	struct disk disk[DISKS_MAX];
	unsigned disks;
	void (*completed)(void *opaque, unsigned index);
	void *opaque;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER };

/* ---- carrying out ---- */

static unsigned make_vector(const struct block_request *r, struct iovec *vector)
{
	for (unsigned i = 0; i < r->pieces; i++)
		vector[i] = (struct iovec){ r->piece[i].data, r->piece[i].size };
	return r->pieces;
}

/* Cut `n` bytes off the front. */
static void skip(struct iovec **vector, unsigned *count, size_t n)
{
	while (*count && n >= (*vector)->iov_len) {
		n -= (*vector)->iov_len;
		(*vector)++;
		(*count)--;
	}
	if (*count) {
		(*vector)->iov_base = (u8 *)(*vector)->iov_base + n;
		(*vector)->iov_len -= n;
	}
}

static int transfer(int fd, const struct block_request *r)
{
	struct iovec room[VIRTQ_PIECES_MAX], *vector = room;
	unsigned count = make_vector(r, room);
	for (u64 done = 0; done < r->size;) {
		off_t offset = (off_t)(r->offset + done);
		ssize_t n = r->kind == BLOCK_READ ? preadv(fd, vector, (int)count, offset) : pwritev(fd, vector, (int)count, offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO; /* the file was cut short */
		done += (u64)n;
		skip(&vector, &count, (size_t)n);
	}
	return 0;
}

/* The file system cannot do it in one go. */
static int write_zeros(int fd, u64 offset, u64 size)
{
	static const u8 zeros[ZERO_PIECE];
	while (size) {
		ssize_t n = pwrite(fd, zeros, MIN(size, sizeof(zeros)), (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		offset += (u64)n;
		size -= (u64)n;
	}
	return 0;
}

static int allocate(int fd, int mode, const struct block_request *r)
{
	int result;
	do
		result = r->size ? fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)r->offset, (off_t)r->size) : 0;
	while (result < 0 && errno == EINTR);
	return result < 0 ? -errno : 0;
}

static int zero(int fd, const struct block_request *r)
{
	int error = allocate(fd, r->unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, r);
	return error == -EOPNOTSUPP ? write_zeros(fd, r->offset, r->size) : error;
}

/* A file system that cannot give storage back keeps it: that is allowed. */
static int discard(int fd, const struct block_request *r)
{
	int error = allocate(fd, FALLOC_FL_PUNCH_HOLE, r);
	return error == -EOPNOTSUPP ? 0 : error;
}

static int flush(int fd)
{
	int result;
	do
		result = fdatasync(fd);
	while (result < 0 && errno == EINTR);
	return result < 0 ? -errno : 0;
}

static int carry_out(int fd, const struct block_request *r)
{
	int error = 0;
	switch (r->kind) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		error = transfer(fd, r);
		break;
	case BLOCK_FLUSH:
		return flush(fd);
	case BLOCK_DISCARD:
		error = discard(fd, r);
		break;
	case BLOCK_ZERO:
		error = zero(fd, r);
		break;
	}
	return !error && r->durable ? flush(fd) : error;
}

/* Try without waiting. False: nothing is settled, though part of it may have been done; it can be done again. */
static bool at_once(struct disk *d, struct block_request *r)
{
	if (r->kind > BLOCK_WRITE || r->durable || !d->no_wait[r->kind])
		return false;
	struct iovec vector[VIRTQ_PIECES_MAX];
	int count = (int)make_vector(r, vector);
	ssize_t n = r->kind == BLOCK_READ ? preadv2(d->fd, vector, count, (off_t)r->offset, RWF_NOWAIT)
					  : pwritev2(d->fd, vector, count, (off_t)r->offset, RWF_NOWAIT);
	if (n < 0 && errno == EOPNOTSUPP)
		d->no_wait[r->kind] = false;
	r->error = 0;
	return n >= 0 && (u64)n == r->size;
}

/* ---- the queue ---- */

static void put_done(struct disk *d, struct block_request *r)
{
	r->next = d->done;
	d->done = r;
}

static void run_job(struct job job)
{
	pthread_mutex_unlock(&pool.lock);
	job.request->error = carry_out(job.disk->fd, job.request);
	pthread_mutex_lock(&pool.lock);
	put_done(job.disk, job.request);
	if (!--job.disk->running)
		pthread_cond_broadcast(&pool.idle);
	if (job.disk->told)
		return;
	job.disk->told = true;
	pthread_mutex_unlock(&pool.lock);
	pool.completed(pool.opaque, job.disk->index);
	pthread_mutex_lock(&pool.lock);
}

static void *disk_thread(void *opaque)
{
	pthread_mutex_lock(&pool.lock);
	for (;;) {
		while (!pool.jobs && !pool.stop)
			pthread_cond_wait(&pool.work, &pool.lock);
		if (!pool.jobs)
			break;
		struct job job = pool.job[pool.first];
		pool.first = (pool.first + 1) % ARRAY_SIZE(pool.job);
		pool.jobs--;
		job.disk->running++;
		run_job(job);
	}
	pthread_mutex_unlock(&pool.lock);
	return NULL;
}

static bool disk_submit(void *disk, struct block_request *request)
{
	if (at_once(disk, request))
		return true;
	pthread_mutex_lock(&pool.lock);
	if (pool.jobs == ARRAY_SIZE(pool.job))
		host_panic("more requests for disks than the devices can have");
	pool.job[(pool.first + pool.jobs++) % ARRAY_SIZE(pool.job)] = (struct job){ disk, request };
	pthread_cond_signal(&pool.work);
	pthread_mutex_unlock(&pool.lock);
	return false;
}

static struct block_request *disk_completed(void *disk)
{
	struct disk *d = disk;
	pthread_mutex_lock(&pool.lock);
	struct block_request *r = d->done;
	if (r)
		d->done = r->next;
	else
		d->told = false;
	pthread_mutex_unlock(&pool.lock);
	return r;
}

/* Take a disk's requests out of the queue; the others keep their order. */
static void give_up(struct disk *d)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < pool.jobs; i++) {
		struct job job = pool.job[(pool.first + i) % ARRAY_SIZE(pool.job)];
		if (job.disk != d)
			pool.job[(pool.first + kept++) % ARRAY_SIZE(pool.job)] = job;
		else
			put_done(d, job.request);
	}
	pool.jobs = kept;
}

static void disk_drain(void *disk)
{
	struct disk *d = disk;
	pthread_mutex_lock(&pool.lock);
	give_up(d);
	while (d->running)
		pthread_cond_wait(&pool.idle, &pool.lock);
	pthread_mutex_unlock(&pool.lock);
}

/* ---- opening ---- */

struct wishes {
	char *path, *serial;
	bool readonly;
};

static int complain(const char *what, const char *why)
{
	fprintf(stderr, "nadir: --disk: %s: %s\n", what, why);
	return -1;
}

static int parse_readonly(const char *value, bool *readonly)
{
	*readonly = !strcmp(value, "on");
	return *readonly || !strcmp(value, "off") ? 0 : complain(value, "readonly is on or off");
}

/* One KEY=VALUE of the option. */
static int parse_word(char *word, struct wishes *w)
{
	char *value = strchr(word, '=');
	if (!value)
		return complain(word, "it is not of the form path=FILE[,readonly=on|off][,serial=TEXT]");
	*value++ = 0;
	if (!strcmp(word, "path"))
		w->path = value;
	else if (!strcmp(word, "readonly"))
		return parse_readonly(value, &w->readonly);
	else if (!strcmp(word, "serial"))
		w->serial = value;
	else
		return complain(word, "there is no such key; the keys are path, readonly and serial");
	return 0;
}

static int parse(char *text, struct wishes *w)
{
	char *rest = text;
	for (char *word = strsep(&rest, ","); word; word = strsep(&rest, ","))
		if (parse_word(word, w) < 0)
			return -1;
	if (!w->path || !*w->path)
		return complain("path", "no file is given; write path=FILE");
	if (w->serial && strlen(w->serial) > BLOCK_SERIAL_SIZE)
		return complain(w->serial, "a serial number has 20 characters at most");
	return 0;
}

static int find_size(int fd, const char *path, u64 *size)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return complain(path, strerror(errno));
	*size = (u64)st.st_size;
	if (S_ISBLK(st.st_mode) ? ioctl(fd, BLKGETSIZE64, size) < 0 : !S_ISREG(st.st_mode))
		return complain(path, S_ISDIR(st.st_mode) ? "it is a directory" : "it is neither a file nor a block device");
	if (!*size || *size % BLOCK_SECTOR)
		return complain(path, "its size is not a multiple of 512 bytes, as that of a raw disk image is; truncate -s %512 rounds it up");
	return 0;
}

static int open_file(const struct wishes *w, u64 *size)
{
	int fd = open(w->path, (w->readonly ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return complain(w->path, strerror(errno));
	if (flock(fd, (w->readonly ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0) {
		close(fd);
		return complain(w->path, errno == EWOULDBLOCK ? "it is in use by another virtual machine or as another disk" : strerror(errno));
	}
	if (find_size(fd, w->path, size) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

int disk_open(unsigned index, const char *option, struct block_backend *backend)
{
	struct wishes w = { 0 };
	u64 size;
	char *text = strdup(option);
	int fd = text && !parse(text, &w) ? open_file(&w, &size) : -1;
	if (fd >= 0) {
		pool.disk[index] = (struct disk){ .index = index, .fd = fd, .no_wait = { true, true } };
		pool.disks = index + 1;
		*backend = (struct block_backend){ .submit = disk_submit,
						   .completed = disk_completed,
						   .drain = disk_drain,
						   .disk = &pool.disk[index],
						   .size = size,
						   .readonly = w.readonly };
		memcpy(backend->serial, w.serial ? w.serial : "", w.serial ? strlen(w.serial) : 0);
	}
	free(text);
	return fd < 0 ? -1 : 0;
}

/* ---- life ---- */

int disks_start(void (*completed)(void *opaque, unsigned index), void *opaque)
{
	pool.completed = completed;
	pool.opaque = opaque;
	while (pool.disks && pool.threads < THREADS) {
		int error = pthread_create(&pool.thread[pool.threads], NULL, disk_thread, NULL);
		if (error)
			return error;
		pool.threads++;
	}
	return 0;
}

void disks_stop(void)
{
	pthread_mutex_lock(&pool.lock);
	pool.stop = true;
	pthread_cond_broadcast(&pool.work);
	pthread_mutex_unlock(&pool.lock);
	for (unsigned i = 0; i < pool.threads; i++)
		pthread_join(pool.thread[i], NULL);
	pool.threads = 0;
}

void disks_close(void)
{
	for (unsigned i = 0; i < pool.disks; i++)
		close(pool.disk[i].fd);
	pool.disks = 0;
}
