/* The display and its keyboard over the network, by VNC: a process of its own speaks with clients (vnc_server.c), and a thread of the VMM's gives it
 * pictures and takes keys (vnc.c). The process has the sockets and the memory of the pictures and nothing else; the VMM sees no byte of a client's. */
#ifndef NADIR_HOST_LINUX_VNC_H
#define NADIR_HOST_LINUX_VNC_H

#include "vm/vm.h"

/* Listen at `where`, as --vnc names it, and make the process. Before guest memory is there. 0, or -1 after one sentence on stderr. */
int vnc_open(const char *where, bool confine);
/* Start the thread; 0, or an errno. Does nothing if vnc_open was not called. */
int vnc_start(struct vm *vm);
void vnc_stop(void);

/* ---- between the two ---- */

/* Messages, each a packet. From the process: keys, the pointer, and that a picture is wanted; to it: the picture is there, in the shared memory. */
enum vnc_kind { VNC_KEY, VNC_POINTER, VNC_WANTED, VNC_PICTURE };
struct vnc_message {
	u32 kind;
	u32 a, b, c; /* code, down; x, y, buttons (RFB's); none; width, height */
};

/* Listen where the option says: a socket, and the password that clients must know, of RFB_PASSWORD_MAX characters, empty if none. -1 after one sentence on
 * stderr (vnc_option.c). */
int vnc_listen(const char *option, char *password);
/* Say on stderr what is wrong with it; -1. */
int vnc_complain(const char *where, const char *why);

/* The life of the process. */
_Noreturn void vnc_serve(int vmm, int listening, const u32 *picture, const char *password /* may be NULL */, bool confine);

#endif
