/* What a network card does for its driver, done here where the receiver of a frame does not (net_offload.c). Frames are in buffers of
 * their own, which nobody else changes. */
#ifndef NADIR_HOST_LINUX_NET_OFFLOAD_H
#define NADIR_HOST_LINUX_NET_OFFLOAD_H

#include "dev/virtio/net.h"

/* Where the parts of a TCP segment are. */
struct tcp_place {
	bool ipv6;
	u32 network, transport, data; /* offsets in the frame */
	u32 end;                      /* of the IP packet: what is behind it is padding */
};

/* Whether the frame is a whole TCP segment, not a fragment, without IPv6 extension headers. */
bool tcp_find(const u8 *frame, u32 size, struct tcp_place *place);
/* The sum of the pseudo header, as NET_NEEDS_CHECKSUM wants to find it in the segment. */
u16 tcp_pseudo_sum(const u8 *frame, const struct tcp_place *place);

/* Store the checksum that the header asks for, and clear the wish. False: the header does not fit the frame. */
bool offload_checksum(struct net_header *header, u8 *frame, u32 size);
/* Whether a receiver that accepts these NET_OFFLOADS can have the frame as it is. */
bool offload_accepted(const struct net_header *header, u32 offloads);
/* Make frames that ask for nothing, and give each to `emit`. `frame` is changed. False: the header does not fit the frame. */
bool offload_complete(const struct net_header *header, u8 *frame, u32 size, void (*emit)(void *opaque, u8 *frame, u32 size), void *opaque);
/* Cut an IPv4 packet that is larger than the MTU into fragments; false if that must not or cannot be. */
bool offload_fragment(const u8 *frame, u32 size, void (*emit)(void *opaque, u8 *frame, u32 size), void *opaque);

/* The value of the option "maximum segment size" of a SYN, or NULL. */
u8 *tcp_segment_size_option(u8 *frame, const struct tcp_place *place);

static inline u16 get_be16(const u8 *p)
{
	return (u16)(p[0] << 8 | p[1]);
}

static inline u32 get_be32(const u8 *p)
{
	return (u32)get_be16(p) << 16 | get_be16(p + 2);
}

static inline void put_be16(u8 *p, u32 value)
{
	p[0] = (u8)(value >> 8);
	p[1] = (u8)value;
}

static inline void put_be32(u8 *p, u32 value)
{
	put_be16(p, value >> 16);
	put_be16(p + 2, value);
}

#endif
