/* Who may use a port: IOPL first, then the bitmap of the task-state segment, up to its limit. Ports 0x2f0 to 0x2ff are
 * nobody's. Intel SDM volume 1, "I/O Privilege Level", "I/O Permission Bit Map". */
#include "lib/guest.h"

CODE(in1, "in %dx, %al");
CODE(in2, "in %dx, %ax");
CODE(in4, "in %dx, %eax");
CODE(out1, "out %al, %dx");
CODE(out2, "out %ax, %dx");
CODE(out4, "out %eax, %dx");
CODE(ins4, "insl");
CODE(outs2, "outsw");
CODE(in_immediate, "in $0x61, %al");

static const struct {
	const void *code;
	unsigned size;
} accesses[] = { { in1, 1 }, { in2, 2 }, { in4, 4 }, { out1, 1 }, { out2, 2 }, { out4, 4 }, { ins4, 4 }, { outs2, 2 } };

static u32 buffer[4];

static struct state access_port(const void *code, unsigned cpl, unsigned iopl, u16 port)
{
	struct state s = state_at(code, cpl);
	s.flags |= FLAG_IOPL(iopl);
	s.dx = port;
	s.si = s.di = (ulong)buffer;
	run(&s);
	return s;
}

static void check_port(unsigned i, unsigned cpl, unsigned iopl, u16 port, bool allowed)
{
	struct state s = access_port(accesses[i].code, cpl, iopl, port);
	bool ok = allowed ? s.vector == VECTOR_END
			  : s.vector == VEC_GP && s.error == 0 && s.ip == (ulong)accesses[i].code;
	CHECK(ok);
	if (ok)
		return;
	print("    access %u at %x, CPL %u IOPL %u: want %u\n", i, port, cpl, iopl, allowed);
	state_print(&s);
}

static void by_iopl(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(accesses); i++)
		for (unsigned cpl = 0; cpl < 4; cpl++)
			for (unsigned iopl = 0; iopl < 4; iopl++)
				check_port(i, cpl, iopl, 0x2f4, cpl <= iopl);
}

static void permit(unsigned port, bool allowed)
{
	if (allowed)
		tss.io_bitmap[port / 8] &= ~(1u << port % 8);
	else
		tss.io_bitmap[port / 8] |= 1u << port % 8;
}

/* Every byte of the access needs its bit clear. */
static void by_bitmap(void)
{
	for (unsigned port = 0x2f5; port < 0x2fb; port++)
		permit(port, true);
	for (unsigned i = 0; i < ARRAY_SIZE(accesses); i++)
		for (unsigned port = 0x2f1; port < 0x2fd; port++)
			check_port(i, 3, 0, port, port >= 0x2f5 && port + accesses[i].size <= 0x2fb);
	struct state s = run_code(in_immediate, 3);
	CHECK_FAULT(s, VEC_GP, 0, in_immediate);
	permit(0x61, true);
	s = run_code(in_immediate, 3);
	CHECK_END(s, in_immediate);
	memset(tss.io_bitmap, 0xff, sizeof(tss.io_bitmap));
}

/* ---- The limit: two bytes of the map are read for each access, and both must lie inside ---- */

static void set_limit(u32 limit)
{
	gdt_set_system(SEL_TSS, (ulong)&tss, limit, ACCESS_TSS);
	write_tr(SEL_TSS);
}

static void set_base(u16 offset)
{
#ifdef __x86_64__
	tss.iomap = offset;
#else
	tss.t.iomap = offset;
#endif
}

static void by_limit(void)
{
	u32 map = offsetof(struct tss, io_bitmap);
	memset(tss.io_bitmap, 0, sizeof(tss.io_bitmap));
	set_limit(map + 0x2f0 / 8 + 1); /* the map's bytes of 0x2f0 to 0x2ff */
	check_port(0, 3, 0, 0x2f0, true);
	check_port(0, 3, 0, 0x2f7, true);
	check_port(0, 3, 0, 0x2f8, false);
	check_port(2, 3, 0, 0x2f4, true);
	check_port(2, 3, 0, 0x2f6, true);
	check_port(0, 3, 3, 0x2f8, true);
	set_limit(map + 0x2f0 / 8); /* the second byte is gone */
	check_port(0, 3, 0, 0x2f0, false);
	check_port(2, 3, 0, 0x2f6, false);
	check_port(0, 3, 0, 0x2e8, true);
	set_limit(map - 1); /* no map at all */
	check_port(0, 3, 0, 0, false);
	descriptors_init();
	/* The base is taken from the TSS each time; beyond the limit there is no map. */
	memset(tss.io_bitmap, 0, sizeof(tss.io_bitmap));
	check_port(0, 3, 0, 0x2f0, true);
	set_base(sizeof(tss));
	check_port(0, 3, 0, 0x2f0, false);
	set_base(0xffff);
	check_port(0, 3, 0, 0x2f0, false);
	set_base(map + 0x20);
	memset(tss.io_bitmap + 0x20, 0xff, 1);
	check_port(0, 3, 0, 0, false);
	check_port(0, 3, 0, 0x2f0, true);
	descriptors_init();
	/* The last port: its second byte is the one behind the map. */
	permit(0xffff, true);
	check_port(0, 3, 0, 0xffff, true);
	permit(0xfffe, true);
	check_port(1, 3, 0, 0xfffe, true);
	memset(tss.io_bitmap, 0xff, sizeof(tss.io_bitmap));
}

#ifndef __x86_64__
/* A 16-bit task has no map. */
static void sixteen_bit_task(void)
{
	static struct tss16 task[200] = { { .stack[0] = { 0xff00, SEL_DATA } } };
	gdt_set(SEL_FREE, descriptor((ulong)task, sizeof(task) - 1, ACCESS_TSS16, 0));
	write_tr(SEL_FREE);
	struct state s = state_at(in1, 3);
	s.dx = 0x2f4;
	run(&s);
	descriptors_init();
	CHECK_FAULT(s, VEC_GP, 0, in1);
}
#endif

void guest_main(void)
{
	by_iopl();
	by_bitmap();
	by_limit();
#ifndef __x86_64__
	sixteen_bit_task();
#endif
}
