/* Disks in memory (disk.h). Small requests are carried out at once, by the vCPU that makes them. Large ones would keep the board's lock from others of the
 * VM, and the host's timers with them: they wait for a thread of the guest's own. */
#include "host/metal/disk.h"

#include "host/metal/pages.h"
#include "host/port.h"
#include "lib/bytes.h"
#include "lib/string.h"

#define AT_ONCE_MAX 65536u
#define ENOSPC 28
#define EIO 5
#define RESERVE_SHIFT 3 /* the last eighth of memory is not for what is written to disks */

struct disk {
	const u8 *image;
	u64 size;
	u8 **page; /* one of its own for each of the image that was written; `zeros` for one that was discarded; NULL: the image's */
	u64 own; /* how many */
	struct host_lock lock; /* of pages, and of what follows; inside the board's */
	struct block_request *first, **last; /* that wait for disk_work */
	struct block_request *done;
	unsigned unfinished;
	u32 finished; /* counts what disk_work has done; where drain sleeps */
	void (*wake)(void *opaque);
	void *opaque;
};

static u8 zeros[PAGE_SIZE];

/* ---- pages ---- */

static const u8 *page_to_read(const struct disk *d, u64 page)
{
	return d->page[page] ? d->page[page] : d->image + page * PAGE_SIZE;
}

static u8 *page_to_write(struct disk *d, u64 page)
{
	if (d->page[page] && d->page[page] != zeros)
		return d->page[page];
	u8 *own = pages_available() > pages_total() >> RESERVE_SHIFT ? host_pages_create(1) : NULL;
	if (!own)
		return NULL;
	if (!d->page[page])
		memcpy(own, d->image + page * PAGE_SIZE, MIN(PAGE_SIZE, d->size - page * PAGE_SIZE));
	d->page[page] = own;
	d->own++;
	return own;
}

static void clear_page(struct disk *d, u64 page)
{
	if (d->page[page] && d->page[page] != zeros) {
		host_pages_destroy(d->page[page], 1);
		d->own--;
	}
	d->page[page] = zeros;
}

/* ---- carrying out ---- */

/* Part of one page. */
static bool copy(struct disk *d, bool write, u64 offset, u8 *data, u64 size)
{
	u64 page = offset >> PAGE_SHIFT, within = offset & ~PAGE_MASK;
	if (!write) {
		memcpy(data, page_to_read(d, page) + within, size);
		return true;
	}
	u8 *own = page_to_write(d, page);
	if (own)
		memcpy(own + within, data, size);
	return own != NULL;
}

static int transfer(struct disk *d, const struct block_request *r)
{
	u64 offset = r->offset, end = r->offset + r->size;
	for (unsigned i = 0; i < r->pieces; i++) {
		u64 done = 0, size = MIN(r->piece[i].size, end - offset);
		while (done < size) {
			u64 step = MIN(size - done, PAGE_SIZE - (offset & ~PAGE_MASK));
			if (!copy(d, r->kind == BLOCK_WRITE, offset, r->piece[i].data + done, step))
				return -ENOSPC;
			done += step;
			offset += step;
		}
	}
	return 0;
}

/* Whole pages are given back; of others a discard leaves what it likes. */
static int clear(struct disk *d, const struct block_request *r)
{
	for (u64 offset = r->offset, end = r->offset + r->size, step; offset < end; offset += step) {
		u64 page = offset >> PAGE_SHIFT, within = offset & ~PAGE_MASK;
		step = MIN(end - offset, PAGE_SIZE - within);
		if (!within && offset + step == MIN(offset + PAGE_SIZE, d->size)) {
			clear_page(d, page);
			continue;
		}
		u8 *own = r->kind == BLOCK_ZERO && d->page[page] != zeros ? page_to_write(d, page) : NULL;
		if (own)
			memset(own + within, 0, step);
		else if (r->kind == BLOCK_ZERO && d->page[page] != zeros)
			return -ENOSPC;
	}
	return 0;
}

static int carry_out(struct disk *d, const struct block_request *r)
{
	if (r->kind == BLOCK_FLUSH)
		return 0;
	if (!range_within(r->offset, r->size, d->size))
		return -EIO;
	return r->kind == BLOCK_READ || r->kind == BLOCK_WRITE ? transfer(d, r) : clear(d, r);
}

/* ---- the queue ---- */

static bool submit(void *disk, struct block_request *r)
{
	struct disk *d = disk;
	host_lock(&d->lock);
	bool at_once = !d->unfinished && (r->size <= AT_ONCE_MAX || !d->wake);
	if (at_once) {
		r->error = carry_out(d, r);
	} else {
		r->next = NULL;
		*d->last = r;
		d->last = &r->next;
		d->unfinished++;
	}
	host_unlock(&d->lock);
	if (!at_once)
		d->wake(d->opaque);
	return at_once;
}

static struct block_request *take_first(struct disk *d)
{
	struct block_request *r = d->first;
	if (r) {
		d->first = r->next;
		if (!d->first)
			d->last = &d->first;
	}
	return r;
}

bool disk_work(struct disk *d)
{
	bool some = false;
	host_lock(&d->lock);
	for (struct block_request *r; (r = take_first(d)); some = true) {
		host_unlock(&d->lock);
		int error = carry_out(d, r); /* nothing else touches pages while something is unfinished */
		host_lock(&d->lock);
		r->error = error;
		r->next = d->done;
		d->done = r;
		d->unfinished--;
		__atomic_fetch_add(&d->finished, 1, __ATOMIC_SEQ_CST);
	}
	host_unlock(&d->lock);
	if (some)
		host_wake(&d->finished);
	return some;
}

static struct block_request *completed(void *disk)
{
	struct disk *d = disk;
	host_lock(&d->lock);
	struct block_request *r = d->done;
	if (r)
		d->done = r->next;
	host_unlock(&d->lock);
	return r;
}

static void drain(void *disk)
{
	struct disk *d = disk;
	for (;;) {
		u32 finished = __atomic_load_n(&d->finished, __ATOMIC_SEQ_CST);
		host_lock(&d->lock);
		for (struct block_request *r; (r = take_first(d)); d->unfinished--) {
			r->error = -EIO;
			r->next = d->done;
			d->done = r;
		}
		bool all = !d->unfinished;
		host_unlock(&d->lock);
		if (all)
			return;
		host_wait(&d->finished, finished, HOST_NEVER);
	}
}

/* ---- life ---- */

struct disk *disk_create(const u8 *image, u64 size, bool readonly, struct block_backend *backend)
{
	struct disk *d = host_alloc(sizeof(*d));
	u8 **page = host_alloc((size + PAGE_SIZE - 1) / PAGE_SIZE * sizeof(*page));
	if (!d || !page) {
		host_free(d);
		host_free(page);
		return NULL;
	}
	*d = (struct disk){ .image = image, .size = size, .page = page };
	d->last = &d->first;
	host_lock_init(&d->lock);
	*backend = (struct block_backend){ .submit = submit, .completed = completed, .drain = drain, .disk = d, .size = size, .readonly = readonly };
	return d;
}

void disk_destroy(struct disk *d)
{
	if (!d)
		return;
	for (u64 page = 0; page < (d->size + PAGE_SIZE - 1) / PAGE_SIZE; page++)
		if (d->page[page] != zeros)
			host_pages_destroy(d->page[page], 1);
	host_free(d->page);
	host_free(d);
}

u64 disk_written(const struct disk *d)
{
	return d->own * PAGE_SIZE;
}

void disk_set_waker(struct disk *d, void (*wake)(void *opaque), void *opaque)
{
	d->wake = wake;
	d->opaque = opaque;
}
