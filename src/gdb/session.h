/* A session with GDB: from bytes of a connection to a machine that stops, is looked at and goes on. GDB manual, appendix "GDB Remote Serial
 * Protocol"; all-stop mode, vCPUs are threads, numbered from 1.
 *
 * One thread of the host's calls everything here but the VM's config.debug_stopped, whose only duty is to make that thread call gdb_poll soon. It gives
 * bytes only while gdb_ready: a packet waits until the machine has stopped. Where one comes while it runs, that stops it, as in QEMU. */
#ifndef NADIR_GDB_SESSION_H
#define NADIR_GDB_SESSION_H

#include "gdb/registers.h"

struct gdb_session;

/* The connection. */
struct gdb_link {
	void (*send)(void *opaque, const void *data, size_t size);
	void *opaque;
};

/* A session with a VM that GDB takes for `architecture`. NULL: out of memory. */
struct gdb_session *gdb_create(struct vm *vm, enum gdb_architecture architecture, const struct gdb_link *link);
void gdb_destroy(struct gdb_session *session);

/* Somebody has connected: the machine stops. */
void gdb_connected(struct gdb_session *session);
/* The connection is gone: all points go, as soon as the machine has stopped for that; then it is as it was. Until gdb_idle nobody else may come. */
void gdb_disconnected(struct gdb_session *session);
bool gdb_idle(const struct gdb_session *session);

bool gdb_ready(const struct gdb_session *session);
void gdb_byte(struct gdb_session *session, u8 byte);
void gdb_poll(struct gdb_session *session);
/* The VM has ended with this status: the last word. */
void gdb_ended(struct gdb_session *session, int status);

#endif
