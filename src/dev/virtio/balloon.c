/* virtio balloon device (balloon.h). Pages that are named twice, or used again, harm nobody but the guest that does so: they read as zero. */
#include "dev/virtio/balloon.h"

#include "lib/string.h"

#define ID 5
#define CLASS 0x00ff00 /* no class of PCI's */

#define F_DEFLATE_ON_OOM BIT(2)
#define F_REPORTING BIT(5)

enum { INFLATE, DEFLATE, REPORT, QUEUES };

#define NUMBERS_MAX 256u /* page numbers of one buffer, as many as Linux puts there; of longer ones the rest is kept */
#define REPORTS_AT_ONCE 4u /* buffers, before others get the lock: each may have megabytes given back */

static struct virtio_balloon *balloon_of(struct virtio_device *device)
{
	return container_of(device, struct virtio_balloon, virtio);
}

/* Give [gpa, gpa + size) back, which is RAM at `data`. Engines that hold code of it must know that it changed. */
static void discard(struct virtio_balloon *b, u8 *data, gpa_t gpa, u64 size)
{
	b->discard(data, size);
	ram_written(b->virtio.ram, gpa, size);
}

/* ---- pages that the host asked for ---- */

/* A row of pages that is not given back yet. */
struct row {
	gpa_t gpa;
	u64 size;
};

static void give_row(struct virtio_balloon *b, struct row *row)
{
	u8 *data = row->size ? ram_pointer(b->virtio.ram, row->gpa, row->size) : NULL;
	if (data && !ram_find(b->virtio.ram, row->gpa)->readonly)
		discard(b, data, row->gpa, row->size);
	row->size = 0;
}

/* Numbers come in either order; each that goes on at one end of the row is added to it. */
static void add_page(struct virtio_balloon *b, struct row *row, u32 number)
{
	gpa_t gpa = (gpa_t)number << PAGE_SHIFT;
	bool after = row->size && gpa == row->gpa + row->size, before = row->size && gpa + PAGE_SIZE == row->gpa;
	bool inside = ram_find(b->virtio.ram, gpa) && (!row->size || ram_find(b->virtio.ram, gpa) == ram_find(b->virtio.ram, row->gpa));
	if ((!after && !before) || !inside) {
		give_row(b, row);
		*row = (struct row){ gpa, PAGE_SIZE };
		return;
	}
	row->gpa -= before ? PAGE_SIZE : 0;
	row->size += PAGE_SIZE;
}

static void inflate(struct virtio_balloon *b)
{
	u32 number[NUMBERS_MAX];
	unsigned count = (unsigned)MIN(virtq_readable(&b->chain) / sizeof(u32), NUMBERS_MAX);
	struct row row = { 0 };
	if (!virtq_take(&b->chain, number, count * (u32)sizeof(u32)))
		return;
	for (unsigned i = 0; i < count; i++)
		add_page(b, &row, number[i]);
	give_row(b, &row);
}

/* ---- pages that are free anyway ---- */

static void report(struct virtio_balloon *b)
{
	for (unsigned i = b->chain.readable; i < b->chain.pieces; i++) {
		const struct virtq_piece *p = &b->chain.piece[i];
		u64 skip = -p->gpa & (PAGE_SIZE - 1);
		u64 size = p->size > skip ? (p->size - skip) & PAGE_MASK : 0;
		if (size)
			discard(b, p->data + skip, p->gpa + skip, size);
		b->reported += size;
	}
}

/* ---- what happens ---- */

static void notify(struct virtio_device *device, unsigned queue)
{
	struct virtio_balloon *b = balloon_of(device);
	for (unsigned i = 0; i < REPORTS_AT_ONCE; i++) {
		if (!virtio_pop(device, queue, &b->chain))
			return;
		if (queue == INFLATE)
			inflate(b);
		if (queue == REPORT)
			report(b);
		virtio_push(device, queue, &b->chain, 0); /* pages that leave the balloon need nothing: they come when they are touched */
	}
	device->again |= BIT(queue);
}

static void configure(struct virtio_device *device, u64 offset, unsigned size, u64 value)
{
	struct virtio_balloon *b = balloon_of(device);
	u64 from = offsetof(struct balloon_config, actual);
	if (offset >= from && offset + size <= sizeof(b->config))
		memcpy((u8 *)&b->config + offset, &value, size);
}

void virtio_balloon_resize(struct virtio_balloon *balloon, u64 size)
{
	balloon->config.pages = (u32)(MIN(size, balloon->virtio.ram->memory_size) >> PAGE_SHIFT);
	virtio_config_changed(&balloon->virtio);
}

/* A driver that was reset has given everything back. */
static void stop(struct virtio_device *device)
{
	balloon_of(device)->config.actual = 0;
}

int virtio_balloon_attach(struct virtio_balloon *balloon, struct pci_host *host, struct ram *ram, unsigned slot)
{
	struct virtio_device *v = &balloon->virtio;
	v->id = ID;
	v->class_code = CLASS;
	v->name = "virtio-balloon";
	v->state = &virtio_balloon_state;
	v->features = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | F_DEFLATE_ON_OOM | (balloon->reporting ? F_REPORTING : 0);
	v->queues = balloon->reporting ? QUEUES : REPORT;
	v->config = &balloon->config;
	v->config_size = sizeof(balloon->config);
	v->configure = configure;
	v->notify = notify;
	v->stop = stop;
	return virtio_attach(v, host, ram, slot);
}

static const struct state_table config_state = STATE_TABLE(struct balloon_config, NULL,
	STATE(struct balloon_config, pages), STATE(struct balloon_config, actual));

const struct state_table virtio_balloon_state = STATE_TABLE(struct virtio_balloon, NULL,
	STATE_IN(struct virtio_balloon, virtio, virtio_device_state), STATE_NONE(struct virtio_balloon, discard),
	STATE_SAME(struct virtio_balloon, reporting), STATE_IN(struct virtio_balloon, config, config_state),
	STATE(struct virtio_balloon, reported), STATE_NONE(struct virtio_balloon, chain));
