/* The PCI transport of virtio (device.h; Virtual I/O Device Specification 1.2, "Virtio Over PCI Bus"). One BAR holds the
 * four structures, a page each; another one MSI-X. */
#include "dev/virtio/device.h"

#include "lib/string.h"

#define VENDOR 0x1af4
#define DEVICE_BASE 0x1040 /* + virtio device ID */
#define REVISION 1

#define STATUS_FEATURES_OK 8
#define STATUS_DRIVER_OK 4
#define STATUS_NEEDS_RESET 64
#define ISR_QUEUE 1
#define ISR_CONFIG 2

#define BAR 0
#define BAR_MSIX 2
#define BAR_SIZE 0x4000u
#define NOTIFY_MULTIPLIER 4

enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI };
#define CAP_VENDOR 0x09
#define CAP_SIZE 16 /* struct virtio_pci_cap: id, next, length, type, BAR, id, 2 of padding, offset, length */
#define CAP_WINDOW_DATA 16

/* "Common configuration structure layout" */
struct common {
	u32 feature_select, features, driver_feature_select, driver_features;
	u16 config_vector, queues;
	u8 status, generation;
	u16 queue_select, size, vector, enable, notify_offset;
	u32 descriptors[2], driver[2], device[2];
};
static_assert(sizeof(struct common) == 56, "struct virtio_pci_common_cfg");

/* ---- interrupts ---- */

static void interrupt(struct virtio_device *d, u16 vector, u8 isr)
{
	if (msix_enabled(&d->msix)) {
		msix_signal(&d->msix, vector);
		return;
	}
	d->isr |= isr;
	pci_set_intx(&d->function, true);
}

static void need_reset(struct virtio_device *d)
{
	if (d->status & STATUS_NEEDS_RESET)
		return;
	d->status |= STATUS_NEEDS_RESET;
	if (d->status & STATUS_DRIVER_OK)
		interrupt(d, d->config_vector, ISR_CONFIG);
}

/* ---- what device models call ---- */

bool virtio_works(const struct virtio_device *device)
{
	return (device->status & STATUS_DRIVER_OK) && !(device->status & STATUS_NEEDS_RESET);
}

void virtio_config_changed(struct virtio_device *device)
{
	device->generation++;
	if (device->status & STATUS_DRIVER_OK)
		interrupt(device, device->config_vector, ISR_CONFIG);
}

bool virtio_pop(struct virtio_device *device, unsigned queue, struct virtq_chain *chain)
{
	struct virtq *q = &device->queue[queue];
	if (!virtio_works(device))
		return false;
	bool any = virtq_pop(q, chain);
	if (q->broken)
		need_reset(device);
	return any;
}

void virtio_push(struct virtio_device *device, unsigned queue, const struct virtq_chain *chain, u32 written)
{
	if (virtio_works(device) && virtq_push(&device->queue[queue], chain, written))
		interrupt(device, device->vector[queue], ISR_QUEUE);
}

void virtio_push_all(struct virtio_device *device, unsigned queue, const struct virtq_used *used, unsigned count)
{
	if (virtio_works(device) && virtq_push_all(&device->queue[queue], used, count))
		interrupt(device, device->vector[queue], ISR_QUEUE);
}

static void notify(struct virtio_device *d, unsigned queue)
{
	if (queue < d->queues && virtio_works(d) && d->queue[queue].enabled)
		d->notify(d, queue);
}

void virtio_advance(struct virtio_device *device)
{
	u32 again = device->again;
	device->again = 0;
	for (unsigned i = 0; i < device->queues; i++)
		if (again & BIT(i))
			notify(device, i);
}

/* ---- the common structure ---- */

static u64 offered(const struct virtio_device *d)
{
	return d->features | VIRTIO_F_VERSION_1;
}

static u32 half(u64 value, u32 select)
{
	return select < 2 ? (u32)(value >> (32 * select)) : 0;
}

static void fill_common(const struct virtio_device *d, struct common *c)
{
	*c = (struct common){
		.feature_select = d->feature_select,
		.features = half(offered(d), d->feature_select),
		.driver_feature_select = d->driver_feature_select,
		.driver_features = half(d->driver_features, d->driver_feature_select),
		.config_vector = d->config_vector,
		.queues = (u16)d->queues,
		.status = d->status,
		.generation = d->generation,
		.queue_select = d->queue_select,
	};
	if (d->queue_select >= d->queues)
		return;
	const struct virtq *q = &d->queue[d->queue_select];
	c->size = q->size;
	c->vector = d->vector[d->queue_select];
	c->enable = q->enabled;
	c->notify_offset = d->queue_select;
	memcpy(c->descriptors, &q->descriptors, 8);
	memcpy(c->driver, &q->driver, 8);
	memcpy(c->device, &q->device, 8);
}

static u64 common_read(const struct virtio_device *d, u64 offset, unsigned size)
{
	struct common c;
	u64 value = 0;
	fill_common(d, &c);
	if (offset + size <= sizeof(c))
		memcpy(&value, (const u8 *)&c + offset, size);
	return value;
}

/* Features are settled with FEATURES_OK, which shows only if the device takes them. */
static void write_status(struct virtio_device *d, u8 value)
{
	if (!value) {
		virtio_reset(d);
		return;
	}
	bool acceptable = !(d->driver_features & ~offered(d)) && (d->driver_features & VIRTIO_F_VERSION_1);
	if (!(d->status & STATUS_FEATURES_OK) && !acceptable)
		value &= (u8)~STATUS_FEATURES_OK;
	if (!((d->status | value) & STATUS_FEATURES_OK))
		value &= (u8)~STATUS_DRIVER_OK;
	bool starts = value & ~d->status & STATUS_DRIVER_OK;
	d->status |= value & (u8)~STATUS_NEEDS_RESET;
	if (starts && d->start)
		d->start(d);
}

static void write_driver_features(struct virtio_device *d, u32 value)
{
	unsigned shift = 32 * d->driver_feature_select;
	if (d->driver_feature_select >= 2 || (d->status & STATUS_FEATURES_OK))
		return;
	d->driver_features = (d->driver_features & ~(0xffffffffull << shift)) | (u64)value << shift;
}

static u16 checked_vector(const struct virtio_device *d, u64 value)
{
	return value < d->msix.vectors ? (u16)value : VIRTIO_NO_VECTOR;
}

static void enable_queue(struct virtio_device *d, struct virtq *q)
{
	q->packed = virtio_has(d, VIRTIO_F_RING_PACKED);
	q->event_index = virtio_has(d, VIRTIO_F_EVENT_IDX);
	if (!virtq_enable(q, d->ram))
		need_reset(d);
}

static void write_half(u64 *address, bool high, u32 value)
{
	memcpy((u8 *)address + (high ? 4 : 0), &value, sizeof(value));
}

static void write_queue(struct virtio_device *d, u64 offset, unsigned size, u64 value)
{
	if (d->queue_select >= d->queues)
		return;
	struct virtq *q = &d->queue[d->queue_select];
	if (offset == offsetof(struct common, vector) && size == 2)
		d->vector[d->queue_select] = checked_vector(d, value);
	if (q->enabled || q->broken)
		return;
	if (offset == offsetof(struct common, size) && size == 2)
		q->size = value <= VIRTQ_SIZE_MAX ? (u16)value : q->size;
	else if (offset == offsetof(struct common, enable) && size == 2 && value == 1)
		enable_queue(d, q);
	else if (offset >= offsetof(struct common, device) && size == 4)
		write_half(&q->device, offset & 4, (u32)value);
	else if (offset >= offsetof(struct common, driver) && size == 4)
		write_half(&q->driver, offset & 4, (u32)value);
	else if (offset >= offsetof(struct common, descriptors) && size == 4)
		write_half(&q->descriptors, offset & 4, (u32)value);
}
static_assert(offsetof(struct common, descriptors) % 8 == 0, "bit 2 of an offset tells the halves apart");

/* Fields are written whole; other writes have no effect. */
static void common_write(struct virtio_device *d, u64 offset, unsigned size, u64 value)
{
#define IS(field) (offset == offsetof(struct common, field) && size == sizeof(((struct common *)0)->field))
	if (offset >= sizeof(struct common) || offset % size)
		return;
	if (IS(feature_select))
		d->feature_select = (u32)value;
	else if (IS(driver_feature_select))
		d->driver_feature_select = (u32)value;
	else if (IS(driver_features))
		write_driver_features(d, (u32)value);
	else if (IS(config_vector))
		d->config_vector = checked_vector(d, value);
	else if (IS(status))
		write_status(d, (u8)value);
	else if (IS(queue_select))
		d->queue_select = (u16)value;
	else if (offset >= offsetof(struct common, size))
		write_queue(d, offset, size, value);
#undef IS
}

/* ---- the BAR ---- */

/* Reading it takes the interrupt. */
static u64 isr_read(struct virtio_device *d)
{
	u8 isr = d->isr;
	d->isr = 0;
	pci_set_intx(&d->function, false);
	return isr;
}

static u64 config_read(const struct virtio_device *d, u64 offset, unsigned size)
{
	u64 value = 0;
	if (offset < d->config_size)
		memcpy(&value, (const u8 *)d->config + offset, MIN(size, d->config_size - offset));
	return value;
}

/* The structures in the BAR, a page each, in this order. */
enum { PAGE_COMMON, PAGE_ISR, PAGE_DEVICE, PAGE_NOTIFY };

static u64 bar_read(void *device, u64 offset, unsigned size, u64 now)
{
	struct virtio_device *d = device;
	u64 at = offset & ~PAGE_MASK;
	switch (offset >> PAGE_SHIFT) {
	case PAGE_COMMON:
		return common_read(d, at, size);
	case PAGE_ISR:
		return at ? 0 : isr_read(d);
	case PAGE_DEVICE:
		return config_read(d, at, size);
	default:
		return 0;
	}
}

static void bar_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct virtio_device *d = device;
	u64 at = offset & ~PAGE_MASK;
	if (offset >> PAGE_SHIFT == PAGE_COMMON)
		common_write(d, at, size, value);
	else if (offset >> PAGE_SHIFT == PAGE_DEVICE && d->configure)
		d->configure(d, at, size, value);
	else if (offset >> PAGE_SHIFT == PAGE_NOTIFY)
		notify(d, (unsigned)(at / NOTIFY_MULTIPLIER));
}

/* BARs move while others look: who notifies a device that is just being moved must not mind where that goes. */
bool virtio_doorbell(struct virtio_device *device, gpa_t gpa, u64 now)
{
	u64 place = __atomic_load_n(&device->function.bar[BAR].place, __ATOMIC_RELAXED), at = gpa - place - ((u64)PAGE_NOTIFY << PAGE_SHIFT);
	return device->doorbell && place != PCI_NOWHERE && at < NOTIFY_MULTIPLIER * device->queues &&
	       device->doorbell(device, (unsigned)(at / NOTIFY_MULTIPLIER), now);
}

static const struct region_ops bar_ops = { .read = bar_read, .write = bar_write, .width = 4 };

/* ---- configuration space ---- */

/* Whether an access is one to the data of the window ("PCI configuration access capability"), and the window is one. */
static bool window_open(const struct virtio_device *d, unsigned offset, unsigned size, u32 *at, u32 *length)
{
	*at = pci_get(&d->function, d->window + 8, 4);
	*length = pci_get(&d->function, d->window + 12, 4);
	return offset < d->window + CAP_WINDOW_DATA + 4 && offset + size > d->window + CAP_WINDOW_DATA &&
	       pci_get(&d->function, d->window + 4, 1) == BAR && (*length == 1 || *length == 2 || *length == 4) &&
	       *at <= BAR_SIZE - *length && *at % *length == 0;
}

static void config_reading(void *opaque, unsigned offset, unsigned size, u64 now)
{
	struct virtio_device *d = opaque;
	u32 at, length;
	if (window_open(d, offset, size, &at, &length))
		pci_put(&d->function, d->window + CAP_WINDOW_DATA, length, (u32)bar_read(d, at, length, now));
}

static void config_written(void *opaque, unsigned offset, unsigned size, u64 now)
{
	struct virtio_device *d = opaque;
	u32 at, length;
	if (window_open(d, offset, size, &at, &length))
		bar_write(d, at, length, pci_get(&d->function, d->window + CAP_WINDOW_DATA, length), now);
	msix_config_written(&d->msix);
}

static unsigned add_structure(struct virtio_device *d, u8 type, unsigned page, u32 length, unsigned size)
{
	unsigned at = pci_add_capability(&d->function, CAP_VENDOR, size);
	if (!at)
		return 0;
	pci_put(&d->function, at + 2, 1, size);
	pci_put(&d->function, at + 3, 1, type);
	pci_put(&d->function, at + 4, 1, BAR);
	pci_put(&d->function, at + 8, 4, page << PAGE_SHIFT);
	pci_put(&d->function, at + 12, 4, length);
	return at;
}

/* The window is read and written by the guest: BAR, offset, length and data. */
static bool add_window(struct virtio_device *d)
{
	d->window = add_structure(d, CAP_PCI, 0, 0, CAP_SIZE + 4);
	if (!d->window)
		return false;
	pci_allow(&d->function, d->window + 4, 1, 0xff);
	for (unsigned at = 8; at < CAP_SIZE + 4; at += 4)
		pci_allow(&d->function, d->window + at, 4, 0xffffffff);
	return true;
}

static bool add_capabilities(struct virtio_device *d)
{
	unsigned notify_at = add_structure(d, CAP_NOTIFY, PAGE_NOTIFY, PAGE_SIZE, CAP_SIZE + 4);
	if (!notify_at)
		return false;
	pci_put(&d->function, notify_at + CAP_SIZE, 4, NOTIFY_MULTIPLIER);
	return add_structure(d, CAP_ISR, PAGE_ISR, 1, CAP_SIZE) &&
	       (!d->config_size || add_structure(d, CAP_DEVICE, PAGE_DEVICE, d->config_size, CAP_SIZE)) && add_window(d) &&
	       add_structure(d, CAP_COMMON, PAGE_COMMON, sizeof(struct common), CAP_SIZE);
}

/* ---- life ---- */

void virtio_reset(struct virtio_device *device)
{
	struct virtio_device *d = device;
	if (d->stop)
		d->stop(d);
	for (unsigned i = 0; i < d->queues; i++) {
		d->queue[i] = (struct virtq){ .size = VIRTQ_SIZE_MAX };
		d->vector[i] = VIRTIO_NO_VECTOR;
	}
	d->driver_features = 0;
	d->feature_select = d->driver_feature_select = 0;
	d->config_vector = VIRTIO_NO_VECTOR;
	d->queue_select = 0;
	d->status = d->isr = 0;
	d->again = 0;
	if (d->function.host)
		pci_set_intx(&d->function, false);
}

int virtio_attach(struct virtio_device *device, struct pci_host *host, struct ram *ram, unsigned slot)
{
	struct virtio_device *d = device;
	d->ram = ram;
	d->function.written = config_written;
	d->function.reading = config_reading;
	d->function.opaque = d;
	pci_function_init(&d->function, VENDOR, (u16)(DEVICE_BASE + d->id), d->class_code, REVISION);
	pci_put(&d->function, PCI_SUBSYSTEM_VENDOR, 2, VENDOR);
	pci_put(&d->function, PCI_SUBSYSTEM, 2, DEVICE_BASE + d->id);
	pci_put(&d->function, PCI_INTERRUPT_PIN, 1, 1);
	if (pci_add_bar(&d->function, BAR, PCI_BAR_MEM64, BAR_SIZE, d->name, &bar_ops, d) < 0 || !add_capabilities(d) ||
	    msix_add(&d->msix, &d->function, BAR_MSIX, d->queues + 1) < 0)
		return -1;
	virtio_reset(d);
	return pci_add(host, &d->function, slot, d->number);
}

/* ---- state ---- */

static bool loaded(void *object)
{
	struct virtio_device *d = object;
	for (unsigned i = 0; i < d->queues; i++)
		if (!virtq_loaded(&d->queue[i], d->ram))
			return false;
	return true;
}

const struct state_table virtio_device_state = STATE_TABLE(struct virtio_device, loaded,
	STATE_SAME(struct virtio_device, id), STATE_NONE(struct virtio_device, class_code), STATE_NONE(struct virtio_device, name),
	STATE_NONE(struct virtio_device, state), STATE_SAME(struct virtio_device, features), STATE_SAME(struct virtio_device, queues),
	STATE_NONE(struct virtio_device, number),
	STATE_NONE(struct virtio_device, config), STATE_NONE(struct virtio_device, config_size), STATE_NONE(struct virtio_device, notify),
	STATE_NONE(struct virtio_device, configure), STATE_NONE(struct virtio_device, start),
	STATE_NONE(struct virtio_device, stop), STATE_NONE(struct virtio_device, busy), STATE_NONE(struct virtio_device, doorbell), STATE_IN(struct virtio_device, function, pci_function_state),
	STATE_IN(struct virtio_device, msix, msix_state), STATE_NONE(struct virtio_device, ram),
	STATE_IN(struct virtio_device, queue, virtq_state), STATE(struct virtio_device, vector),
	STATE(struct virtio_device, driver_features), STATE(struct virtio_device, again), STATE(struct virtio_device, feature_select),
	STATE(struct virtio_device, driver_feature_select), STATE(struct virtio_device, config_vector),
	STATE(struct virtio_device, queue_select), STATE(struct virtio_device, status), STATE(struct virtio_device, isr), STATE(struct virtio_device, generation),
	STATE_NONE(struct virtio_device, window));
