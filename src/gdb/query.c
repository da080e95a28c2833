/* The packets that ask for and set what is not the guest's. GDB manual, "General Query Packets"; those with qemu in their names as QEMU's manual
 * has them, "GDB usage". */
#include "gdb/internal.h"

#include "lib/string.h"

#define STEP_ENABLE 1u /* QEMU's SSTEP_ENABLE and SSTEP_NOIRQ */
#define STEP_QUIET 2u

bool gdb_take_thread(struct gdb_session *s, struct gdb_cursor *c, unsigned *cpu, bool *any)
{
	u64 number;
	*cpu = 0;
	*any = gdb_take_word(c, "-1");
	if (*any)
		return true;
	if (!gdb_take_number(c, &number) || number > s->vm->config.cpus)
		return false;
	*any = !number;
	*cpu = number ? (unsigned)number - 1 : 0;
	return true;
}

static void ask_supported(struct gdb_session *s, struct gdb_cursor *c)
{
	s->says_breaks = false;
	for (; c->at < c->end; c->at++)
		if (gdb_take_word(c, "swbreak+"))
			s->says_breaks = true;
	gdb_put(&s->reply, "PacketSize=");
	gdb_put_number(&s->reply, GDB_PACKET_MAX);
	gdb_put(&s->reply, ";QStartNoAckMode+;qXfer:features:read+;swbreak+;hwbreak+;vContSupported+");
}

static void ask_current(struct gdb_session *s, struct gdb_cursor *c)
{
	gdb_put(&s->reply, "QC");
	gdb_put_number(&s->reply, s->cpu + 1);
}

static void ask_threads(struct gdb_session *s, struct gdb_cursor *c)
{
	for (unsigned i = 0; i < s->vm->config.cpus; i++) {
		gdb_put(&s->reply, i ? "," : "m");
		gdb_put_number(&s->reply, i + 1);
	}
}

static void ask_more_threads(struct gdb_session *s, struct gdb_cursor *c)
{
	gdb_put(&s->reply, "l");
}

static void ask_thread(struct gdb_session *s, struct gdb_cursor *c)
{
	static const char *const doing[] = {
		[ACTIVITY_ACTIVE] = "running", [ACTIVITY_HLT] = "halted", [ACTIVITY_SHUTDOWN] = "shut down", [ACTIVITY_WAIT_SIPI] = "not started"
	};
	char text[40];
	unsigned cpu;
	bool any;
	if (!gdb_take_thread(s, c, &cpu, &any) || any) {
		gdb_error(s, GDB_ERROR_ARGUMENT);
		return;
	}
	int n = host_snprintf(text, sizeof(text), "CPU#%u [%s]", cpu, doing[s->vm->cpu[cpu]->vcpu.activity & 3]);
	gdb_put_bytes(&s->reply, text, (u64)n);
}

static void ask_attached(struct gdb_session *s, struct gdb_cursor *c)
{
	gdb_put(&s->reply, "1"); /* quitting GDB detaches */
}

/* `:offset,length` of the one document. */
static void ask_features(struct gdb_session *s, struct gdb_cursor *c)
{
	u64 offset, size;
	if (!gdb_take_number(c, &offset) || !gdb_take(c, ',') || !gdb_take_number(c, &size) || offset > s->xml.used) {
		gdb_error(s, GDB_ERROR_ARGUMENT);
		return;
	}
	u64 left = s->xml.used - offset;
	size = MIN(size, GDB_PACKET_MAX / 2); /* escapes must fit in what the client expects */
	gdb_put(&s->reply, size < left ? "m" : "l");
	gdb_put_raw(&s->reply, s->xml.data + offset, MIN(size, left));
}

static void ask_monitor(struct gdb_session *s, struct gdb_cursor *c)
{
	char line[256];
	u64 size = gdb_left(c) / 2;
	if (gdb_left(c) % 2 || size >= sizeof(line) || !gdb_take_bytes(c, (u8 *)line, size)) {
		gdb_error(s, GDB_ERROR_ARGUMENT);
		return;
	}
	line[size] = 0;
	gdb_monitor(s, line);
	gdb_put(&s->reply, "OK");
}

static void ask_symbols(struct gdb_session *s, struct gdb_cursor *c)
{
	gdb_put(&s->reply, "OK"); /* none are wanted */
}

static void ask_qemu(struct gdb_session *s, struct gdb_cursor *c)
{
	gdb_put(&s->reply, "sstepbits;sstep;PhyMemMode");
}

static void ask_step_bits(struct gdb_session *s, struct gdb_cursor *c)
{
	gdb_put(&s->reply, "ENABLE=1,NOIRQ=2");
}

static void ask_step(struct gdb_session *s, struct gdb_cursor *c)
{
	gdb_put(&s->reply, "0x");
	gdb_put_number(&s->reply, STEP_ENABLE | (s->quiet ? STEP_QUIET : 0));
}

static void ask_physical(struct gdb_session *s, struct gdb_cursor *c)
{
	gdb_put(&s->reply, s->physical ? "1" : "0");
}

static void set_no_ack(struct gdb_session *s, struct gdb_cursor *c)
{
	s->in.trusting = true;
	gdb_put(&s->reply, "OK");
}

static void set_step(struct gdb_session *s, struct gdb_cursor *c)
{
	u64 bits = 0;
	bool ok = (gdb_take_word(c, "0x") || true) && gdb_take_number(c, &bits) && !(bits & ~(u64)(STEP_ENABLE | STEP_QUIET));
	if (ok)
		s->quiet = bits & STEP_QUIET;
	gdb_ok(s, ok);
}

static void set_physical(struct gdb_session *s, struct gdb_cursor *c)
{
	bool on = gdb_take(c, '1'), ok = on || gdb_take(c, '0');
	if (ok)
		s->physical = on;
	gdb_ok(s, ok);
}

struct query {
	const char *name; /* up to and with what follows the name */
	void (*answer)(struct gdb_session *s, struct gdb_cursor *c);
};

/* Names that begin another one come after it. */
static const struct query queries[] = {
	{ "Supported", ask_supported }, { "fThreadInfo", ask_threads }, { "sThreadInfo", ask_more_threads }, { "ThreadExtraInfo,", ask_thread },
	{ "Attached", ask_attached }, { "Xfer:features:read:target.xml:", ask_features }, { "Rcmd,", ask_monitor }, { "Symbol:", ask_symbols },
	{ "qemu.Supported", ask_qemu }, { "qemu.sstepbits", ask_step_bits }, { "qemu.sstep", ask_step }, { "qemu.PhyMemMode", ask_physical },
	{ "C", ask_current },
};
static const struct query settings[] = {
	{ "StartNoAckMode", set_no_ack }, { "qemu.sstep=", set_step }, { "qemu.PhyMemMode:", set_physical },
};

static void find(struct gdb_session *s, struct gdb_cursor *c, const struct query *rows, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (!gdb_take_word(c, rows[i].name))
			continue;
		rows[i].answer(s, c);
		return;
	}
}

/* qC has no arguments, so that it is no beginning of another. */
void gdb_query(struct gdb_session *s, struct gdb_cursor *c)
{
	if (gdb_left(c) != 1 && c->at < c->end && *c->at == 'C')
		return;
	find(s, c, queries, ARRAY_SIZE(queries));
}

void gdb_set(struct gdb_session *s, struct gdb_cursor *c)
{
	find(s, c, settings, ARRAY_SIZE(settings));
}
