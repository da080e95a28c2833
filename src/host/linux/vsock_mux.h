/* The host's ends of a guest's sockets: packets of virtio-vsock on one side, connected Unix sockets on the other ("Socket Device" of the Virtual I/O Device
 * Specification 1.2). A pure part of the process (vsock_server.c), which waits, reads packets and writes them.
 *
 * Both sides are told how much may be on its way: the guest may send VSOCK_ROOM bytes more than a program here has taken, and a program is not read while
 * the guest has no room. The guest is not to be trusted. */
#ifndef NADIR_HOST_LINUX_VSOCK_MUX_H
#define NADIR_HOST_LINUX_VSOCK_MUX_H

#include "dev/virtio/vsock.h"

#include <poll.h>

#define VSOCK_ROOM 0x40000u
#define VSOCK_CONNECTIONS_MAX 256u

struct vsock_mux;

/* `dial` gives a connected socket that does not block, for the host's port; or -1. NULL: no memory. */
struct vsock_mux *vsock_mux_create(u32 cid, int (*dial)(void *opaque, u32 port), void *opaque);
void vsock_mux_destroy(struct vsock_mux *mux);

/* A packet from the guest, with header.length bytes of payload. */
void vsock_mux_packet(struct vsock_mux *mux, const struct vsock_header *header, const u8 *payload);
/* The guest begins anew. */
void vsock_mux_reset(struct vsock_mux *mux);
/* A program of the host's has connected; it says "CONNECT PORT\n" first. Takes the descriptor over. */
void vsock_mux_accept(struct vsock_mux *mux, int fd);

/* The next packet for the guest; it stays until vsock_mux_next. NULL: none. */
const u8 *vsock_mux_peek(const struct vsock_mux *mux, u32 *size);
void vsock_mux_next(struct vsock_mux *mux);
/* So many wait that no more should be read from the guest. */
bool vsock_mux_full(const struct vsock_mux *mux);

/* What to wait for: up to VSOCK_CONNECTIONS_MAX entries; how many. Then what came of it. */
unsigned vsock_mux_wishes(struct vsock_mux *mux, struct pollfd *poll);
void vsock_mux_ready(struct vsock_mux *mux, const struct pollfd *poll);

#endif
