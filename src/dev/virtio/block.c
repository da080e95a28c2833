/* virtio block device (block.h): from buffers to requests and back. */
#include "dev/virtio/block.h"

#include "host/port.h"
#include "lib/string.h"

#define ID 2
#define CLASS 0x018000 /* mass storage, other */

#define F_SEG_MAX BIT(2)
#define F_RO BIT(5)
#define F_BLK_SIZE BIT(6)
#define F_FLUSH BIT(9)
#define F_CONFIG_WCE BIT(11)
#define F_MQ BIT(12)
#define F_DISCARD BIT(13)
#define F_WRITE_ZEROES BIT(14)

enum { STATUS_OK, STATUS_IO_ERROR, STATUS_UNSUPPORTED, PENDING = 255 };

#define ZERO_UNMAP 1u

struct header {
	u32 type, reserved;
	u64 sector;
};

/* What is discarded or zeroed. */
struct segment {
	u64 sector;
	u32 sectors, flags;
};
static_assert(offsetof(struct block_config, zero_may_unmap) == 56, "struct virtio_blk_config");
static_assert(sizeof(struct segment) == 16, "struct virtio_blk_discard_write_zeroes");

struct virtio_block_request {
	struct block_request request;
	struct virtq_chain chain; /* cut down to the data */
	u8 *status;
	gpa_t status_gpa;
	unsigned queue;
	u32 written; /* what the driver is told */
	struct virtio_block_request *idle;
};

#define POOL_SIZE ((sizeof(struct virtio_block_request) * BLOCK_REQUESTS_MAX + PAGE_SIZE - 1) & PAGE_MASK)

static struct virtio_block *block_of(struct virtio_device *device)
{
	return container_of(device, struct virtio_block, virtio);
}

/* ---- the pool ---- */

static struct virtio_block_request *take(struct virtio_block *b)
{
	struct virtio_block_request *r = b->idle;
	if (r)
		b->idle = r->idle;
	else if (b->fresh < BLOCK_REQUESTS_MAX)
		r = &b->request[b->fresh++];
	return r;
}

/* A read that failed, or that nobody waits for any more, may have written anything of its buffer. */
static void tell_touched(struct virtio_block *b, const struct virtio_block_request *r)
{
	for (unsigned i = r->chain.readable; r->request.kind == BLOCK_READ && i < r->chain.pieces; i++)
		ram_written(b->virtio.ram, r->chain.piece[i].gpa, r->chain.piece[i].size);
}

static void finish(struct virtio_block *b, struct virtio_block_request *r, u8 status)
{
	if (r->status) {
		*r->status = status;
		ram_written(b->virtio.ram, r->status_gpa, 1);
	}
	if (status != STATUS_OK) {
		tell_touched(b, r);
		r->written = r->status != NULL;
	}
	virtio_push(&b->virtio, r->queue, &r->chain, r->written);
	r->idle = b->idle;
	b->idle = r;
}

/* ---- requests: each begins one, and says its status or PENDING ---- */

/* "Device Operation": without VIRTIO_BLK_F_FLUSH the driver knows of no cache, and with F_CONFIG_WCE it can switch it off. */
static bool has_cache(const struct virtio_block *b)
{
	return virtio_has(&b->virtio, F_FLUSH) && (!virtio_has(&b->virtio, F_CONFIG_WCE) || b->config.writeback);
}

static u8 submit(struct virtio_block *b, struct virtio_block_request *r)
{
	b->count[r->request.kind].requests++;
	b->count[r->request.kind].bytes += r->request.size;
	r->request.durable = r->request.kind != BLOCK_READ && !has_cache(b);
	if (!b->backend.submit(b->backend.disk, &r->request))
		return PENDING;
	return r->request.error ? STATUS_IO_ERROR : STATUS_OK;
}

/* [sector, + size bytes) as the request's place; false if it is not within the disk. */
static bool place(const struct virtio_block *b, struct virtio_block_request *r, u64 sector, u64 size)
{
	u64 sectors = size / BLOCK_SECTOR;
	if (size % BLOCK_SECTOR || size > BLOCK_SIZE_MAX || sector > b->config.capacity || sectors > b->config.capacity - sector)
		return false;
	r->request.offset = sector * BLOCK_SECTOR;
	r->request.size = size;
	return true;
}

static u8 begin_read(struct virtio_block *b, struct virtio_block_request *r, u64 sector)
{
	u64 size = virtq_writable(&r->chain);
	r->request.kind = BLOCK_READ;
	r->request.piece = r->chain.piece + r->chain.readable;
	r->request.pieces = r->chain.pieces - r->chain.readable;
	if (!place(b, r, sector, size))
		return STATUS_IO_ERROR;
	r->written += (u32)size;
	return submit(b, r);
}

static u8 begin_write(struct virtio_block *b, struct virtio_block_request *r, u64 sector)
{
	r->request.kind = BLOCK_WRITE;
	r->request.piece = r->chain.piece;
	r->request.pieces = r->chain.readable;
	return place(b, r, sector, virtq_readable(&r->chain)) ? submit(b, r) : STATUS_IO_ERROR;
}

static u8 begin_flush(struct virtio_block *b, struct virtio_block_request *r, u64 sector)
{
	r->request.kind = BLOCK_FLUSH;
	return submit(b, r);
}

static u8 begin_get_id(struct virtio_block *b, struct virtio_block_request *r, u64 sector)
{
	u32 done = 0;
	for (unsigned i = r->chain.readable; i < r->chain.pieces && done < BLOCK_SERIAL_SIZE; i++) {
		u32 n = MIN(r->chain.piece[i].size, BLOCK_SERIAL_SIZE - done);
		memcpy(r->chain.piece[i].data, b->backend.serial + done, n);
		done += n;
	}
	r->written += done;
	return STATUS_OK;
}

static u8 begin_segment(struct virtio_block *b, struct virtio_block_request *r, enum block_kind kind, u32 flags)
{
	struct segment s;
	if (!virtq_take(&r->chain, &s, sizeof(s)) || virtq_readable(&r->chain))
		return STATUS_IO_ERROR; /* one at a time, as the configuration says */
	if (s.flags & ~flags)
		return STATUS_UNSUPPORTED;
	r->request.kind = kind;
	r->request.unmap = s.flags & ZERO_UNMAP;
	if (s.sectors > BLOCK_ZERO_MAX / BLOCK_SECTOR || !place(b, r, s.sector, (u64)s.sectors * BLOCK_SECTOR))
		return STATUS_IO_ERROR;
	return submit(b, r);
}

static u8 begin_discard(struct virtio_block *b, struct virtio_block_request *r, u64 sector)
{
	return begin_segment(b, r, BLOCK_DISCARD, 0);
}

static u8 begin_zero(struct virtio_block *b, struct virtio_block_request *r, u64 sector)
{
	return begin_segment(b, r, BLOCK_ZERO, ZERO_UNMAP);
}

/* "Device Operation": struct virtio_blk_req's type. */
static const struct {
	u32 type;
	bool changes;
	u8 (*begin)(struct virtio_block *b, struct virtio_block_request *r, u64 sector);
} kinds[] = {
	{ 0, false, begin_read },   { 1, true, begin_write },    { 4, false, begin_flush },
	{ 8, false, begin_get_id }, { 11, true, begin_discard }, { 13, true, begin_zero },
};

/* The status is the last byte that the device writes; the chain keeps the rest. */
static bool cut_status(struct virtio_block_request *r)
{
	r->status = NULL;
	r->written = 0;
	if (r->chain.pieces == r->chain.readable)
		return false;
	struct virtq_piece *last = &r->chain.piece[r->chain.pieces - 1];
	last->size--;
	r->status = last->data + last->size;
	r->status_gpa = last->gpa + last->size;
	r->written = 1;
	if (!last->size)
		r->chain.pieces--;
	return true;
}

static u8 begin(struct virtio_block *b, struct virtio_block_request *r)
{
	struct header header;
	r->request = (struct block_request){ 0 };
	if (!cut_status(r) || !virtq_take(&r->chain, &header, sizeof(header)))
		return STATUS_IO_ERROR;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (kinds[i].type != header.type)
			continue;
		return kinds[i].changes && b->backend.readonly ? STATUS_IO_ERROR : kinds[i].begin(b, r, header.sector);
	}
	return STATUS_UNSUPPORTED;
}

/* ---- what happens ---- */

static void notify(struct virtio_device *device, unsigned queue)
{
	struct virtio_block *b = block_of(device);
	for (unsigned i = 0; i < VIRTQ_SIZE_MAX; i++) {
		struct virtio_block_request *r = take(b);
		if (!r) {
			b->stalled |= BIT(queue);
			return;
		}
		if (!virtio_pop(device, queue, &r->chain)) {
			r->idle = b->idle;
			b->idle = r;
			return;
		}
		r->queue = queue;
		u8 status = begin(b, r);
		if (status != PENDING)
			finish(b, r, status);
		else
			b->submitted++;
	}
	device->again |= BIT(queue);
}

void virtio_block_completed(struct virtio_block *block)
{
	struct virtio_block *b = block;
	struct block_request *done;
	while ((done = b->backend.completed(b->backend.disk))) {
		b->submitted--;
		finish(b, container_of(done, struct virtio_block_request, request),
		       done->error ? STATUS_IO_ERROR : STATUS_OK);
	}
	b->virtio.again |= b->stalled;
	b->stalled = 0;
	if (virtio_due(&b->virtio))
		virtio_advance(&b->virtio);
}

/* The only field that the driver may write is the one byte that switches the cache. */
static void configure(struct virtio_device *device, u64 offset, unsigned size, u64 value)
{
	if (offset == offsetof(struct block_config, writeback) && size == 1 && virtio_has(device, F_CONFIG_WCE))
		block_of(device)->config.writeback = value & 1;
}

static void stop(struct virtio_device *device)
{
	struct virtio_block *b = block_of(device);
	struct block_request *done;
	b->backend.drain(b->backend.disk);
	while ((done = b->backend.completed(b->backend.disk)))
		tell_touched(b, container_of(done, struct virtio_block_request, request));
	b->idle = NULL;
	b->fresh = 0;
	b->submitted = 0;
	b->stalled = 0;
	b->config.writeback = 1;
}

static bool busy(const struct virtio_device *device)
{
	return container_of(device, struct virtio_block, virtio)->submitted;
}

/* ---- assembly ---- */

static void describe(struct virtio_block *b)
{
	b->config = (struct block_config){
		.capacity = b->backend.size / BLOCK_SECTOR,
		.seg_max = VIRTQ_PIECES_MAX - 2,
		.block_size = BLOCK_SECTOR,
		.writeback = 1,
		.queues = (u16)b->virtio.queues,
		.max_discard_sectors = BLOCK_ZERO_MAX / BLOCK_SECTOR,
		.max_discard_segments = 1,
		.discard_alignment = 4096 / BLOCK_SECTOR,
		.max_zero_sectors = BLOCK_ZERO_MAX / BLOCK_SECTOR,
		.max_zero_segments = 1,
		.zero_may_unmap = 1,
	};
	b->virtio.features = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_RING_PACKED | F_SEG_MAX | F_BLK_SIZE |
			     F_FLUSH | F_CONFIG_WCE | F_MQ;
	b->virtio.features |= b->backend.readonly ? F_RO : F_DISCARD | F_WRITE_ZEROES;
}

int virtio_block_attach(struct virtio_block *block, const struct block_backend *backend, unsigned cpus,
			struct pci_host *host, struct ram *ram, unsigned slot)
{
	struct virtio_device *v = &block->virtio;
	block->backend = *backend;
	block->request = host_table_create(POOL_SIZE);
	if (!block->request)
		return -1;
	v->id = ID;
	v->class_code = CLASS;
	v->name = "virtio-blk";
	v->state = &virtio_block_state;
	v->queues = MIN(cpus, VIRTIO_QUEUES_MAX);
	v->config = &block->config;
	v->config_size = offsetof(struct block_config, unused1) + sizeof(block->config.unused1);
	v->notify = notify;
	v->stop = stop;
	v->busy = busy;
	v->configure = configure;
	describe(block);
	return virtio_attach(v, host, ram, slot);
}

void virtio_block_destroy(struct virtio_block *block)
{
	if (block->request)
		host_table_destroy(block->request, POOL_SIZE);
}

/* ---- state: of a disk without requests in work (virtio_device.busy) ---- */

const struct state_table virtio_block_state = STATE_TABLE(struct virtio_block, NULL,
	STATE_IN(struct virtio_block, virtio, virtio_device_state), STATE_NONE(struct virtio_block, backend),
	STATE_SAME(struct virtio_block, config.capacity), STATE(struct virtio_block, config.writeback), STATE_NONE(struct virtio_block, config),
	STATE_NONE(struct virtio_block, request), STATE_NONE(struct virtio_block, idle), STATE_NONE(struct virtio_block, fresh), STATE_NONE(struct virtio_block, submitted), STATE_NONE(struct virtio_block, count),
	STATE(struct virtio_block, stalled));
