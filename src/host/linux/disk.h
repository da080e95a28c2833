/* Disks of virtual machines: images (image.h), and the threads that read and write them (disk.c). */
#ifndef NADIR_HOST_LINUX_DISK_H
#define NADIR_HOST_LINUX_DISK_H

#include "dev/block.h"

#define DISKS_MAX 16

struct disk;
struct image;

/* What `--disk` says (disk_option.c): the keys are in the manual page. The image is opened and locked, the cable between it and a device
 * goes to `backend`. NULL after one sentence on stderr. */
struct disk *disk_open(const char *option, struct block_backend *backend);
/* The PCI device that the option asks for by slot=, 0 if it does not; -1 after one sentence on stderr. */
int disk_slot(const char *option);
/* A number from `first` on, one of `count`. */
bool slot_parse(const char *text, unsigned first, unsigned count, unsigned *slot);
/* Open its files for another process, which takes it by disk_open (passed_files.h); they stay open and locked with the calling process. 0, or -1 after one sentence
 * on stderr. */
struct passed_files;
int disk_prepare(const char *option, struct passed_files *files);
/* A CD-ROM drive with a file as its medium. */
struct disk *disk_open_cdrom(const char *path, struct block_backend *backend);
/* The same with an image, which belongs to the disk from then on. */
struct disk *disk_create(struct image *image, struct block_backend *backend);
/* No io_uring, though the kernel may have it. Before disk_start. */
void disk_keep_to_threads(struct disk *disk);
/* Start the disk's threads; `completed` is called by any of them, without locks, when requests are complete. 0 or an error number. Before the
 * process is confined. */
int disk_start(struct disk *disk, void (*completed)(void *opaque), void *opaque);
/* The file of its io_uring, or -1: its threads call io_uring_enter with that. */
int disk_ring(const struct disk *disk);
/* Finish what was submitted and end the threads. No more requests come. */
void disk_stop(struct disk *disk);
/* NULL is allowed. */
void disk_close(struct disk *disk);

#endif
