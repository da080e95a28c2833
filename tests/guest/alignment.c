/* Alignment checks: which accesses of user code are checked and to what boundary, which are not, and what comes first.
 * SSE has its own rules, with #GP. Intel SDM volume 3, "Interrupt 17—Alignment Check Exception (#AC)". */
#include "lib/window.h"

#define QEMU_ALIGNMENT "TCG has no alignment check"

static u8 memory[256] __attribute__((aligned(64)));

CODE(read1, "mov (" R "bx), %al");
CODE(read2, "mov (" R "bx), %ax");
CODE(read4, "mov (" R "bx), %eax");
CODE(write2, "mov %ax, (" R "bx)");
CODE(write4, "mov %eax, (" R "bx)");
CODE(modify4, "addl $1, (" R "bx)");
CODE(exchange4, "xchg %eax, (" R "bx)");
CODE(compare8, "cmpxchg8b (" R "bx)");
CODE(bit_test, "btl $3, (" R "bx)");
CODE(movs4, "mov " R "bx, " R "si\n mov " R "bx, " R "di\n movsl");
CODE(stos2, "mov " R "bx, " R "di\n stosw");
CODE(push_memory, "push" SUFFIX " (" R "bx)");
CODE(load_x87_4, "flds (" R "bx)\n fstp %st(0)");
CODE(load_x87_8, "fldl (" R "bx)\n fstp %st(0)");
CODE(load_x87_10, "fldt (" R "bx)\n fstp %st(0)");
CODE(load_x87_2, "filds (" R "bx)\n fstp %st(0)");
CODE(store_control, "fnstcw (" R "bx)");
CODE(load_mmx, "movq (" R "bx), %mm0\n emms");
CODE(load_scalar4, "movss (" R "bx), %xmm0");
CODE(load_scalar8, "movsd (" R "bx), %xmm0");
CODE(lea_only, "lea (" R "bx), " R "ax");
CODE(prefetch, "prefetcht0 (" R "bx)");
CODE(flush, "clflush (" R "bx)");
#ifdef __x86_64__
CODE(read8, "mov (%rbx), %rax");
CODE(write8, "mov %rax, (%rbx)");
#endif

/* `align`: the boundary in bytes; 1: not checked. */
static const struct access {
	const char *name;
	const u8 *code, *end;
	unsigned align;
} accesses[] = {
#define ACCESS(name, align)                                                                                            \
	{                                                                                                              \
#name, name, name##_end, align                                                                         \
	}
	ACCESS(read1, 1),
	ACCESS(read2, 2),
	ACCESS(read4, 4),
	ACCESS(write2, 2),
	ACCESS(write4, 4),
	ACCESS(modify4, 4),
	ACCESS(exchange4, 4),
	ACCESS(compare8, 8),
	ACCESS(bit_test, 4),
	ACCESS(movs4, 4),
	ACCESS(stos2, 2),
	ACCESS(load_x87_4, 4),
	ACCESS(load_x87_8, 8),
	ACCESS(load_x87_10, 8),
	ACCESS(load_x87_2, 2),
	ACCESS(store_control, 2),
	ACCESS(load_mmx, 8),
	ACCESS(load_scalar4, 4),
	ACCESS(load_scalar8, 8),
	ACCESS(lea_only, 1),
	ACCESS(prefetch, 1),
	ACCESS(flush, 1),
	ACCESS(push_memory, sizeof(long)),
#ifdef __x86_64__
	ACCESS(read8, 8),
	ACCESS(write8, 8),
#endif
};

static struct state access_at(const void *code, ulong address, unsigned cpl, ulong flags)
{
	struct state s = state_at(code, cpl);
	s.bx = address;
	s.flags |= flags;
	run(&s);
	return s;
}

static void every_offset(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(accesses); i++) {
		for (unsigned offset = 0; offset < 17; offset++) {
			struct state s = access_at(accesses[i].code, (ulong)memory + offset, 3, FLAG_AC);
			bool aligned = !(offset & (accesses[i].align - 1));
			bool ok = aligned ? s.vector == VECTOR_END
					  : s.vector == VEC_AC && s.error == 0 && s.ip < (ulong)accesses[i].end;
			CHECK_BUT_QEMU(ok, QEMU_ALIGNMENT);
			if (!ok && !on_qemu) {
				print("    %s at offset %u\n", accesses[i].name, offset);
				state_print(&s);
			}
		}
	}
}

/* Not at other levels, not without AC, not without AM. */
static void conditions(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = access_at(read4, (ulong)memory + 1, cpl, cpl < 3 ? FLAG_AC : 0);
		CHECK_END(s, read4);
	}
	write_cr0(read_cr0() & ~CR0_AM);
	struct state s = access_at(read4, (ulong)memory + 1, 3, FLAG_AC);
	CHECK_END(s, read4);
	write_cr0(read_cr0() | CR0_AM);
}

CODE(push_it, "push " R "ax");
CODE(call_it, "call 1f\n 1:");
CODE(interrupt, "int $" STRINGIFY(VECTOR_END));

/* The stack is memory like any other; the frame of an interrupt to CPL 0 is the supervisor's, and is not checked. */
static void stacks(void)
{
	const u8 *const codes[] = { push_it, call_it };
	for (unsigned i = 0; i < 2; i++) {
		struct state s = state_at(codes[i], 3);
		s.sp -= 1;
		s.flags |= FLAG_AC;
		ulong sp = s.sp;
		run(&s);
		CHECK_BUT_QEMU(s.vector == VEC_AC && s.sp == sp && s.ip == (ulong)codes[i], QEMU_ALIGNMENT);
	}
	struct state s = state_at(interrupt, 3);
	s.sp -= 1;
	s.flags |= FLAG_AC;
	run(&s);
	CHECK_EQ(s.vector, VECTOR_END);
}

/* A page fault and an alignment check of one access: the alignment of the linear address is known first. */
static void priorities(void)
{
	window_map(0, NULL, 0);
	struct state s = access_at(read4, (ulong)window + 1, 3, FLAG_AC);
	CHECK_BUT_QEMU(s.vector == VEC_AC, QEMU_ALIGNMENT);
	s = access_at(read4, (ulong)window + 4, 3, FLAG_AC);
	CHECK_EQ(s.vector, VEC_PF);
}

/* ---- SSE ---- */

CODE(movaps_load, "movaps (" R "bx), %xmm0");
CODE(movaps_store, "movaps %xmm0, (" R "bx)");
CODE(addps_load, "addps (" R "bx), %xmm0");
CODE(movups_load, "movups (" R "bx), %xmm0");
CODE(movntps_store, "movntps %xmm0, (" R "bx)");

static void sse(void)
{
	const u8 *const checked[] = { movaps_load, movaps_store, addps_load, movntps_store };
	for (unsigned cpl = 0; cpl < 4; cpl += 3) {
		for (unsigned i = 0; i < ARRAY_SIZE(checked); i++) {
			struct state s = access_at(checked[i], (ulong)memory, cpl, 0);
			CHECK_EQ(s.vector, VECTOR_END);
			s = access_at(checked[i], (ulong)memory + 8, cpl, 0);
			CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, checked[i], "TCG does not look at SSE's alignment");
		}
		struct state s = access_at(movups_load, (ulong)memory + 8, cpl, 0);
		CHECK_END(s, movups_load);
	}
}

void guest_main(void)
{
	window_init();
	write_cr4(read_cr4() | CR4_OSFXSR);
	asm volatile("fninit");
	write_cr0(read_cr0() | CR0_AM);
	every_offset();
	conditions();
	stacks();
	priorities();
	sse();
}
