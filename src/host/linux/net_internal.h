/* What the files of networks share: the wishes of one option, and how each kind makes a file of it. */
#ifndef NADIR_HOST_LINUX_NET_INTERNAL_H
#define NADIR_HOST_LINUX_NET_INTERNAL_H

#include "dev/virtio/net.h"

#include <netinet/in.h>

#define FORWARDS_MAX 32

/* A port of the host's that leads to one of the guest's. */
struct net_forward {
	bool udp;
	struct in_addr host, guest; /* guest: 0 is the address that DHCP gives first */
	u16 host_port, guest_port;
	const char *text;
};

struct net_wishes {
	const char *kind, *path, *interface;
	const char *tftp, *bootfile; /* the folder that is served; what DHCP tells to load from it; NULL: none */
	u8 mac[NET_MAC_SIZE];
	unsigned pairs; /* of queues, or 0 */
	unsigned slot; /* its PCI device, or 0 */
	bool mac_given, restricted, ipv6;
	bool confine;
	struct in_addr network, mask;
	struct net_forward forward[FORWARDS_MAX];
	unsigned forwards;
};

/* One sentence on stderr, and -1. */
int net_complain(const char *what, const char *why);
/* "tcp|udp:[ADDRESS]:PORT-[ADDRESS]:PORT" (net_parse.c) */
int net_parse_forward(char *text, struct net_wishes *w);
int net_parse_network(char *text, struct net_wishes *w);
int net_parse_mac(const char *text, struct net_wishes *w);

/* Start the process of a user-mode network (net_user.c). A connected socket for a stream of frames, or -1 after one sentence on stderr. */
int net_user_start(const struct net_wishes *w);
/* Connect to a switch (net_switch.c); likewise. */
int net_switch_connect(const char *path);
/* Without a word: -1, and errno. */
int net_connect_to(const char *path);

/* Start a process that connects to a switch again (net_keeper.c). A socket to it, or -1 after one sentence on stderr. Ask it once for each connection;
 * when there is one the socket is readable, and `take` gives it, or -1: not yet. */
int net_keeper_start(const char *path, bool confine);
bool net_keeper_ask(int keeper);
int net_keeper_take(int keeper);

/* What a new process does that is to have nothing of the VMM's, neither its files nor the terminal's signals, but for this file, which becomes
 * NET_DETACHED, and standard error. */
#define NET_DETACHED 3
bool net_detach(int fd, const char *name);
/* Attach to an existing tap interface (net_tap.c): a file that gives and takes frames with headers; likewise. */
int net_tap_open(const char *interface);
/* NET_OFFLOADS that its frames may come with. */
void net_tap_accept(int fd, u32 offloads);

/* Confine a process that does nothing but networking (net_sandbox.c): the switch, which needs no new sockets; a user-mode network, which makes those of
 * the internet and reads what is below /etc and /run; a keeper, which connects to Unix sockets; a relay, which uses them, too. 0 or negative. */
enum net_right { NET_MAY_SWITCH, NET_MAY_INTERNET, NET_MAY_CONNECT, NET_MAY_RELAY };
/* `folder` may be read, too, unless NULL. */
int net_sandbox_enter(enum net_right right, const char *folder);

#endif
