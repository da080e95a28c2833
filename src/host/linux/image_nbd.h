/* Images on other machines, or behind another process: a Network Block Device, by libnbd (image_nbd.c). */
#ifndef NADIR_HOST_LINUX_IMAGE_NBD_H
#define NADIR_HOST_LINUX_IMAGE_NBD_H

#include "host/linux/image.h"

/* Connect to the export that wish->path names: nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH. The connection is made here, once: when it
 * is lost, requests fail. NULL after one sentence on stderr. */
struct image *nbd_open(const struct image_wish *wish);

/* The sockets of all images that are open, on which the confined process must send and receive; how many. Constant from then on. */
unsigned nbd_sockets(const int **sockets);

#endif
