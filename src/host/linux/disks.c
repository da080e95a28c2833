/* The disks of the one machine (disks.h). */
#include "host/linux/disks.h"

#include "dev/ahci.h"
#include "host/linux/sandbox.h"

#include <stdio.h>
#include <string.h>

static struct {
	struct disk *disk[DISKS_MAX];
	unsigned count, sata;
	void (*completed)(unsigned disk);
} all;

static int add(struct disk *disk, const struct block_backend *backend)
{
	if (!disk)
		return -1;
	all.disk[all.count++] = disk;
	all.sata += backend->bus != BLOCK_VIRTIO;
	if (all.sata <= AHCI_PORTS_MAX)
		return 0;
	fprintf(stderr, "nadir: there can be %d CD-ROMs and SATA disks at most; virtio disks can be more\n", AHCI_PORTS_MAX);
	return -1;
}

int disks_open(const struct run_options *options, struct block_backend *backend)
{
	const struct option_list *disk = &options->disk, *cdrom = &options->cdrom;
	if (disk->count + cdrom->count > DISKS_MAX) {
		fprintf(stderr, "nadir: there can be %d disks and CD-ROMs at most\n", DISKS_MAX);
		return -1;
	}
	for (unsigned i = 0; i < disk->count; i++, backend++)
		if (add(disk_open(disk->item[i], backend), backend) < 0)
			return -1;
	for (unsigned i = 0; i < cdrom->count; i++, backend++)
		if (add(disk_open_cdrom(cdrom->item[i], backend), backend) < 0)
			return -1;
	return (int)all.count;
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
