/* The networks that a machine begins with, from `--net` (net.h). */
#include "host/linux/net.h"

#include "dev/map.h"

#include <stdio.h>

static const char *options[NETS_MAX];
static bool reserved[NETS_MAX];

const char *nets_option(unsigned index)
{
	return options[index];
}

/* Those that say where they want to be are there, the others fill up. */
static int reserve(const struct option_list *net, int *place)
{
	for (unsigned i = 0; i < net->count; i++) {
		int slot = net_slot(net->item[i]);
		place[i] = slot > 0 ? slot - PCI_SLOT_NET : -1;
		if (slot < 0)
			return -1;
		if (slot && reserved[place[i]]) {
			fprintf(stderr, "nadir: --net: slot=%d: another network is there\n", slot);
			return -1;
		}
		if (slot)
			reserved[place[i]] = true;
	}
	return 0;
}

static unsigned next_place(void)
{
	unsigned i = 0;
	while (reserved[i])
		i++;
	reserved[i] = true;
	return i;
}

int nets_open(const struct option_list *net, bool confine, struct net_backend *backend)
{
	int place[OPTION_LIST_MAX], count = 0;
	if (net->count > NETS_MAX) {
		fprintf(stderr, "nadir: --net can be given %d times at most\n", NETS_MAX);
		return -1;
	}
	if (reserve(net, place) < 0)
		return -1;
	for (unsigned i = 0; i < net->count; i++) {
		unsigned index = place[i] >= 0 ? (unsigned)place[i] : next_place();
		if (net_open(index, net->item[i], confine, &backend[index]) < 0)
			return -1;
		options[index] = net->item[i];
		count = MAX(count, (int)index + 1);
	}
	return count;
}
