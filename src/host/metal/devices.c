/* The disks and network cards of a guest (devices.h). */
#include "host/metal/devices.h"

#include "host/metal/disk.h"
#include "host/metal/lan.h"
#include "host/metal/pages.h"
#include "host/metal/words.h"
#include "lib/string.h"

#define CDROM_BLOCK 2048u

struct devices {
	struct vm *vm; /* NULL: not started */
	unsigned disks, nets;
	struct device_disk {
		struct disk *disk;
		char name[32];
	} disk[BOARD_DISKS_MAX];
	struct device_net {
		struct devices *all;
		unsigned index;
		struct lan_port *port;
	} net[BOARD_NETS_MAX];
	struct block_backend disk_backend[BOARD_DISKS_MAX];
	struct net_backend net_backend[BOARD_NETS_MAX];
	u32 work; /* counts calls of the disks' waker; the guest's thread for them sleeps there; atomic */
	bool stop; /* atomic */
	bool running; /* the thread has not ended; atomic */
};

#define fail(...) (host_snprintf(error, error_size, __VA_ARGS__), false)

/* ---- disks ---- */

struct disk_wishes {
	const char *path, *format, *serial, *bus, *media;
	bool readonly, snapshot;
};

static const struct word_key disk_keys[] = {
	{ "path", false, offsetof(struct disk_wishes, path) },	     { "format", false, offsetof(struct disk_wishes, format) },
	{ "serial", false, offsetof(struct disk_wishes, serial) },   { "bus", false, offsetof(struct disk_wishes, bus) },
	{ "media", false, offsetof(struct disk_wishes, media) },     { "readonly", true, offsetof(struct disk_wishes, readonly) },
	{ "snapshot", true, offsetof(struct disk_wishes, snapshot) },
};

static bool is_one_of(const char *value, const char *first, const char *second)
{
	return !value || string_equal(value, first) || string_equal(value, second);
}

static bool check_wishes(const struct disk_wishes *w, char *error, size_t error_size)
{
	if (!w->path)
		return fail("disk: no module is given; write path=MODULE");
	if (!is_one_of(w->format, "raw", "raw"))
		return fail("disk: '%s': the only format on the bare machine is raw", w->format);
	if (!w->snapshot)
		return fail("disk: snapshot: what is written is always gone at the end, on the bare machine");
	if (!is_one_of(w->bus, "virtio", "sata"))
		return fail("disk: '%s': bus is virtio or sata", w->bus);
	if (!is_one_of(w->media, "disk", "cdrom"))
		return fail("disk: '%s': media is disk or cdrom", w->media);
	if (w->serial && string_length(w->serial) > BLOCK_SERIAL_SIZE)
		return fail("disk: '%s': a serial number has 20 characters at most", w->serial);
	return true;
}

static bool open_disk(struct devices *d, const struct disk_wishes *w, const struct boot_info *info, char *error, size_t error_size)
{
	const struct boot_module *m = boot_info_find(info, w->path);
	bool cdrom = w->media && string_equal(w->media, "cdrom");
	unsigned unit = cdrom ? CDROM_BLOCK : BLOCK_SECTOR;
	if (d->disks == BOARD_DISKS_MAX)
		return fail("disk: there can be %d disks and CD-ROMs at most", BOARD_DISKS_MAX);
	if (!m)
		return fail("disk: there is no module '%s'", w->path);
	if (!m->size || m->size % unit)
		return fail("disk: the size of '%s' is not a multiple of %u bytes", w->path, unit);
	struct device_disk *disk = &d->disk[d->disks];
	struct block_backend *backend = &d->disk_backend[d->disks];
	disk->disk = disk_create(physical(m->base), m->size, w->readonly || cdrom, backend);
	if (!disk->disk)
		return fail("disk: there is no memory for '%s'", w->path);
	backend->bus = cdrom ? BLOCK_CDROM : w->bus && string_equal(w->bus, "sata") ? BLOCK_SATA : BLOCK_VIRTIO;
	if (w->serial)
		memcpy(backend->serial, w->serial, string_length(w->serial));
	host_snprintf(disk->name, sizeof(disk->name), "%s", w->path);
	d->disks++;
	return true;
}

/* ---- networks ---- */

struct net_wishes {
	const char *name, *mac;
};

static const struct word_key net_keys[] = { { "name", false, offsetof(struct net_wishes, name) }, { "mac", false, offsetof(struct net_wishes, mac) } };

static bool net_ready(void *opaque)
{
	const struct device_net *net = opaque;
	struct vm *vm = __atomic_load_n(&net->all->vm, __ATOMIC_SEQ_CST);
	return vm && vm_ended(vm) == VM_RUNNING && vm_net_ready(vm, net->index);
}

static bool open_net(struct devices *d, const struct net_wishes *w, char *error, size_t error_size)
{
	static const u8 prefix[] = { 0x52, 0x54, 0 }; /* addresses of nobody's, of those that virtual machines use */
	if (d->nets == BOARD_NETS_MAX)
		return fail("net: there can be %d network cards at most", BOARD_NETS_MAX);
	struct device_net *net = &d->net[d->nets];
	struct net_backend *backend = &d->net_backend[d->nets];
	*net = (struct device_net){ d, d->nets, NULL };
	net->port = lan_create(w->name ? w->name : "", net_ready, net, backend);
	if (!net->port)
		return fail("net: there is no room for another network card");
	d->nets++;
	memcpy(backend->mac, prefix, sizeof(prefix));
	host_random(backend->mac + sizeof(prefix), NET_MAC_SIZE - sizeof(prefix));
	if (w->mac && !lan_read_mac(w->mac, backend->mac))
		return fail("net: '%s' is not the address of one station, such as 52:54:00:12:34:56", w->mac);
	return true;
}

/* "switch", and words behind it. */
static bool add_net(struct devices *d, char *text, char *error, size_t error_size)
{
	static const char kind[] = "switch";
	struct net_wishes w = { 0 };
	size_t n = sizeof(kind) - 1;
	if (string_length(text) < n || memcmp(text, kind, n) || (text[n] && text[n] != ','))
		return fail("net: '%s': what the bare machine has is switch", text);
	return (!text[n] || words_read(text + n + 1, net_keys, ARRAY_SIZE(net_keys), &w, "net", error, error_size)) && open_net(d, &w, error, error_size);
}

static bool add_disk(struct devices *d, char *text, const struct boot_info *info, char *error, size_t error_size)
{
	struct disk_wishes w = { .snapshot = true };
	return words_read(text, disk_keys, ARRAY_SIZE(disk_keys), &w, "disk", error, error_size) && check_wishes(&w, error, error_size) &&
	       open_disk(d, &w, info, error, error_size);
}

/* ---- opening ---- */

/* A text that can be changed. What is left of it in wishes is copied before it goes. */
static char *copy_of(const char *text)
{
	size_t size = string_length(text) + 1;
	char *copy = host_alloc(size);
	return copy ? memcpy(copy, text, size) : NULL;
}

static bool open_all(struct devices *d, const struct guest_options *o, const struct boot_info *info, char *error, size_t error_size)
{
	const struct option_list *lists[] = { &o->disk, &o->net };
	for (unsigned kind = 0; kind < ARRAY_SIZE(lists); kind++) {
		for (unsigned i = 0; i < lists[kind]->count; i++) {
			char *text = copy_of(lists[kind]->item[i]);
			bool good = text && (kind ? add_net(d, text, error, error_size) : add_disk(d, text, info, error, error_size));
			host_free(text);
			if (!good)
				return text ? false : fail("out of memory");
		}
	}
	for (unsigned i = 0; i < o->cdrom.count; i++) {
		const struct disk_wishes w = { .path = o->cdrom.item[i], .media = "cdrom" };
		if (!open_disk(d, &w, info, error, error_size))
			return false;
	}
	return true;
}

struct devices *devices_open(const struct guest_options *options, const struct boot_info *info, struct board_backends *backends, char *error, size_t error_size)
{
	struct devices *d = host_alloc(sizeof(*d));
	if (!d) {
		host_snprintf(error, error_size, "out of memory");
		return NULL;
	}
	if (!open_all(d, options, info, error, error_size)) {
		devices_close(d);
		return NULL;
	}
	backends->disk = d->disk_backend;
	backends->disks = d->disks;
	backends->net = d->net_backend;
	backends->nets = d->nets;
	return d;
}

void devices_close(struct devices *d)
{
	if (!d)
		return;
	for (unsigned i = 0; i < d->disks; i++)
		disk_destroy(d->disk[i].disk);
	for (unsigned i = 0; i < d->nets; i++)
		lan_destroy(d->net[i].port);
	host_free(d);
}

/* ---- running ---- */

static void disk_waits(void *opaque)
{
	struct devices *d = opaque;
	__atomic_fetch_add(&d->work, 1, __ATOMIC_SEQ_CST);
	host_wake(&d->work);
}

/* The guest's thread for its disks. */
static void run_disks(void *opaque)
{
	struct devices *d = opaque;
	while (!__atomic_load_n(&d->stop, __ATOMIC_SEQ_CST)) {
		u32 work = __atomic_load_n(&d->work, __ATOMIC_SEQ_CST);
		for (unsigned i = 0; i < d->disks; i++)
			if (disk_work(d->disk[i].disk))
				vm_disk_completed(d->vm, i);
		host_wait(&d->work, work, HOST_NEVER);
	}
	__atomic_store_n(&d->running, false, __ATOMIC_SEQ_CST);
}

bool devices_start(struct devices *d, struct vm *vm, const struct thread_setup *setup)
{
	struct thread_setup own = *setup;
	char name[THREAD_NAME_MAX];
	__atomic_store_n(&d->vm, vm, __ATOMIC_SEQ_CST);
	if (!d->disks)
		return true;
	for (unsigned i = 0; i < d->disks; i++)
		disk_set_waker(d->disk[i].disk, disk_waits, d);
	host_snprintf(name, sizeof(name), "%s/disks", setup->name);
	own.name = name;
	own.run = run_disks;
	own.opaque = d;
	own.vector = false;
	d->running = true;
	d->running = thread_create(&own) != NULL;
	return d->running;
}

void devices_stop(struct devices *d)
{
	__atomic_store_n(&d->stop, true, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&d->running, __ATOMIC_SEQ_CST)) {
		disk_waits(d);
		thread_sleep_until(host_now() + 1000000);
	}
	for (unsigned i = 0; i < d->disks; i++)
		disk_set_waker(d->disk[i].disk, NULL, NULL);
	__atomic_store_n(&d->vm, NULL, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < d->nets; i++)
		lan_detach(d->net[i].port);
}

/* ---- what they did ---- */

void devices_report(const struct devices *d, void (*line)(void *opaque, const char *text), void *opaque)
{
	for (unsigned i = 0; i < d->disks && d->vm; i++) {
		struct block_count count[BLOCK_KINDS];
		char text[128];
		vm_disk_count(d->vm, i, count);
		host_snprintf(text, sizeof(text), "disk %-20s %10llu reads %8llu KiB %10llu writes %8llu KiB %8llu KiB kept", d->disk[i].name,
			      (unsigned long long)count[BLOCK_READ].requests, (unsigned long long)count[BLOCK_READ].bytes >> 10,
			      (unsigned long long)count[BLOCK_WRITE].requests, (unsigned long long)count[BLOCK_WRITE].bytes >> 10,
			      (unsigned long long)disk_written(d->disk[i].disk) >> 10);
		line(opaque, text);
	}
}
