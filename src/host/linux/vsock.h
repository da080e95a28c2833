/* Sockets between programs in the guest and on this host (--vsock): the option, and the cable between the virtio device and the process that has the host's
 * ends (vsock_server.c). Each packet is one message of a socket between the two; a message of one byte begins anew. */
#ifndef NADIR_HOST_LINUX_VSOCK_H
#define NADIR_HOST_LINUX_VSOCK_H

#include "dev/virtio/vsock.h"

#define VSOCK_MESSAGE_MAX (sizeof(struct vsock_header) + VSOCK_PAYLOAD_MAX)

/* Open what the option says: cid=N,path=SOCKET. Starts the process, which with `confine` confines itself; before any thread is there. 0, or -1 after one
 * sentence on stderr. The cable goes to `backend`, and lives until vsock_close. */
int vsock_open(const char *option, bool confine, struct vsock_backend *backend);
/* Start the thread, if the option was given, that calls `ready` when vm_vsock_ready is due, without locks. 0 or an error number. Before confinement. */
int vsock_start(void (*ready)(void *opaque), void *opaque);
void vsock_stop(void);
void vsock_close(void);

/* Be the process: packets at `cable`, programs of this host at `listener`; programs of the guest reach "PATH_PORT". It says that it is ready by a message
 * of one byte, and ends when the cable does. */
struct vsock_server {
	int cable, listener;
	const char *path;
	u32 cid;
	bool confine;
};
_Noreturn void vsock_serve(const struct vsock_server *server);

#endif
