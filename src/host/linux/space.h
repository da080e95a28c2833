/* What the parts of the Linux host's spaces ask of each other. space.c is the VMM's side of the port's spaces; space_server.c the process
 * that makes them; space_runtime.S what runs inside. */
#ifndef NADIR_HOST_LINUX_SPACE_H
#define NADIR_HOST_LINUX_SPACE_H

#include "host/port.h"

#define SPACE_SLOTS 128

/* Make spaces possible: choose the hole and start the server. To be called while the program has one thread and few files open. What goes
 * wrong is told by host_space_hole. */
void space_start(void);
/* The end of the server's socket that requests go to, for the sandbox; -1: there is none. */
int space_socket(void);

/* ---- space_hole.c ---- */

/* Choose and reserve the hole; 0: there is no room. */
u64 space_hole_choose(void);
/* An address in the hole to map `size` bytes of code at, with MAP_FIXED; NULL: no hole, or no room. */
void *space_hole_take(size_t size);
/* Returns false if `p` is not of the hole; otherwise unmaps it. */
bool space_hole_give(void *p, size_t size);

/* ---- space_server.c ---- */

enum space_operation { SPACE_CREATE, SPACE_KILL, SPACE_BREAK };

struct space_request {
	u32 operation, slot;
	/* SPACE_CREATE, which brings the files of SPACE_FILES along */
	u64 tables_size;
	u64 code, code_size;
	u64 pass[2]; /* struct space_answer */
	/* SPACE_BREAK */
	u64 breaks[HOST_SPACE_BREAKS];
	u32 breaks_count;
};

/* The server's answers to SPACE_CREATE and SPACE_BREAK are one byte: whether it was done. With that to SPACE_CREATE come these files. */
enum { SPACE_FILE_PROCESS, SPACE_FILE_RING, SPACE_REPLY_FILES };

enum { SPACE_FILE_RAM, SPACE_FILE_CODE, SPACE_FILES };

/* The server's life. `slots` is the object that the VMM and the spaces share, `shared` its mapping here. It sends one byte when it is
 * ready, and ends with the socket. */
_Noreturn void space_server(int socket, int slots, u8 *shared, u64 hole);

/* ---- space_filter.c ---- */

/* Confine the calling process to what the runtime of a space does, or to what the server and its children do until then. 0 or -1. */
int space_filter_enter(u64 hole, const u64 *pass);
int space_filter_enter_server(void);

#endif
