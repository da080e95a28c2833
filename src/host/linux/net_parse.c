/* The values of --net: addresses, ports and what is made of them. */
#define _GNU_SOURCE
#include "host/linux/net_internal.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool parse_decimal(const char *text, unsigned long most, unsigned long *value)
{
	char *end;
	*value = strtoul(text, &end, 10);
	return isdigit((unsigned char)*text) && !*end && *value <= most;
}

/* "[ADDRESS]:PORT", cut in two. */
static bool parse_end(char *text, struct in_addr *address, u16 *port)
{
	unsigned long number;
	char *colon = strrchr(text, ':');
	if (!colon || !parse_decimal(colon + 1, 65535, &number) || !number)
		return false;
	*colon = 0;
	*port = (u16)number;
	address->s_addr = 0;
	return !*text || inet_pton(AF_INET, text, address) == 1;
}

int net_parse_forward(char *text, struct net_wishes *w)
{
	char copy[128], *rest = copy;
	struct net_forward *f = &w->forward[w->forwards];
	if (w->forwards == FORWARDS_MAX)
		return net_complain(text, "there are too many hostfwd");
	snprintf(copy, sizeof(copy), "%s", text);
	char *protocol = strsep(&rest, ":"), *host = strsep(&rest, "-");
	bool tcp = !strcmp(protocol, "tcp") || !*protocol;
	f->udp = !strcmp(protocol, "udp");
	f->text = text;
	if (strlen(text) >= sizeof(copy) || !host || !rest || (!tcp && !f->udp) || !parse_end(host, &f->host, &f->host_port) ||
	    !parse_end(rest, &f->guest, &f->guest_port))
		return net_complain(text, "hostfwd is tcp|udp:[ADDRESS]:PORT-[ADDRESS]:PORT, such as tcp:127.0.0.1:2222-:22");
	w->forwards++;
	return 0;
}

/* Room for the addresses .2, .3 and .15 is needed. */
int net_parse_network(char *text, struct net_wishes *w)
{
	unsigned long bits = 24;
	char *slash = strchr(text, '/');
	if (slash)
		*slash++ = 0;
	if (inet_pton(AF_INET, text, &w->network) != 1 || (slash && !parse_decimal(slash, 27, &bits)) || bits < 8)
		return net_complain(text, "net is an IPv4 network with 8 to 27 bits, such as 10.0.2.0/24");
	w->mask.s_addr = htonl(~0u << (32 - bits));
	w->network.s_addr &= w->mask.s_addr;
	return 0;
}

int net_parse_mac(const char *text, struct net_wishes *w)
{
	static const u8 none[NET_MAC_SIZE];
	w->mac_given = strlen(text) == 3 * NET_MAC_SIZE - 1;
	for (unsigned i = 0; w->mac_given && i < NET_MAC_SIZE; i++) {
		const char *digits = text + (size_t)3 * i;
		w->mac_given = isxdigit((unsigned char)digits[0]) && isxdigit((unsigned char)digits[1]) && (!digits[2] || digits[2] == ':');
		w->mac[i] = (u8)strtoul(digits, NULL, 16);
	}
	if (!w->mac_given)
		return net_complain(text, "mac is six bytes in hexadecimal, such as 52:54:00:12:34:56");
	if ((w->mac[0] & 1) || !memcmp(w->mac, none, sizeof(none)))
		return net_complain(text, "this is not the address of one station");
	return 0;
}
