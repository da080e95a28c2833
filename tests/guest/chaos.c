/* A hostile guest: random values to random ports, model-specific registers, control and debug registers, and device
 * memory, with interrupts let in now and then. Whatever becomes of the guest, the VMM must live and end in an orderly
 * way (A3). "seed=N" and "steps=N" on the command line; "all=1" includes what ends the run: reset, power, debug exit.
 */
#include "lib/apic.h"
#include "lib/window.h"

static u64 seed = 1, all;
static u32 surprises;

static u64 any(u64 limit)
{
	return (u32)(random64(&seed) >> 16) % (u32)limit;
}

/* Values that devices find interesting, beside random ones. */
static u32 value(void)
{
	static const u32 favourites[] = { 0,      1,      0x7f,    0x80,       0xff,       0x100,     0x7fff,
					  0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff };
	u32 random = (u32)random64(&seed);
	switch (any(4)) {
	case 0:
		return favourites[any(ARRAY_SIZE(favourites))];
	case 1:
		return 1u << any(32);
	default:
		return random;
	}
}

static bool ends_the_run(u16 port)
{
	return (port >= 0xf1 && port <= 0xf7) || port == 0x92 || port == 0x64 || (port >= 0xcf6 && port <= 0xcf9) ||
	       (port >= 0x600 && port < 0x610) || port == 0xe9 || port == 0xe8 || port == 0xe7 || port == 0xe6;
}

static u16 random_port(void)
{
	static const u16 ports[] = { 0x20,  0x21,  0x40,  0x41,  0x42,  0x43,  0x60,  0x61,  0x64,  0x70,  0x71,  0x80,
				     0x92,  0xa0,  0xa1,  0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x4d0,
				     0x4d1, 0xcf8, 0xcf9, 0xcfc, 0xcfd, 0xcfe, 0xcff, 0x600, 0x602, 0x604, 0x608 };
	return any(4) ? ports[any(ARRAY_SIZE(ports))] : (u16)random64(&seed);
}

static void port_access(void)
{
	u16 port = random_port();
	if (!all && ends_the_run(port))
		return;
	switch (any(6)) {
	case 0:
		outb(port, value());
		break;
	case 1:
		outw(port, value());
		break;
	case 2:
		outl(port, value());
		break;
	case 3:
		inb(port);
		break;
	case 4:
		inw(port);
		break;
	default:
		inl(port);
	}
}

/* ---- Memory of devices ---- */

CODE(do_read1, "mov (" R "bx), %al");
CODE(do_read2, "mov (" R "bx), %ax");
CODE(do_read4, "mov (" R "bx), %eax");
CODE(do_write1, "mov %al, (" R "bx)");
CODE(do_write2, "mov %ax, (" R "bx)");
CODE(do_write4, "mov %eax, (" R "bx)");
CODE(do_write8, "movq %mm0, (" R "bx)");
CODE(do_add, "lock addl %eax, (" R "bx)");
CODE(do_xchg, "xchg %ax, (" R "bx)");
CODE(do_stos, "mov $40, %ecx\n mov " R "bx, " R "di\n rep stosl");
CODE(do_lods, "mov $40, %ecx\n mov " R "bx, " R "si\n rep lodsb");
CODE(do_vector, "movups (" R "bx), %xmm1\n movups %xmm1, (" R "bx)");

static void run_random(const void *code, ulong bx)
{
	struct state s = state_at(code, 0);
	s.bx = bx;
	s.ax = value();
	s.cx = value();
	s.dx = value();
	run(&s);
	surprises += s.vector != VECTOR_END;
}

static void memory_access(void)
{
	static const void *const codes[] = { do_read1,  do_read2, do_read4, do_write1, do_write2, do_write4,
					     do_write8, do_add,   do_xchg,  do_stos,   do_lods,   do_vector };
	static const u32 bases[] = { 0xfec00000, 0xfee00000, 0xfee00000, 0xe0000000, 0xc0000000,
				     0xd0000000, 0xfed00000, 0xffff0000, 0xfffff000 };
	u32 base = bases[any(ARRAY_SIZE(bases))];
	u32 address = base + (any(3) ? any(0x400) : any(0x10000));
	if (base == 0xfee00000 && any(2))
		address = base + 16 * any(64);
	run_random(codes[any(ARRAY_SIZE(codes))], address);
}

/* ---- Registers of the CPU ---- */

CODE(do_wrmsr, "wrmsr");
CODE(do_rdmsr, "rdmsr");
CODE(do_cpuid, "cpuid");
CODE(do_xsetbv, "xsetbv");
CODE(do_dr, "mov " R "bx, %dr0\n mov " R "bx, %dr1\n mov " R "ax, %dr6\n mov %dr7, " R "cx");
CODE(do_rdpmc, "rdpmc");
CODE(do_lar, "lar %ax, %ecx\n lsl %bx, %edx\n verr %cx\n verw %ax");
CODE(do_segment, "mov %eax, %es\n mov %ebx, %fs\n mov %ebx, %gs");
CODE(do_invlpg, "invlpg (" R "bx)");
CODE(do_wbinvd, "wbinvd");
CODE(do_vmcall, "vmcall");
CODE(do_vmmcall, "vmmcall");
CODE(do_monitor, "monitor");
CODE(do_ltr, "ltr %ax");
CODE(do_lldt, "lldt %ax");

static u32 random_msr(void)
{
	static const u32 bases[] = { 0,          0x170,      0x1a0,      0x200,      0x250,     0x270,      0x2f0,
				     0x400,      0x6e0,      0x800,      0x830,      0xda0,     0x4b564d00, 0x40000000,
				     0xc0000080, 0xc0000100, 0xc0010000, 0xc0010110, 0xc0010200 };
	u32 index = any(5) ? bases[any(ARRAY_SIZE(bases))] + any(0x24) : (u32)random64(&seed);
	bool own = index == 0xc0000080; /* EFER: the guest's own mode */
	return own ? 0x10 : index;
}

static void register_access(void)
{
	static const void *const codes[] = { do_cpuid,   do_xsetbv, do_dr,     do_rdpmc,  do_lar,
					     do_segment, do_invlpg, do_wbinvd, do_vmcall, do_vmmcall,
					     do_monitor, do_ltr,    do_lldt };
	struct state s = state_at(any(2) ? do_wrmsr : do_rdmsr, 0);
	switch (any(3)) {
	case 0:
		run_random(codes[any(ARRAY_SIZE(codes))], random64(&seed));
		write_dr7(0x400);
		break;
	default:
		s.cx = random_msr();
		s.ax = value();
		s.dx = any(2) ? 0 : value();
		run(&s);
		surprises += s.vector != VECTOR_END;
	}
	descriptors_init();
}

/* ---- Interrupts ---- */

/* One at a time: a level-triggered one that nobody ends would come for ever. */
static void swallow(struct state *s)
{
	s->flags &= ~FLAG_IF;
	apic_eoi();
	outb(0x20, 0x20);
	outb(0xa0, 0x20);
}

/* The PICs' vectors are put right and low vectors held back: an interrupt that looks like an exception would end this
 * too soon. */
static void interrupts_in(void)
{
	pic_init(0x20, 1);
	outb(PIC_MASTER + 1, value());
	outb(PIC_SLAVE + 1, value());
	apic_write(APIC_TPR, 0x10);
	asm volatile("sti\n nop\n nop\n nop\n cli" : : : "memory");
}

void guest_main(void)
{
	u64 steps = 20000;
	command_option("seed", &seed);
	command_option("steps", &steps);
	command_option("all", &all);
	seed = seed * 0x9e3779b97f4a7c15 + 1;
	window_init();
	apic_init();
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	for (unsigned vector = 32; vector < 256; vector++)
		if (vector != VECTOR_END)
			handler_set(vector, swallow);
	handler_set(VEC_NMI, swallow);
	for (u32 i = 0; i < steps; i++) {
		switch (any(4)) {
		case 0:
			port_access();
			break;
		case 1:
			memory_access();
			break;
		case 2:
			register_access();
			break;
		default:
			interrupts_in();
		}
	}
	print("%u exceptions\n", surprises);
	CHECK(surprises > 0);
}
