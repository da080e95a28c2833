/* Tap interfaces: frames to and from the host's own network, with headers, so that the host's kernel does what is left to do with them. */
#define _GNU_SOURCE
#include "host/linux/net_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int fail(int fd, const char *interface, const char *why)
{
	if (fd >= 0)
		close(fd);
	return net_complain(interface, why);
}

int net_tap_open(const char *interface)
{
	int size = sizeof(struct net_header), fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	if (fd < 0)
		return net_complain("/dev/net/tun", strerror(errno));
	if (strlen(interface) >= IFNAMSIZ || !if_nametoindex(interface))
		return fail(fd, interface, "there is no such interface; 'ip tuntap add NAME mode tap user $USER' makes one");
	memcpy(request.ifr_name, interface, strlen(interface));
	if (ioctl(fd, TUNSETIFF, &request) < 0)
		return fail(fd, interface,
			    errno == EPERM   ? "it belongs to another user, and using it needs CAP_NET_ADMIN"
			    : errno == EBUSY ? "it is in use"
			    : errno == EINVAL ? "it is not a tap interface with a single queue"
					      : strerror(errno));
	if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0)
		return fail(fd, interface, strerror(errno));
	return fd;
}

void net_tap_accept(int fd, u32 offloads)
{
	static const struct {
		u32 offload;
		unsigned flag;
	} rows[] = { { NET_CHECKSUM, TUN_F_CSUM }, { NET_TSO4, TUN_F_TSO4 }, { NET_TSO6, TUN_F_TSO6 }, { NET_ECN, TUN_F_TSO_ECN } };
	unsigned long flags = 0;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		flags |= offloads & rows[i].offload ? rows[i].flag : 0;
	ioctl(fd, TUNSETOFFLOAD, flags);
}
