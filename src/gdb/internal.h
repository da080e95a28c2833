/* What the files of a session share. */
#ifndef NADIR_GDB_INTERNAL_H
#define NADIR_GDB_INTERNAL_H

#include "gdb/session.h"

#define GDB_POINTS 64
#define GDB_XML_MAX 32768u
#define GDB_MONITOR_MAX 262144u

#define GDB_ERROR_ARGUMENT 0x16 /* EINVAL */
#define GDB_ERROR_MEMORY 0x0e /* EFAULT */
#define GDB_ERROR_ROOM 0x1c /* ENOSPC */

/* How a point was asked for: the type of its Z packet. */
struct gdb_point {
	u8 type;
	struct debug_point point;
};

/* What is to be done when the lock is free again. */
enum gdb_after { GDB_AFTER_NOTHING, GDB_AFTER_RESET, GDB_AFTER_POWERDOWN, GDB_AFTER_STOP };

struct gdb_session {
	struct vm *vm;
	struct gdb_link link;
	struct gdb_registers registers;
	bool connected;
	bool leaving; /* the connection is gone, its points not yet */
	bool resume; /* leaving: the machine ran */
	bool waiting; /* a packet waits until the machine has stopped */
	bool owed; /* the machine runs, and its stop will be told */
	bool interrupted; /* the client wants it to stop */
	bool says_breaks; /* the client knows swbreak and hwbreak */
	bool physical; /* addresses are physical ones */
	bool quiet; /* steps are not interrupted */
	unsigned cpu; /* of register and memory packets */
	unsigned step_cpu; /* of s and c */
	bool silent; /* what is being answered gets no answer (now) */
	/* A step that goes on by itself as long as RIP is in a range: whose, and what the others do meanwhile. */
	struct gdb_range {
		bool active;
		unsigned cpu;
		u64 start, end;
		enum debugger_action action[VM_CPUS_MAX];
	} range;
	enum gdb_after after;
	unsigned points;
	struct gdb_point point[GDB_POINTS];
	struct gdb_parser in;
	struct gdb_text reply; /* to the packet that is being answered */
	struct gdb_text monitor; /* what a command said */
	struct gdb_text xml;
	u32 frame_used; /* of the last packet sent */
	u8 reply_data[GDB_PACKET_MAX], monitor_data[GDB_MONITOR_MAX], xml_data[GDB_XML_MAX], frame[GDB_FRAME_MAX];
};

static inline struct vm_cpu *gdb_cpu(const struct gdb_session *s)
{
	return s->vm->cpu[s->cpu];
}

static inline void gdb_error(struct gdb_session *s, u8 number)
{
	gdb_put(&s->reply, "E");
	gdb_put_bytes(&s->reply, &number, 1);
}

static inline void gdb_ok(struct gdb_session *s, bool ok)
{
	if (ok)
		gdb_put(&s->reply, "OK");
	else
		gdb_error(s, GDB_ERROR_ARGUMENT);
}

/* ---- answers, with the machine stopped and the lock held; they write s->reply ---- */

/* memory.c: g G p P m M X Z z */
void gdb_read_registers(struct gdb_session *s, struct gdb_cursor *c);
void gdb_write_registers(struct gdb_session *s, struct gdb_cursor *c);
void gdb_read_register(struct gdb_session *s, struct gdb_cursor *c);
void gdb_write_register(struct gdb_session *s, struct gdb_cursor *c);
void gdb_read_memory(struct gdb_session *s, struct gdb_cursor *c);
void gdb_write_memory(struct gdb_session *s, struct gdb_cursor *c);
void gdb_write_binary(struct gdb_session *s, struct gdb_cursor *c);
void gdb_insert_point(struct gdb_session *s, struct gdb_cursor *c);
void gdb_remove_point(struct gdb_session *s, struct gdb_cursor *c);
/* query.c: q and Q */
void gdb_query(struct gdb_session *s, struct gdb_cursor *c);
void gdb_set(struct gdb_session *s, struct gdb_cursor *c);
/* A thread's number as packets name it; 0 (any) and -1 (all) give *any. */
bool gdb_take_thread(struct gdb_session *s, struct gdb_cursor *c, unsigned *cpu, bool *any);
/* monitor.c: a command line; what it says is in s->monitor. */
void gdb_monitor(struct gdb_session *s, char *line);

#endif
