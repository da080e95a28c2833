/* The disks of the one machine (disks.h). */
#include "host/linux/disks.h"

#include "dev/ahci.h"
#include "dev/map.h"
#include "host/linux/sandbox.h"

#include <stdio.h>
#include <string.h>

static struct {
	struct disk *disk[DISKS_MAX];
	const char *option[DISKS_MAX]; /* of those that the machine began with */
	bool reserved[DISKS_MAX];
	unsigned sata;
	void (*completed)(unsigned disk);
} all;

const char *disks_option(unsigned index)
{
	return all.option[index];
}

static int add(unsigned index, const char *option, struct disk *disk, const struct block_backend *backend)
{
	if (!disk)
		return -1;
	all.disk[index] = disk;
	all.option[index] = option;
	all.sata += backend->bus != BLOCK_VIRTIO;
	if (all.sata <= AHCI_PORTS_MAX)
		return 0;
	fprintf(stderr, "nadir: there can be %d CD-ROMs and SATA disks at most; virtio disks can be more\n", AHCI_PORTS_MAX);
	return -1;
}

/* Those that say where they want to be are there, the others fill up. */
static int reserve(const struct option_list *disk, int *place)
{
	for (unsigned i = 0; i < disk->count; i++) {
		int slot = disk_slot(disk->item[i]);
		place[i] = slot > 0 ? slot - PCI_SLOT_DISK : -1;
		if (slot < 0)
			return -1;
		if (slot && all.reserved[place[i]]) {
			fprintf(stderr, "nadir: --disk: slot=%d: another disk is there\n", slot);
			return -1;
		}
		if (slot)
			all.reserved[place[i]] = true;
	}
	return 0;
}

static unsigned next_place(void)
{
	unsigned i = 0;
	while (all.reserved[i])
		i++;
	all.reserved[i] = true;
	return i;
}

int disks_open(const struct run_options *options, struct block_backend *backend)
{
	const struct option_list *disk = &options->disk, *cdrom = &options->cdrom;
	int place[OPTION_LIST_MAX], count = 0;
	if (disk->count + cdrom->count > DISKS_MAX) {
		fprintf(stderr, "nadir: there can be %d disks and CD-ROMs at most\n", DISKS_MAX);
		return -1;
	}
	if (reserve(disk, place) < 0)
		return -1;
	for (unsigned i = 0; i < disk->count + cdrom->count; i++) {
		bool is_cdrom = i >= disk->count;
		const char *option = is_cdrom ? cdrom->item[i - disk->count] : disk->item[i];
		unsigned index = !is_cdrom && place[i] >= 0 ? (unsigned)place[i] : next_place();
		struct disk *opened = is_cdrom ? disk_open_cdrom(option, &backend[index]) : disk_open(option, &backend[index]);
		if (add(index, option, opened, &backend[index]) < 0)
			return -1;
		count = MAX(count, (int)index + 1);
	}
	return count;
}

static void completed(void *opaque)
{
	all.completed((unsigned)((struct disk **)opaque - all.disk));
}

static int start(unsigned index)
{
	int error = disk_start(all.disk[index], completed, &all.disk[index]);
	if (error)
		fprintf(stderr, "nadir: cannot start the threads of disk %u: %s\n", index, strerror(error));
	return error ? -1 : 0;
}

int disks_start(void (*told)(unsigned disk))
{
	all.completed = told;
	for (unsigned i = 0; i < DISKS_MAX; i++) {
		if (all.disk[i] && start(i) < 0)
			return -1;
		if (all.disk[i])
			sandbox_allow_ring(disk_ring(all.disk[i]));
	}
	return 0;
}

int disk_begin(unsigned index, const char *option, struct block_backend *backend)
{
	struct disk *disk = disk_open(option, backend);
	if (!disk)
		return -1;
	disk_keep_to_threads(disk);
	all.disk[index] = disk;
	if (backend->bus == BLOCK_VIRTIO && start(index) == 0)
		return 0;
	if (backend->bus != BLOCK_VIRTIO)
		fprintf(stderr, "nadir: --disk: bus=sata: only virtio disks can be added to a machine that runs\n");
	disk_end(index);
	return -1;
}

void disk_end(unsigned index)
{
	disk_stop(all.disk[index]);
	disk_close(all.disk[index]);
	all.disk[index] = NULL;
}

void disks_stop(void)
{
	for (unsigned i = 0; i < DISKS_MAX; i++)
		if (all.disk[i])
			disk_stop(all.disk[i]);
}

void disks_close(void)
{
	for (unsigned i = 0; i < DISKS_MAX; i++)
		disk_close(all.disk[i]);
}
