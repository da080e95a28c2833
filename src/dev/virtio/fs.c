/* virtio file system device (fs.h): from buffers to requests and back. */
#include "dev/virtio/fs.h"

#include "host/port.h"
#include "lib/string.h"

#define ID 26
#define CLASS 0x018000 /* mass storage, other */

enum { QUEUE_HURRY, QUEUE_REQUESTS, QUEUES };

struct virtio_fs_request {
	struct fs_request request;
	struct virtq_chain chain;
	unsigned queue;
	struct virtio_fs_request *idle;
};

#define POOL_SIZE ((sizeof(struct virtio_fs_request) * FS_REQUESTS_MAX + PAGE_SIZE - 1) & PAGE_MASK)

static struct virtio_fs *fs_of(struct virtio_device *device)
{
	return container_of(device, struct virtio_fs, virtio);
}

/* ---- the pool ---- */

static struct virtio_fs_request *take(struct virtio_fs *f)
{
	struct virtio_fs_request *r = f->idle;
	if (r)
		f->idle = r->idle;
	else if (f->fresh < FS_REQUESTS_MAX)
		r = &f->request[f->fresh++];
	return r;
}

static void give(struct virtio_fs *f, struct virtio_fs_request *r)
{
	r->idle = f->idle;
	f->idle = r;
}

/* ---- requests ---- */

/* Whatever the back end says, no more was written than there was room for. */
static void finish(struct virtio_fs *f, struct virtio_fs_request *r)
{
	u64 room = virtq_writable(&r->chain);
	virtio_push(&f->virtio, r->queue, &r->chain, (u32)MIN(r->request.written, room));
	give(f, r);
}

static void submit(struct virtio_fs *f, struct virtio_fs_request *r, unsigned queue)
{
	r->queue = queue;
	r->request = (struct fs_request){
		.index = (unsigned)(r - f->request),
		.piece = r->chain.piece,
		.readable = r->chain.readable,
		.pieces = r->chain.pieces,
	};
	if (f->backend.submit(f->backend.share, &r->request))
		finish(f, r);
	else
		f->submitted++;
}

/* ---- what happens ---- */

static void notify(struct virtio_device *device, unsigned queue)
{
	struct virtio_fs *f = fs_of(device);
	for (unsigned i = 0; i < VIRTQ_SIZE_MAX; i++) {
		struct virtio_fs_request *r = take(f);
		if (!r) {
			f->stalled |= BIT(queue);
			return;
		}
		if (!virtio_pop(device, queue, &r->chain)) {
			give(f, r);
			return;
		}
		submit(f, r, queue);
	}
	device->again |= BIT(queue);
}

void virtio_fs_completed(struct virtio_fs *fs)
{
	struct virtio_fs *f = fs;
	struct fs_request *done;
	while ((done = f->backend.completed(f->backend.share))) {
		f->submitted--;
		finish(f, container_of(done, struct virtio_fs_request, request));
	}
	f->virtio.again |= f->stalled;
	f->stalled = 0;
	if (virtio_due(&f->virtio))
		virtio_advance(&f->virtio);
}

/* What nobody waits for any more may have been written all the same. */
static void stop(struct virtio_device *device)
{
	struct virtio_fs *f = fs_of(device);
	struct fs_request *done;
	f->backend.drain(f->backend.share);
	while ((done = f->backend.completed(f->backend.share)))
		for (unsigned i = done->readable; i < done->pieces; i++)
			ram_written(device->ram, done->piece[i].gpa, done->piece[i].size);
	f->idle = NULL;
	f->fresh = 0;
	f->submitted = 0;
	f->stalled = 0;
}

static bool busy(const struct virtio_device *device)
{
	return container_of(device, struct virtio_fs, virtio)->submitted;
}

/* ---- assembly ---- */

int virtio_fs_attach(struct virtio_fs *fs, const struct fs_backend *backend, struct pci_host *host, struct ram *ram, unsigned slot)
{
	struct virtio_device *v = &fs->virtio;
	fs->backend = *backend;
	fs->request = host_table_create(POOL_SIZE);
	if (!fs->request)
		return -1;
	fs->config.queues = QUEUES - 1;
	memcpy(fs->config.tag, backend->tag, sizeof(fs->config.tag));
	v->id = ID;
	v->class_code = CLASS;
	v->name = "virtio-fs";
	v->features = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
	v->queues = QUEUES;
	v->config = &fs->config;
	v->config_size = sizeof(fs->config);
	v->notify = notify;
	v->stop = stop;
	v->busy = busy;
	return virtio_attach(v, host, ram, slot);
}

void virtio_fs_destroy(struct virtio_fs *fs)
{
	if (fs->request)
		host_table_destroy(fs->request, POOL_SIZE);
}
