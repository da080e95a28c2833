/* Networks of virtual machines: the option --net, and the thread that waits for frames (net.c). */
#ifndef NADIR_HOST_LINUX_NET_H
#define NADIR_HOST_LINUX_NET_H

#include "dev/virtio/net.h"

#define NETS_MAX 8

/* Open network `index` as the option says: "user", "tap" or "switch", and what net.c's table of keys has for it. Before any thread is there, since
 * "user" forks. With `confine`, processes made here confine themselves. 0, or -1 after one sentence on stderr. The cable goes to `backend`,
 * and lives until nets_close. */
int net_open(unsigned index, const char *option, bool confine, struct net_backend *backend);

/* Start the thread, if there are networks; `ready` is called by it, without locks, when vm_net_ready is due, and again while it gives true.
 * 0 or an error number. Before the process is confined. */
int nets_start(bool (*ready)(void *opaque, unsigned index), void *opaque);
void nets_stop(void);
void nets_close(void);

#endif
