/* Checksums, segmentation and fragmentation (net_offload.h). RFC 1071 "Computing the Internet Checksum", RFC 791, RFC 8200, RFC 9293. */
#include "host/linux/net_offload.h"

#include <string.h>

#define ETHERNET 14u
#define TYPE_IPV4 0x0800u
#define TYPE_IPV6 0x86ddu
#define TYPE_VLAN 0x8100u
#define IPV4_HEADER 20u
#define IPV6_HEADER 40u
#define PROTOCOL_TCP 6u
#define TCP_HEADER 20u
#define IPV4_FRAGMENT 0x3fffu /* MF and offset */
#define IPV4_DF 0x4000u
#define IPV4_MF 0x2000u

#define SEGMENT_MIN 32u /* Linux asks for 48 at least; less would only make work */

enum { FIN = 1, SYN = 2, PSH = 8, CWR = 0x80 };
enum { OPTION_END, OPTION_NOTHING, OPTION_SEGMENT_SIZE };

/* ---- sums ---- */

static u64 add_up(const u8 *p, size_t size)
{
	u64 low = 0, high = 0;
	for (; size >= 8; p += 8, size -= 8) {
		u64 word;
		memcpy(&word, p, 8);
		low += (u32)word;
		high += word >> 32;
	}
	u64 last = 0;
	memcpy(&last, p, size);
	return low + high + (u32)last + (last >> 32);
}

/* In network order, like what was summed up. */
static u16 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (u16)sum;
}

static void store_sum(u8 *p, u16 sum)
{
	memcpy(p, &sum, sizeof(sum));
}

u16 tcp_pseudo_sum(const u8 *frame, const struct tcp_place *place)
{
	u8 tail[8] = { 0 };
	put_be32(tail, place->end - place->transport);
	put_be32(tail + 4, PROTOCOL_TCP);
	const u8 *addresses = frame + place->network + (place->ipv6 ? 8 : 12);
	return fold(add_up(addresses, place->ipv6 ? 32 : 8) + add_up(tail, sizeof(tail)));
}

bool offload_checksum(struct net_header *header, u8 *frame, u32 size)
{
	if (!(header->flags & NET_NEEDS_CHECKSUM))
		return true;
	u32 start = header->checksum_start, at = start + header->checksum_offset;
	if (at + 2 > size)
		return false;
	u16 sum = (u16)~fold(add_up(frame + start, size - start));
	store_sum(frame + at, sum ? sum : 0xffff);
	header->flags &= (u8)~NET_NEEDS_CHECKSUM;
	return true;
}

static void store_ip_sum(u8 *ip)
{
	store_sum(ip + 10, 0);
	store_sum(ip + 10, (u16)~fold(add_up(ip, 4 * (ip[0] & 15u))));
}

/* ---- looking into frames ---- */

/* The Ethernet type, and where its payload begins. */
static u32 payload_type(const u8 *frame, u32 size, u32 *payload)
{
	*payload = ETHERNET;
	if (size < ETHERNET)
		return 0;
	if (get_be16(frame + 12) != TYPE_VLAN || size < ETHERNET + 4)
		return get_be16(frame + 12);
	*payload += 4;
	return get_be16(frame + 16);
}

static bool find_ipv4(const u8 *ip, u32 left, struct tcp_place *place)
{
	u32 header = 4 * (ip[0] & 15u), length = get_be16(ip + 2);
	if (header < IPV4_HEADER || length < header || length > left || ip[9] != PROTOCOL_TCP || (get_be16(ip + 6) & IPV4_FRAGMENT))
		return false;
	place->ipv6 = false;
	place->transport = place->network + header;
	place->end = place->network + length;
	return true;
}

static bool find_ipv6(const u8 *ip, u32 left, struct tcp_place *place)
{
	u32 length = get_be16(ip + 4);
	if (left < IPV6_HEADER || length > left - IPV6_HEADER || ip[6] != PROTOCOL_TCP)
		return false;
	place->ipv6 = true;
	place->transport = place->network + IPV6_HEADER;
	place->end = place->transport + length;
	return true;
}

bool tcp_find(const u8 *frame, u32 size, struct tcp_place *place)
{
	u32 type = payload_type(frame, size, &place->network);
	if (size < place->network + IPV4_HEADER)
		return false;
	const u8 *ip = frame + place->network;
	u32 left = size - place->network;
	bool found = type == TYPE_IPV4 && ip[0] >> 4 == 4   ? find_ipv4(ip, left, place)
		     : type == TYPE_IPV6 && ip[0] >> 4 == 6 ? find_ipv6(ip, left, place)
							    : false;
	if (!found || place->end - place->transport < TCP_HEADER)
		return false;
	u32 header = 4 * (frame[place->transport + 12] >> 4u);
	place->data = place->transport + header;
	return header >= TCP_HEADER && place->data <= place->end;
}

u8 *tcp_segment_size_option(u8 *frame, const struct tcp_place *place)
{
	u8 *option = frame + place->transport + TCP_HEADER, *end = frame + place->data;
	if (!(frame[place->transport + 13] & SYN))
		return NULL;
	while (option < end && *option != OPTION_END) {
		u32 length = *option == OPTION_NOTHING ? 1 : end - option >= 2 ? option[1] : 0;
		if (!length || length > (u32)(end - option) || (length < 2 && *option != OPTION_NOTHING))
			return NULL;
		if (*option == OPTION_SEGMENT_SIZE)
			return length == 4 ? option + 2 : NULL;
		option += length;
	}
	return NULL;
}

/* ---- segmentation ---- */

bool offload_accepted(const struct net_header *header, u32 offloads)
{
	u32 wanted = header->flags & NET_NEEDS_CHECKSUM ? NET_CHECKSUM : 0;
	u32 type = header->gso_type & ~NET_GSO_ECN;
	wanted |= header->gso_type & NET_GSO_ECN ? NET_ECN : 0;
	wanted |= type == NET_GSO_TCPV4 ? NET_TSO4 : type == NET_GSO_TCPV6 ? NET_TSO6 : 0;
	return !(wanted & ~offloads);
}

/* Make the headers of one segment of `data` bytes, of which `before` went before it, true. */
static void finish_segment(u8 *frame, const struct tcp_place *whole, u32 data, u32 before, bool last)
{
	struct tcp_place place = *whole;
	place.end = place.data + data;
	u8 *ip = frame + place.network, *tcp = frame + place.transport;
	if (place.ipv6) {
		put_be16(ip + 4, place.end - place.transport);
	} else {
		put_be16(ip + 2, place.end - place.network);
		store_ip_sum(ip);
	}
	put_be32(tcp + 4, get_be32(tcp + 4) + before);
	if (!last)
		tcp[13] &= (u8) ~(FIN | PSH);
	if (before)
		tcp[13] &= (u8)~CWR;
	store_sum(tcp + 16, tcp_pseudo_sum(frame, &place));
	store_sum(tcp + 16, (u16)~fold(add_up(tcp, place.end - place.transport)));
}

static bool segment(const struct net_header *header, u8 *frame, u32 size, void (*emit)(void *opaque, u8 *frame, u32 size), void *opaque)
{
	static u8 one[NET_FRAME_MAX];
	struct tcp_place place;
	if (header->gso_size < SEGMENT_MIN || !tcp_find(frame, size, &place))
		return false;
	u16 id = place.ipv6 ? 0 : get_be16(frame + place.network + 4);
	u32 all = place.end - place.data;
	for (u32 before = 0; before < all; before += header->gso_size) {
		u32 data = MIN(header->gso_size, all - before);
		memcpy(one, frame, place.data);
		memcpy(one + place.data, frame + place.data + before, data);
		if (!place.ipv6)
			put_be16(one + place.network + 4, id++);
		finish_segment(one, &place, data, before, before + data == all);
		emit(opaque, one, place.data + data);
	}
	return true;
}

bool offload_complete(const struct net_header *header, u8 *frame, u32 size, void (*emit)(void *opaque, u8 *frame, u32 size), void *opaque)
{
	struct net_header h = *header;
	if (h.gso_type != NET_GSO_NONE)
		return segment(&h, frame, size, emit, opaque);
	if (!offload_checksum(&h, frame, size))
		return false;
	emit(opaque, frame, size);
	return true;
}

/* ---- fragmentation ---- */

bool offload_fragment(const u8 *frame, u32 size, void (*emit)(void *opaque, u8 *frame, u32 size), void *opaque)
{
	u8 one[ETHERNET + 4 + NET_MTU];
	u32 network;
	if (payload_type(frame, size, &network) != TYPE_IPV4 || size < network + IPV4_HEADER)
		return false;
	const u8 *ip = frame + network;
	u32 header = 4 * (ip[0] & 15u), length = get_be16(ip + 2), flags = get_be16(ip + 6);
	if (header < IPV4_HEADER || length < header || network + length > size || (flags & IPV4_DF))
		return false;
	u32 most = (NET_MTU - header) & ~7u, all = length - header;
	for (u32 done = 0; done < all; done += most) {
		u32 data = MIN(most, all - done);
		memcpy(one, frame, network + header);
		memcpy(one + network + header, ip + header + done, data);
		put_be16(one + network + 2, header + data);
		put_be16(one + network + 6, (flags + done / 8) | (done + data < all ? IPV4_MF : 0));
		store_ip_sum(one + network);
		emit(opaque, one, network + header + data);
	}
	return true;
}
