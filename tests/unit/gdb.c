/* GDB's remote protocol: packets byte by byte, and a session with a machine that really runs. The client speaks while the one vCPU, on the test's own
 * thread, sleeps: stopped, or halted. */
#include "vm_machine.h"

#include "gdb/session.h"
#include "host/linux/trap.h"

/* ---- packets ---- */

static enum gdb_event feed(struct gdb_parser *p, const char *bytes, size_t size)
{
	enum gdb_event last = GDB_NOTHING;
	for (size_t i = 0; i < size; i++) {
		assert_int_equal(last, GDB_NOTHING);
		last = gdb_parse(p, (u8)bytes[i]);
	}
	return last;
}

#define FEED(p, text) feed(p, text, sizeof(text) - 1)

static void test_parse(void **state)
{
	static struct gdb_parser p;
	assert_int_equal(FEED(&p, "+x\n$qC#b4"), GDB_PACKET);
	assert_int_equal(p.used, 2);
	assert_memory_equal(p.data, "qC", 2);
	assert_int_equal(FEED(&p, "$#00"), GDB_PACKET);
	assert_int_equal(p.used, 0);
	assert_int_equal(FEED(&p, "$qC#b5"), GDB_DAMAGED);
	assert_int_equal(FEED(&p, "$qC#x"), GDB_DAMAGED);
	assert_int_equal(FEED(&p, "$qC#bx"), GDB_DAMAGED);
	assert_int_equal(FEED(&p, "\3"), GDB_INTERRUPT);
	assert_int_equal(FEED(&p, "-"), GDB_RESEND);
	assert_int_equal(FEED(&p, "$lost$qC#B4"), GDB_PACKET);
	assert_int_equal(FEED(&p, "$X}\3}]\3#b5"), GDB_PACKET);
	assert_int_equal(p.used, 4);
	assert_memory_equal(p.data, "X#}\3", 4);
	p.trusting = true;
	assert_int_equal(FEED(&p, "-$qC#00"), GDB_PACKET);
}

static void test_too_long(void **state)
{
	static struct gdb_parser p;
	static const char hex[] = "0123456789abcdef";
	for (unsigned round = 0; round < 2; round++) {
		assert_int_equal(gdb_parse(&p, '$'), GDB_NOTHING);
		for (unsigned i = 0; i < GDB_PACKET_MAX + !round; i++)
			assert_int_equal(gdb_parse(&p, 'a'), GDB_NOTHING);
		unsigned sum = ((GDB_PACKET_MAX + !round) * 'a') & 0xff;
		assert_int_equal(gdb_parse(&p, '#'), GDB_NOTHING);
		assert_int_equal(gdb_parse(&p, (u8)hex[sum >> 4]), GDB_NOTHING);
		assert_int_equal(gdb_parse(&p, (u8)hex[sum & 15]), round ? GDB_PACKET : GDB_TOO_LONG);
	}
	assert_int_equal(p.used, GDB_PACKET_MAX);
}

/* Whatever is sent arrives. */
static void test_frame(void **state)
{
	static struct gdb_parser p;
	static u8 data[GDB_PACKET_MAX], frame[GDB_FRAME_MAX];
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (u8)(i * 7);
	u32 size = gdb_frame(frame, data, sizeof(data));
	assert_int_equal(feed(&p, (const char *)frame, size), GDB_PACKET);
	assert_int_equal(p.used, sizeof(data));
	assert_memory_equal(p.data, data, sizeof(data));
	memset(data, '#', sizeof(data));
	assert_int_equal(gdb_frame(frame, data, sizeof(data)), GDB_FRAME_MAX);
}

static void test_words(void **state)
{
	u8 room[40], bytes[2];
	u64 value;
	struct gdb_text text = { .data = room, .size = sizeof(room) };
	gdb_put_number(&text, 0);
	gdb_put(&text, ",");
	gdb_put_number(&text, 0x1f);
	gdb_put(&text, ",");
	gdb_put_number(&text, ~0ull);
	gdb_put_bytes(&text, "\x01\xab", 2);
	assert_int_equal(text.used, 25);
	assert_memory_equal(room, "0,1f,ffffffffffffffff01ab", 25);
	struct gdb_cursor c = { room, room + text.used };
	assert_true(gdb_take_number(&c, &value) && !value && gdb_take(&c, ',') && gdb_take_word(&c, "1f,"));
	assert_false(gdb_take_number(&c, &value)); /* 20 digits */
	c = (struct gdb_cursor){ room + 21, room + 25 };
	assert_false(gdb_take_bytes(&c, bytes, 3));
	assert_true(gdb_take_bytes(&c, bytes, 2));
	assert_int_equal(bytes[1], 0xab);
	assert_false(gdb_take(&c, '0'));
	assert_false(gdb_take_number(&c, &value));
	gdb_put(&text, "much more than there is room for");
	assert_int_equal(text.used, sizeof(room));
}

/* ---- sessions ---- */

/* mov cx, 3; 7c03: inc word [0x500]; 7c07: dec cx; jnz 7c03; 7c0a: cli; hlt; 7c0c: jmp 7c0b */
static const u8 image[] = { 0xb9, 3, 0, 0xff, 0x06, 0, 5, 0x49, 0x75, 0xf9, 0xfa, 0xf4, 0xeb, 0xfd };

/* What the client says, and what must come back: exactly, or with ~ its beginning. NULL: nothing. Ctrl-C goes as it is, and + says nothing. */
struct line {
	const char *say, *expect;
};

static struct client {
	struct gdb_session *session;
	const struct line *line;
	bool waiting; /* for the answer to *line */
	struct gdb_parser in;
	u8 sent[1 << 17];
	size_t used, taken;
	unsigned idle;
} client;

static void client_send(void *opaque, const void *data, size_t size)
{
	assert_true(client.used + size <= sizeof(client.sent));
	memcpy(client.sent + client.used, data, size);
	client.used += size;
}

/* The next packet that came, as text; NULL: none yet. */
static const char *next_packet(void)
{
	while (client.taken < client.used) {
		enum gdb_event event = gdb_parse(&client.in, client.sent[client.taken++]);
		assert_true(event == GDB_NOTHING || event == GDB_PACKET);
		if (event != GDB_PACKET)
			continue;
		assert_true(client.in.used < GDB_PACKET_MAX);
		client.in.data[client.in.used] = 0;
		return (const char *)client.in.data;
	}
	client.used = client.taken = 0;
	return NULL;
}

static void say(const char *text)
{
	static u8 frame[GDB_FRAME_MAX];
	if (*text == '+')
		return;
	if (*text == 3) {
		gdb_byte(client.session, 3);
		return;
	}
	u32 size = gdb_frame(frame, (const u8 *)text, (u32)strlen(text));
	for (u32 i = 0; i < size; i++) {
		assert_true(gdb_ready(client.session));
		gdb_byte(client.session, frame[i]);
	}
}

static void compare(const struct line *line, const char *got)
{
	bool begins = line->expect[0] == '~';
	const char *expect = line->expect + begins;
	if (begins ? strncmp(expect, got, strlen(expect)) : strcmp(expect, got))
		fail_msg("'%s': expected '%s', got '%s'", line->say, expect, got);
}

static void speak(void *opaque)
{
	if (++client.idle == 10000)
		fail_msg("'%s': no answer", client.line->say);
	bool said = false;
	gdb_poll(client.session);
	for (;;) {
		const char *got = next_packet();
		if (got) {
			assert_true(client.waiting || client.line->say[0] == '+');
			compare(client.line++, got);
			client.waiting = false;
		} else if (client.waiting || !client.line->say || (said && !machine.vm->debugger.holding)) {
			return; /* let it run, or halt */
		} else {
			said = true;
			client.waiting = client.line->expect;
			say(client.line->say);
			client.line += !client.waiting;
		}
	}
}

/* One conversation with a machine that stands in front of its first instruction; its last line ends the machine. */
static void talk(const struct engine_ops *engine, enum gdb_architecture architecture, const struct line *line)
{
	struct vm_config config = machine_config(1);
	config.engine = engine;
	config.boot.kernel = image;
	config.boot.kernel_size = sizeof(image);
	host_set_trap_handler(NULL);
	trap_thread_init();
	machine_create(&config);
	memset(&client, 0, sizeof(client));
	client.line = line;
	client.session = gdb_create(machine.vm, architecture, &(struct gdb_link){ .send = client_send });
	assert_non_null(client.session);
	gdb_connected(client.session);
	fake_host_set_idle(speak, NULL);
	vm_run_vcpu(machine.vm, 0);
	assert_null(client.line->say);
	gdb_destroy(client.session);
	machine_destroy(NULL);
}

static const struct engine_ops *const tried[] = { &engine_step, &engine_bt, &engine_lockstep };

#define EACH(e) for (unsigned e = 0; e < ARRAY_SIZE(tried); e++)
#define TALK(architecture, ...)                                                                    \
	do {                                                                                       \
		static const struct line lines_[] = { __VA_ARGS__, { "k", NULL }, { NULL, NULL } };   \
		EACH(e) talk(tried[e], architecture, lines_);                                      \
	} while (0)

static void test_break_points(void **state)
{
	TALK(GDB_X86_64, { "qSupported:swbreak+;hwbreak+", "~PacketSize=4000;" }, { "?", "T05thread:1;" }, { "m7c00,4", "b90300ff" },
	     { "p10", "007c000000000000" }, { "Z0,7c07,1", "OK" }, { "Z0,7c07,1", "OK" }, { "m7c07,1", "49" }, { "c", "T05swbreak:;thread:1;" },
	     { "p10", "077c000000000000" }, { "m500,2", "0100" }, { "c", "T05swbreak:;thread:1;" }, { "m500,2", "0200" }, { "z0,7c07,1", "OK" },
	     { "z0,7c07,1", "OK" }, { "Z1,7c0a,1", "OK" }, { "vCont;c", "T05hwbreak:;thread:1;" }, { "m500,2", "0300" }, { "z1,7c0a,1", "OK" },
	     { "c", NULL }, { "\3", "T02thread:1;" }, { "?", "T05thread:1;" }, { "qThreadExtraInfo,1", "4350552330205b68616c7465645d" });
}

static void test_watch_points(void **state)
{
	TALK(GDB_X86_64, { "Z2,502,1", "OK" }, { "c", NULL }, { "\3", "T02thread:1;" }, { "z2,502,1", "OK" }, { "P10=007c000000000000", "OK" },
	     { "Z2,500,2", "OK" }, { "c", "T05watch:500;thread:1;" }, { "p10", "077c000000000000" }, { "m500,2", "0400" }, { "z2,500,2", "OK" },
	     { "Z3,500,1", "OK" }, { "c", "T05rwatch:500;thread:1;" }, { "z3,500,1", "OK" }, { "Z4,4ff,8", "OK" },
	     { "c", "T05awatch:4ff;thread:1;" }, { "p10", "077c000000000000" }, { "m500,2", "0600" });
}

static void test_steps(void **state)
{
	TALK(GDB_X86_64, { "s", "T05thread:1;" }, { "p10", "037c000000000000" }, { "p2", "0300000000000000" }, { "vCont;s:1;c", "T05thread:1;" },
	     { "p10", "077c000000000000" }, { "Z0,7c08,1", "OK" }, { "vCont;s", "T05thread:1;" }, { "p10", "087c000000000000" },
	     { "s", "T05thread:1;" }, { "p10", "037c000000000000" }, { "z0,7c08,1", "OK" }, { "s7c0a", "T05thread:1;" },
	     { "p10", "0b7c000000000000" }, { "S05", "T05thread:1;" }, { "p10", "0c7c000000000000" }, { "C05;7c0c", NULL },
	     { "\3", "T02thread:1;" }, { "p10", "0c7c000000000000" });
}

/* Until it leaves the loop, or meets a point; `r` without a thread is a step. */
static void test_range_steps(void **state)
{
	TALK(GDB_X86_64, { "vCont;r7c03,7c0a:1;c", "T05thread:1;" }, { "p10", "0a7c000000000000" }, { "m500,2", "0300" }, { "s7c00", "T05thread:1;" }, { "p10", "037c000000000000" }, { "Z0,7c08,1", "OK" },
	     { "vCont;r7c00,7c0a:1", "T05thread:1;" }, { "p10", "087c000000000000" }, { "z0,7c08,1", "OK" }, { "vCont;r7c00,7c0a", "T05thread:1;" },
	     { "p10", "037c000000000000" }, { "vCont;r7c03:1", "E16" }, { "vCont;r7c03,:1", "E16" });
}

static void test_registers(void **state)
{
	TALK(GDB_X86_64, { "P0=efcdab8967452301", "OK" }, { "p0", "efcdab8967452301" }, { "P10=0000000000000080", "E16" }, { "p11", "02000000" },
	     { "P11=03000000", "OK" }, { "P11=03000200", "E16" }, { "p11", "03000000" }, { "P12=34120000", "OK" }, { "p12", "34120000" },
	     { "P18=0000000000000080ff3f", "OK" }, { "p18", "0000000000000080ff3f" }, { "p20", "40000000" }, { "P20=7f030000", "OK" }, { "p20", "7f030000" },
	     { "P28=000102030405060708090a0b0c0d0e0f", "OK" }, { "p28", "000102030405060708090a0b0c0d0e0f" }, { "P38=ffffffff", "E16" },
	     { "P38=801f0000", "OK" }, { "pfff", "E16" }, { "P0", "E16" }, { "P0=12", "E16" }, { "g", "~efcdab8967452301" }, { "s", "T05thread:1;" },
	     { "p28", "000102030405060708090a0b0c0d0e0f" });
	TALK(GDB_I386, { "p8", "007c0000" }, { "P0=78563412", "OK" }, { "p0", "78563412" }, { "s", "T05thread:1;" }, { "p8", "037c0000" },
	     { "qXfer:features:read:target.xml:0,80", "~m<?xml" });
}

static void test_memory(void **state)
{
	TALK(GDB_X86_64, { "M600,2:1234", "OK" }, { "m600,3", "123400" }, { "X601,2:#*", "OK" }, { "m600,3", "12232a" }, { "X601,0:", "OK" },
	     { "M600,2:12", "E16" }, { "M600,1:xx", "E16" }, { "mfffffff0,4", "E0e" }, { "Mfffffff0,1:00", "E0e" }, { "m600,0", "" },
	     { "m3fffff,10", "00" }, { "m600", "E16" }, { "M3fffff,2:0000", "E0e" }, { "Qqemu.PhyMemMode:1", "OK" }, { "qqemu.PhyMemMode", "1" },
	     { "m600,1", "12" }, { "m100000600,1", "E0e" }, { "Qqemu.PhyMemMode:0", "OK" }, { "m100000600,1", "12" },
	     /* code that has run, changed */
	     { "Z0,7c08,1", "OK" }, { "c", "T05thread:1;" }, { "M7c03,1:90", "OK" }, { "M7c04,3:909090", "OK" }, { "c", "T05thread:1;" },
	     { "m500,1", "01" });
}

static void test_queries(void **state)
{
	TALK(GDB_X86_64, { "qAttached", "1" }, { "qC", "QC1" }, { "qCRC:0,1", "" }, { "qfThreadInfo", "m1" }, { "qsThreadInfo", "l" }, { "Hg1", "OK" },
	     { "Hg2", "E16" }, { "Hc-1", "OK" }, { "T1", "OK" }, { "T2", "E16" }, { "vMustReplyEmpty", "" }, { "vCont?", "vCont;c;C;s;S;r" },
	     { "vCont", "E16" }, { "vCont;x", "E16" }, { "vCont;c:9", "E16" }, { "vCont;", "E16" }, { "QStartNoAckMode", "OK" }, { "Z5,0,1", "" },
	     { "Z0,1", "E16" }, { "Z2,0,0", "E1c" }, { "Z2,0,1001", "E1c" }, { "qqemu.sstep", "0x3" }, { "Qqemu.sstep=1", "OK" },
	     { "qqemu.sstep", "0x1" }, { "Qqemu.sstep=8", "E16" }, { "qRcmd,6x", "E16" }, { "!", "OK" }, { "", "" }, { "\200", "" },
	     { "qXfer:features:read:target.xml:ffffff,10", "E16" }, { "qXfer:features:read:other.xml:0,10", "" });
}

/* help, `gva2gpa `, `gva2gpa 0x7c00`, `xp/2 500`, hello */
static void test_monitor(void **state)
{
	TALK(GDB_X86_64, { "qRcmd,68656c70", "~O68656c70" }, { "+", "~O" }, { "+", "OK" }, { "qRcmd,6776613267706120", "~O616e" }, { "+", "OK" },
	     { "qRcmd,67766132677061203078376330300", "E16" }, { "qRcmd,677661326770612030783763" "3030", "O6770613a203078376330300a" }, { "+", "OK" },
	     { "qRcmd,78702f3220353030", "~O30303030303030303030303030353030" }, { "+", "OK" }, { "qRcmd,68656c6c6f", "~O7468657265" }, { "+", "OK" });
}

static void test_reset(void **state)
{
	/* monitor system_reset */
	TALK(GDB_X86_64, { "s", "T05thread:1;" }, { "p10", "037c000000000000" }, { "qRcmd,73797374656d5f7265736574", "OK" }, { "p10", "007c000000000000" },
	     { "Z0,7c0a,1", "OK" }, { "c", "T05thread:1;" });
}

static void test_points_limit(void **state)
{
	static char text[65][16];
	static struct line lines[68];
	for (unsigned i = 0; i < 65; i++) {
		host_snprintf(text[i], sizeof(text[i]), "Z0,%x,1", 0x9000 + i * 16);
		lines[i] = (struct line){ text[i], i < 64 ? "OK" : "E1c" };
	}
	lines[65] = (struct line){ "k", NULL };
	EACH(e) talk(tried[e], GDB_X86_64, lines);
}

/* Detached, the machine goes on without points until somebody comes again. */
static void test_detach(void **state)
{
	TALK(GDB_X86_64, { "Z0,7c07,1", "OK" }, { "c", "T05thread:1;" }, { "D", "OK" }, { "?", "T05thread:1;" }, { "m500,2", "0300" },
	     { "p10", "0c7c000000000000" });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_frame),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_break_points),
		cmocka_unit_test(test_watch_points),
		cmocka_unit_test(test_steps),
		cmocka_unit_test(test_range_steps),
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_queries),
		cmocka_unit_test(test_monitor),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_points_limit),
		cmocka_unit_test(test_detach),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
