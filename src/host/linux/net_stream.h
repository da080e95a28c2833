/* A stream of Ethernet frames over a socket: between a virtual machine and the process of its user-mode network, or a switch (net_stream.c).
 *
 * A frame is preceded by its length, 32 bits in network order: what QEMU calls -netdev stream. Who can do more says so by a word with the
 * top bit set and the NET_OFFLOADS that it accepts; from there on each of its frames begins with a struct net_header, which the length
 * counts. It may say so again when that changes.
 *
 * The socket does not block. Not for several threads at once. */
#ifndef NADIR_HOST_LINUX_NET_STREAM_H
#define NADIR_HOST_LINUX_NET_STREAM_H

#include "dev/virtio/net.h"

#include <sys/uio.h>

#define STREAM_PIECES_MAX (VIRTQ_PIECES_MAX + 1)

struct stream {
	int fd;
	bool closed; /* the other side is gone, or talks nonsense: nothing comes, and what is sent is lost */
	u8 *in;      /* what was read: [in_begin, in_end) is still to be looked at */
	size_t in_begin, in_end;
	u8 *out; /* what waits to be written: [out_begin, out_end) */
	size_t out_begin, out_end, out_size;
	size_t out_most; /* with so much waiting no frame is taken */
	bool level; /* the owner is told as long as there is something to read: a short read need not be followed by one in vain */
	bool drained; /* the last read was short */
	bool headers_in; /* frames that come have headers */
	bool headers_out;
	u32 accepts; /* NET_OFFLOADS of the other side */
};

/* Take over a connected socket. False: no memory. */
bool stream_init(struct stream *s, int fd, size_t out_most);
/* The same stream over another connected socket: what was on its way is lost, and nothing is known of the other side. */
void stream_renew(struct stream *s, int fd);
/* Close the socket, and free the buffers. */
void stream_release(struct stream *s);

/* Say what frames may come with; from the first time on, frames are sent with headers. */
void stream_accept(struct stream *s, u32 offloads);
/* The next frame, with its header if headers_in; it stays until stream_next. NULL: none now. */
const u8 *stream_peek(struct stream *s, u32 *size);
void stream_next(struct stream *s);
/* Send a frame, which begins with its header if headers_out. False: there is no room now. Small ones may wait for stream_flush. */
bool stream_send(struct stream *s, const struct iovec *piece, unsigned pieces);
/* Write what waits. True: nothing waits any more. */
bool stream_flush(struct stream *s);

#endif
