/* Networks of virtual machines: the option --net, and the thread that waits for frames (net.c). */
#ifndef NADIR_HOST_LINUX_NET_H
#define NADIR_HOST_LINUX_NET_H

#include "dev/virtio/net.h"
#include "host/linux/passed_files.h"
#include "vm/option.h"

#define NETS_MAX 8

/* Open network `index` as the option says: "user", "tap" or "switch", and what net.c's table of keys has for it. Before any thread is there, since
 * "user" forks. With `confine`, processes made here confine themselves. 0, or -1 after one sentence on stderr. The cable goes to `backend`,
 * and lives until nets_close. */
int net_open(unsigned index, const char *option, bool confine, struct net_backend *backend);

/* The PCI device that the option asks for by slot=, 0 if it does not; -1 after one sentence on stderr. */
int net_slot(const char *option);
/* Make what such a network needs, for another process that takes it by net_open (passed_files.h). 0, or -1 after one sentence on stderr. */
int net_prepare(const char *option, bool confine, struct passed_files *files);

/* Open those of the option --net (nets.c), the cables to `backend`, which has room for NETS_MAX and is zeroed. How many rows of it there are, of which some may be
 * empty, or -1 after one sentence on stderr. */
int nets_open(const struct option_list *net, bool confine, struct net_backend *backend);
/* The option of one that was opened so, or NULL. */
const char *nets_option(unsigned index);

/* Start the thread, if there are networks, or may be `more` later; `ready` is called by it, without locks, when vm_net_ready is due, and again while it gives true.
 * 0 or an error number. Before the process is confined. */
int nets_start(bool (*ready)(void *opaque, unsigned index), void *opaque, bool more);
/* A network that was opened since then: its files are watched from now on. 0 or -1. */
int net_begin(unsigned index);
/* Close one that nobody uses. */
void net_close(unsigned index);
void nets_stop(void);
void nets_close(void);

#endif
