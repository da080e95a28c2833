/* Which pair of queues a frame from the network is for, when the driver uses several (net.h; "Automatic receive steering in multiqueue
 * mode"): the one that its connection was last sent by, so that both directions are one CPU's work. Connections nobody has sent by are spread
 * by their hash. */
#include "dev/virtio/net_internal.h"

#include "lib/bytes.h"
#include "lib/string.h"

#define TYPE 12 /* in the frame: of what follows */
#define NETWORK 14u
/* Numbers in network order, as this machine reads them. */
#define TYPE_IPV4 0x0008
#define TYPE_IPV6 0xdd86
#define FRAGMENT 0xff3f /* more follow, or an offset */
#define IPV4_SIZE 20u
#define IPV6_SIZE 40u
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17

/* Addresses of both sides, the same whoever sends. */
static u32 fold(const u8 *from, const u8 *to, unsigned size)
{
	u32 sum = 0;
	for (unsigned i = 0; i < size; i += 4)
		sum = sum * 31 + (get_u32(from + i) ^ get_u32(to + i));
	return sum;
}

/* The place of TCP's or UDP's header, or 0; what the addresses come to in *hash. */
static u32 find_transport(const u8 *frame, u32 size, u32 *hash)
{
	const u8 *ip = frame + NETWORK;
	u16 type = size >= NETWORK + IPV4_SIZE ? get_u16(frame + TYPE) : 0;
	if (type == TYPE_IPV4) {
		*hash = fold(ip + 12, ip + 16, 4);
		bool whole = !(get_u16(ip + 6) & FRAGMENT);
		return whole && (ip[9] == PROTOCOL_TCP || ip[9] == PROTOCOL_UDP) ? NETWORK + (ip[0] & 15u) * 4 : 0;
	}
	if (type == TYPE_IPV6 && size >= NETWORK + IPV6_SIZE) {
		*hash = fold(ip + 8, ip + 24, 16);
		return ip[6] == PROTOCOL_TCP || ip[6] == PROTOCOL_UDP ? NETWORK + IPV6_SIZE : 0;
	}
	return 0;
}

static u32 flow_of(const u8 *frame, u32 size)
{
	u32 hash = 0, transport = find_transport(frame, size, &hash);
	if (transport && transport + 4 <= size)
		hash = hash * 31 + (u32)(get_u16(frame + transport) ^ get_u16(frame + transport + 2));
	return (hash * 0x9e3779b1u) >> 24;
}
static_assert(NET_FLOWS == 256, "8 bits of a hash");

void net_flow_forget(struct virtio_net *n)
{
	memset(n->flow, NET_NO_PAIR, sizeof(n->flow));
}

void net_flow_sent(struct virtio_net *n, unsigned pair)
{
	u8 begin[NETWORK + 60 + 4]; /* up to the ports behind the longest header */
	u32 size = 0;
	for (unsigned i = 0; i < n->chain.readable && size < sizeof(begin); i++) {
		u32 more = MIN(n->chain.piece[i].size, (u32)sizeof(begin) - size);
		memcpy(begin + size, n->chain.piece[i].data, more);
		size += more;
	}
	n->flow[flow_of(begin, size)] = (u8)pair;
}

unsigned net_flow_pair(const struct virtio_net *n, const u8 *frame, u32 size)
{
	u32 flow = flow_of(frame, size);
	return n->flow[flow] < n->pairs ? n->flow[flow] : flow % n->pairs;
}
