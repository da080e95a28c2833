/* Networks between the guests of the machine: each is an Ethernet switch, by its name, which learns who is where. A guest that does not fetch its frames
 * loses some, and keeps nobody waiting. Checksums and segmentation are the guests' own. */
#ifndef NADIR_HOST_METAL_LAN_H
#define NADIR_HOST_METAL_LAN_H

#include "dev/virtio/net.h"

#define LAN_NAME_MAX 32
#define LAN_PORTS_MAX 64 /* of all switches */

struct lan_port;

/* A port at the switch of this name. `ready` is called when something changed for it: on the thread that runs lan_work, without locks; true: again, soon.
 * Its cable goes to `backend`, but for the MAC address. NULL: there is no room. */
struct lan_port *lan_create(const char *name, bool (*ready)(void *opaque), void *opaque, struct net_backend *backend);
/* `ready` is not called any more when this returns; the back end may be called still, and reaches nobody. */
void lan_detach(struct lan_port *port);
/* Nor is the back end called any more. */
void lan_destroy(struct lan_port *port);
/* Call those that have something; true: there is more to do. lan_wait sleeps until there is. */
bool lan_work(void);
void lan_wait(void);

/* A MAC address as six bytes in hexadecimal with colons, of one station. False: it is none. */
bool lan_read_mac(const char *text, u8 *mac);

#endif
