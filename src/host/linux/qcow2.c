/* qcow2 images (qcow2.h): what the guest asks for, cluster by cluster. */
#define _GNU_SOURCE
#include "host/linux/qcow2.h"

#include <errno.h>
#include <string.h>

#define FREED_MAX 4096u /* then clusters are made free, without waiting for a flush of the guest */
#define ZERO_PIECE 65536u

/* A part of a request: `count` parts of a vector with `size` bytes, at `guest`. */
struct part {
	struct iovec vector[IMAGE_VECTOR_MAX];
	unsigned count;
	u64 guest, size;
};

static u64 within(const struct qcow2 *q, u64 guest)
{
	return guest & (q->cluster_size - 1);
}

/* How much of [guest, + size) is in the first cluster. */
static u64 in_cluster(const struct qcow2 *q, u64 guest, u64 size)
{
	return MIN(size, q->cluster_size - within(q, guest));
}

static bool goes_on(const struct qcow2 *q, const struct qcow2_place *first, const struct qcow2_place *next, u64 distance)
{
	if (next->type != first->type || next->own != first->own || first->type == QCOW2_PACKED)
		return false;
	return first->type != QCOW2_DATA || next->offset == first->offset + distance;
}

/* The place of `guest`, and in *size how much of the request from there on lies in a row. */
static int find_run(struct qcow2 *q, u64 guest, u64 *size, struct qcow2_place *place, bool peek)
{
	struct qcow2_place next;
	u64 wanted = *size, run = in_cluster(q, guest, wanted);
	int error = qcow2_find(q, guest, place, peek);
	while (!error && run < wanted && !qcow2_find(q, guest + run, &next, peek) && goes_on(q, place, &next, within(q, guest) + run))
		run += in_cluster(q, guest + run, wanted - run);
	*size = run;
	return error;
}

/* ---- reading ---- */

static bool backing_at(const struct qcow2 *q, u64 guest)
{
	return q->backing && guest < q->backing->size;
}

/* What is behind the image; beyond its end are zeros. */
static int read_backing(struct qcow2 *q, const struct part *p)
{
	struct iovec slice[IMAGE_VECTOR_MAX];
	u64 there = backing_at(q, p->guest) ? MIN(p->size, q->backing->size - p->guest) : 0;
	vector_zero(slice, vector_slice(p->vector, p->count, there, p->size - there, slice));
	unsigned count = vector_slice(p->vector, p->count, 0, there, slice);
	return there ? q->backing->ops->read(q->backing, slice, count, p->guest, there) : 0;
}

static int read_place(struct qcow2 *q, const struct qcow2_place *place, const struct part *p)
{
	switch (place->type) {
	case QCOW2_NOTHING:
		return read_backing(q, p);
	case QCOW2_ZEROS:
		vector_zero(p->vector, p->count);
		return 0;
	case QCOW2_DATA:
		return q->file->ops->read(q->file, p->vector, p->count, place->offset + within(q, p->guest), p->size);
	case QCOW2_PACKED:
		return qcow2_read_packed(q, place->entry, p->vector, p->count, within(q, p->guest));
	}
	return -EIO;
}

static int qcow2_read(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	struct qcow2 *q = qcow2_of(image);
	struct qcow2_place place;
	struct part p;
	int error = 0;
	pthread_rwlock_rdlock(&q->use);
	for (u64 done = 0; done < size && !error; done += p.size) {
		p.guest = offset + done;
		p.size = size - done;
		pthread_mutex_lock(&q->lock);
		error = find_run(q, p.guest, &p.size, &place, false);
		pthread_mutex_unlock(&q->lock);
		p.count = vector_slice(vector, count, done, p.size, p.vector);
		error = error ? error : read_place(q, &place, &p);
	}
	pthread_rwlock_unlock(&q->use);
	return error;
}

/* Only what lies in a row, and whose place is known. */
static bool qcow2_try_read(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	struct qcow2 *q = qcow2_of(image);
	struct qcow2_place place;
	u64 run = size;
	bool done = false;
	if (pthread_rwlock_tryrdlock(&q->use))
		return false;
	bool found = !pthread_mutex_trylock(&q->lock);
	if (found) {
		found = !find_run(q, offset, &run, &place, true) && run == size;
		pthread_mutex_unlock(&q->lock);
	}
	if (found && place.type == QCOW2_ZEROS) {
		vector_zero(vector, count);
		done = true;
	} else if (found && place.type == QCOW2_DATA) {
		done = q->file->ops->try_read && q->file->ops->try_read(q->file, vector, count, place.offset + within(q, offset), size);
	} else if (found && place.type == QCOW2_NOTHING && q->backing && q->backing->size >= offset + size) {
		done = q->backing->ops->try_read && q->backing->ops->try_read(q->backing, vector, count, offset, size);
	}
	pthread_rwlock_unlock(&q->use);
	return done;
}

/* ---- writing: with the lock from here on ---- */

/* The entry of a cluster changes; what it referred to is not in use any more, but for `kept`. */
static int change_entry(struct qcow2 *q, u64 guest, const struct qcow2_place *old, u64 entry, u64 kept)
{
	struct qcow2_range freed = { old->offset, old->offset && old->offset != kept ? q->cluster_size : 0 };
	if (old->type == QCOW2_PACKED)
		freed = qcow2_packed_range(q, old->entry);
	int error = qcow2_set_entry(q, guest, entry);
	if (!error && freed.size)
		qcow2_free_later(q, freed.offset, freed.size);
	return error;
}

/* Read [from, to) of a cluster as it was into the bounce buffer. */
static int read_old(struct qcow2 *q, const struct qcow2_place *old, u64 cluster, u64 from, u64 to)
{
	struct part p = { .count = 1, .guest = cluster + from, .size = to - from };
	p.vector[0] = (struct iovec){ q->bounce + from, to - from };
	return from < to ? read_place(q, old, &p) : 0;
}

/* Write whole clusters, or a part of one and around it what it held before, to their new place. `blank`: it reads as zeros. */
static int write_new(struct qcow2 *q, const struct qcow2_place *old, u64 to, bool blank, const struct part *p)
{
	u64 head = within(q, p->guest), cluster = p->guest - head, tail = head + p->size;
	bool zeros = old->type == QCOW2_ZEROS || (old->type == QCOW2_NOTHING && !backing_at(q, cluster));
	struct iovec whole[IMAGE_VECTOR_MAX];
	if (p->size % q->cluster_size == 0 || (blank && zeros))
		return q->file->ops->write(q->file, p->vector, p->count, to + head, p->size);
	int error = read_old(q, old, cluster, 0, head);
	error = error ? error : read_old(q, old, cluster, tail, q->cluster_size);
	if (error)
		return error;
	whole[0] = (struct iovec){ q->bounce, head };
	memcpy(whole + 1, p->vector, p->count * sizeof(*p->vector));
	whole[p->count + 1] = (struct iovec){ q->bounce + tail, q->cluster_size - tail };
	return q->file->ops->write(q->file, whole, p->count + 2, to, q->cluster_size);
}

/* Clusters in a row, in the file too, for whole clusters of a request: how much of it they take, when the first is there. */
static u64 allocate_more(struct qcow2 *q, u64 to, u64 guest, u64 size)
{
	u64 taken = q->cluster_size;
	struct qcow2_place old;
	while (size - taken >= q->cluster_size && !qcow2_find(q, guest + taken, &old, false) && !old.own && qcow2_allocate_at(q, to + taken))
		taken += q->cluster_size;
	return taken;
}

/* Let entries refer to the clusters from `to` on. Those that none came to refer to are given back, unless they were `kept` by the entry. */
static int enter(struct qcow2 *q, u64 guest, u64 to, u64 size, bool kept)
{
	struct qcow2_place old;
	int error = 0;
	for (u64 done = 0; done < size; done += q->cluster_size) {
		error = error ? error : qcow2_find(q, guest + done, &old, false);
		error = error ? error : change_entry(q, guest + done, &old, (to + done) | QCOW2_COPIED, to + done);
		if (error && !kept)
			qcow2_give_back(q, to + done);
	}
	return error;
}

/* Write to a cluster that has no storage of its own yet, or to several. In p->size, how much was written. */
static int write_elsewhere(struct qcow2 *q, const struct qcow2_place *old, struct part *p, const struct iovec *vector, unsigned count, u64 skip)
{
	bool kept = old->type == QCOW2_ZEROS && old->own && old->offset;
	u64 to = old->offset, wanted = p->size, cluster = p->guest - within(q, p->guest);
	int error = kept ? 0 : qcow2_allocate(q, &to);
	if (error)
		return error;
	bool blank = to >= q->fresh;
	p->size = in_cluster(q, p->guest, wanted);
	if (p->size == q->cluster_size && !kept)
		p->size = allocate_more(q, to, p->guest, wanted);
	u64 taken = MAX(p->size, q->cluster_size);
	p->count = vector_slice(vector, count, skip, p->size, p->vector);
	error = write_new(q, old, to, blank, p);
	q->fresh = MAX(q->fresh, to + taken);
	if (!error)
		return enter(q, cluster, to, taken, kept);
	for (u64 done = 0; done < taken && !kept; done += q->cluster_size)
		qcow2_give_back(q, to + done);
	return error;
}

/* ---- writing, without the lock ---- */

/* Some of the request, from p->guest on; in p->size how much. */
static int write_some(struct qcow2 *q, struct part *p, const struct iovec *vector, unsigned count, u64 skip)
{
	struct qcow2_place place;
	u64 run = p->size;
	pthread_mutex_lock(&q->lock);
	int error = find_run(q, p->guest, &run, &place, false);
	bool in_place = place.type == QCOW2_DATA && place.own;
	if (!error && !in_place)
		error = write_elsewhere(q, &place, p, vector, count, skip);
	pthread_mutex_unlock(&q->lock);
	if (error || !in_place)
		return error;
	p->size = run;
	p->count = vector_slice(vector, count, skip, run, p->vector);
	return q->file->ops->write(q->file, p->vector, p->count, place.offset + within(q, p->guest), run);
}

/* Many clusters wait to be free: do not wait for the guest's flush. */
static int limit_freed(struct qcow2 *q, int error)
{
	pthread_mutex_lock(&q->lock);
	bool many = q->freed_count > FREED_MAX;
	pthread_mutex_unlock(&q->lock);
	return !error && many ? qcow2_flush(&q->image) : error;
}

static int qcow2_write(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	struct qcow2 *q = qcow2_of(image);
	struct part p = { 0 };
	int error = 0;
	pthread_rwlock_rdlock(&q->use);
	for (u64 done = 0; done < size && !error; done += p.size) {
		p.guest = offset + done;
		p.size = size - done;
		error = write_some(q, &p, vector, count, done);
	}
	pthread_rwlock_unlock(&q->use);
	return limit_freed(q, error);
}

/* ---- zeros ---- */

/* Let a whole cluster have no storage, or, without `unmap`, read as zeros. -EOPNOTSUPP: zeros must be written. With the lock. */
static int clear_cluster(struct qcow2 *q, u64 guest, bool unmap)
{
	struct qcow2_place old;
	int error = qcow2_find(q, guest, &old, false);
	if (error || (old.type == QCOW2_NOTHING && !backing_at(q, guest)) || (old.type == QCOW2_ZEROS && (!unmap || !old.offset)))
		return error;
	if (q->version > 2 && !unmap && old.type == QCOW2_DATA && old.own)
		return change_entry(q, guest, &old, old.entry | QCOW2_ZERO, old.offset);
	if (q->version > 2)
		return change_entry(q, guest, &old, QCOW2_ZERO, 0);
	return unmap && !backing_at(q, guest) ? change_entry(q, guest, &old, 0, 0) : -EOPNOTSUPP;
}

static int write_zeros(struct image *image, u64 offset, u64 size)
{
	static const u8 zeros[ZERO_PIECE];
	const struct iovec piece = { (void *)zeros, sizeof(zeros) };
	int error = 0;
	for (u64 done = 0; done < size && !error; done += ZERO_PIECE) {
		struct iovec vector;
		u64 n = MIN(size - done, ZERO_PIECE);
		error = qcow2_write(image, &vector, vector_slice(&piece, 1, 0, n, &vector), offset + done, n);
	}
	return error;
}

/* Zeros in a part of a cluster. */
static int zero_part(struct qcow2 *q, u64 offset, u64 size)
{
	struct qcow2_place place;
	pthread_mutex_lock(&q->lock);
	int error = qcow2_find(q, offset, &place, false);
	pthread_mutex_unlock(&q->lock);
	if (error || place.type == QCOW2_ZEROS || (place.type == QCOW2_NOTHING && !backing_at(q, offset)))
		return error;
	return write_zeros(&q->image, offset, size);
}

static int qcow2_zero(struct image *image, u64 offset, u64 size, bool unmap)
{
	struct qcow2 *q = qcow2_of(image);
	int error = 0;
	for (u64 n; size && !error; offset += n, size -= n) {
		n = in_cluster(q, offset, size);
		error = -EOPNOTSUPP;
		if (n == q->cluster_size) {
			pthread_mutex_lock(&q->lock);
			error = clear_cluster(q, offset, unmap);
			pthread_mutex_unlock(&q->lock);
		}
		if (error == -EOPNOTSUPP)
			error = zero_part(q, offset, n);
	}
	return limit_freed(q, error);
}

/* What was discarded reads as zeros, not as what is behind the image. Parts of clusters stay. */
static int qcow2_discard(struct image *image, u64 offset, u64 size)
{
	struct qcow2 *q = qcow2_of(image);
	int error = 0;
	pthread_mutex_lock(&q->lock);
	for (u64 n; size && !error; offset += n, size -= n) {
		struct qcow2_place place;
		n = in_cluster(q, offset, size);
		if (n < q->cluster_size)
			continue;
		error = qcow2_find(q, offset, &place, false);
		if (!error && place.type != QCOW2_NOTHING)
			error = clear_cluster(q, offset, true);
		error = error == -EOPNOTSUPP ? 0 : error;
	}
	pthread_mutex_unlock(&q->lock);
	return limit_freed(q, error);
}

/* ---- stable storage ---- */

static void free_clusters(struct qcow2 *q, u32 count)
{
	pthread_rwlock_wrlock(&q->use);
	pthread_mutex_lock(&q->lock);
	qcow2_free_now(q, count);
	pthread_mutex_unlock(&q->lock);
	pthread_rwlock_unlock(&q->use);
}

int qcow2_flush(struct image *image)
{
	struct qcow2 *q = qcow2_of(image);
	pthread_mutex_lock(&q->flushing);
	pthread_mutex_lock(&q->lock);
	u32 freed = q->freed_count;
	int error = qcow2_write_back(q);
	pthread_mutex_unlock(&q->lock);
	error = error ? error : qcow2_file_flush(q);
	if (!error && freed)
		free_clusters(q, freed);
	pthread_mutex_unlock(&q->flushing);
	return error;
}

const struct image_ops qcow2_ops = {
	.read = qcow2_read,
	.write = qcow2_write,
	.zero = qcow2_zero,
	.discard = qcow2_discard,
	.flush = qcow2_flush,
	.try_read = qcow2_try_read,
	.close = qcow2_close,
};
