/* The control queue of the virtio network device (net.h), and the filter that it sets: "Control Virtqueue". */
#include "dev/virtio/net_internal.h"

#include "lib/bytes.h"
#include "lib/string.h"

#define COMMANDS_AT_ONCE 16u
#define VLAN_TYPE 0x8100u
#define VLANS 4096u

enum { ACK_OK, ACK_ERROR };
/* Commands of class "receive mode", which are places in virtio_net.mode, too. */
enum { MODE_PROMISCUOUS, MODE_ALL_MULTICAST, MODE_ALL_UNICAST, MODE_NO_MULTICAST, MODE_NO_UNICAST, MODE_NO_BROADCAST };

/* ---- commands: each takes its data off the chain; false is an error ---- */

static bool set_mode(struct virtio_net *n, u8 command)
{
	u8 on;
	if (command >= ARRAY_SIZE(n->mode) || !virtq_take(&n->chain, &on, 1))
		return false;
	n->mode[command] = on != 0;
	return true;
}

/* A list of addresses behind its length. */
static bool take_macs(struct virtio_net *n, struct net_macs *macs)
{
	u32 count;
	if (!virtq_take(&n->chain, &count, sizeof(count)) || count > virtq_readable(&n->chain) / NET_MAC_SIZE)
		return false;
	macs->all = count > NET_MACS_MAX;
	macs->count = MIN(count, NET_MACS_MAX);
	for (unsigned i = 0; i < macs->count; i++)
		virtq_take(&n->chain, macs->mac[i], NET_MAC_SIZE);
	return virtq_take(&n->chain, NULL, (count - macs->count) * NET_MAC_SIZE);
}

static bool set_mac_table(struct virtio_net *n, u8 command)
{
	return take_macs(n, &n->unicast) && take_macs(n, &n->multicast);
}

static bool set_mac(struct virtio_net *n, u8 command)
{
	return virtq_take(&n->chain, n->mac, NET_MAC_SIZE);
}

static bool set_vlan(struct virtio_net *n, u8 command)
{
	u16 vlan;
	if (!virtq_take(&n->chain, &vlan, sizeof(vlan)) || vlan >= VLANS)
		return false;
	u64 bit = BIT(vlan % 64), *word = &n->vlans[vlan / 64];
	*word = command ? *word & ~bit : *word | bit;
	return true;
}

static bool set_offloads(struct virtio_net *n, u8 command)
{
	u64 features;
	if (!virtq_take(&n->chain, &features, sizeof(features)) || (features & ~n->virtio.driver_features))
		return false;
	net_accept(n, net_offloads_of(features, true));
	return true;
}

/* "Multiqueue": other pairs are left alone from the answer on. */
static bool set_pairs(struct virtio_net *n, u8 command)
{
	u16 pairs;
	if (!virtq_take(&n->chain, &pairs, sizeof(pairs)) || !pairs || pairs > n->config.queue_pairs)
		return false;
	n->pairs = pairs;
	net_flow_forget(n);
	if (n->rx_stalled) { /* a frame waits, perhaps for a queue that is not used any more */
		n->rx_stalled = 0;
		net_later(n, net_rx(0));
	}
	return true;
}

/* Class and commands [first, last] with the features they need. */
static const struct {
	u8 class, first, last;
	u64 feature;
	bool (*obey)(struct virtio_net *n, u8 command);
} commands[] = {
	{ 0, MODE_PROMISCUOUS, MODE_ALL_MULTICAST, F_CTRL_RX, set_mode },
	{ 0, MODE_ALL_UNICAST, MODE_NO_BROADCAST, F_CTRL_RX_EXTRA, set_mode },
	{ 1, 0, 0, F_CTRL_RX, set_mac_table },
	{ 1, 1, 1, F_CTRL_MAC_ADDR, set_mac },
	{ 2, 0, 1, F_CTRL_VLAN, set_vlan },
	{ 4, 0, 0, F_MQ, set_pairs },
	{ 5, 0, 0, F_GUEST_OFFLOADS, set_offloads },
};

static u8 obey(struct virtio_net *n)
{
	u8 what[2]; /* class, command */
	if (!virtq_take(&n->chain, what, sizeof(what)))
		return ACK_ERROR;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (commands[i].class == what[0] && commands[i].first <= what[1] && what[1] <= commands[i].last &&
		    virtio_has(&n->virtio, commands[i].feature))
			return commands[i].obey(n, what[1]) ? ACK_OK : ACK_ERROR;
	return ACK_ERROR;
}

void net_control(struct virtio_net *n)
{
	unsigned queue = net_control_queue(n);
	for (unsigned i = 0; i < COMMANDS_AT_ONCE; i++) {
		if (!virtio_pop(&n->virtio, queue, &n->chain))
			return;
		const struct virtq_piece *answer = n->chain.pieces > n->chain.readable ? &n->chain.piece[n->chain.readable] : NULL;
		u8 ack = obey(n);
		if (answer)
			*answer->data = ack;
		virtio_push(&n->virtio, queue, &n->chain, answer ? 1 : 0);
	}
	n->virtio.again |= BIT(queue);
}

void net_control_reset(struct virtio_net *n)
{
	memcpy(n->mac, n->config.mac, sizeof(n->mac));
	memset(n->mode, 0, sizeof(n->mode));
	memset(&n->unicast, 0, sizeof(n->unicast));
	memset(&n->multicast, 0, sizeof(n->multicast));
	memset(n->vlans, 0, sizeof(n->vlans));
	n->pairs = 1;
	net_flow_forget(n);
}

/* ---- the filter ---- */

static bool listed(const struct net_macs *macs, const u8 *mac)
{
	for (unsigned i = 0; i < macs->count; i++)
		if (!memcmp(macs->mac[i], mac, NET_MAC_SIZE))
			return true;
	return macs->all;
}

/* Without the feature, tags are the driver's business. */
static bool vlan_wanted(const struct virtio_net *n, const u8 *frame, u32 size)
{
	if (!virtio_has(&n->virtio, F_CTRL_VLAN) || size < 16 || (frame[12] << 8 | frame[13]) != VLAN_TYPE)
		return true;
	unsigned vlan = (unsigned)(frame[14] << 8 | frame[15]) % VLANS;
	return n->vlans[vlan / 64] >> (vlan % 64) & 1;
}

bool net_filter(const struct virtio_net *n, const u8 *frame, u32 size)
{
	static const u8 broadcast[NET_MAC_SIZE] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	if (n->mode[MODE_PROMISCUOUS] || !virtio_has(&n->virtio, F_CTRL_RX))
		return true; /* a driver that cannot set a filter gets everything */
	if (!vlan_wanted(n, frame, size))
		return false;
	if (!memcmp(frame, broadcast, NET_MAC_SIZE))
		return !n->mode[MODE_NO_BROADCAST];
	if (frame[0] & 1)
		return !n->mode[MODE_NO_MULTICAST] && (n->mode[MODE_ALL_MULTICAST] || listed(&n->multicast, frame));
	return !n->mode[MODE_NO_UNICAST] &&
	       (n->mode[MODE_ALL_UNICAST] || !memcmp(frame, n->mac, NET_MAC_SIZE) || listed(&n->unicast, frame));
}
