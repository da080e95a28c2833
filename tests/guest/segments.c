/* Loading segment registers and using segments: the type, privilege, presence and limit checks with their vectors and
 * error codes. Intel SDM volume 2: MOV, LDS; volume 3, "Limit Checking", "Type Checking", "Privilege Level Checking
 * When Accessing Data Segments". */
#include "lib/guest.h"

#define TEST_SELECTOR SEL_FREE

/* ---- Loads: every type, DPL, RPL, CPL and presence into every register ---- */

CODE(load_ds, "mov %eax, %ds");
CODE(load_es, "mov %eax, %es");
CODE(load_fs, "mov %eax, %fs");
CODE(load_gs, "mov %eax, %gs");
CODE(load_ss, "mov %eax, %ss");
static u8 *const loads[] = { load_ds, load_es, load_fs, load_gs, load_ss };

struct load {
	unsigned type, dpl, rpl, cpl; /* type: the low five bits of the access byte */
	bool present;
	unsigned reg; /* index into loads */
};

struct outcome {
	unsigned vector;
	ulong error;
};

static struct outcome ss_load_outcome(const struct load *l)
{
	bool writable_data = (l->type & 0x1a) == 0x12;
	if (l->rpl != l->cpl || l->dpl != l->cpl || !writable_data)
		return (struct outcome){ VEC_GP, TEST_SELECTOR };
	if (!l->present)
		return (struct outcome){ VEC_SS, TEST_SELECTOR };
	return (struct outcome){ VECTOR_END, NO_ERROR };
}

static struct outcome data_load_outcome(const struct load *l)
{
	bool code = l->type & 8, segment = l->type & 16;
	bool conforming = code && (l->type & 4);
	if (!segment || (code && !(l->type & 2)))
		return (struct outcome){ VEC_GP, TEST_SELECTOR };
	if (!conforming && (l->rpl > l->dpl || l->cpl > l->dpl))
		return (struct outcome){ VEC_GP, TEST_SELECTOR };
	if (!l->present)
		return (struct outcome){ VEC_NP, TEST_SELECTOR };
	return (struct outcome){ VECTOR_END, NO_ERROR };
}

static void load_one(const struct load *l)
{
	bool expand_down = (l->type & 0x1c) == 0x14;
	unsigned access = l->type | ACCESS_DPL(l->dpl) | (l->present ? ACCESS_P : 0);
	gdt_set(TEST_SELECTOR,
		descriptor(0, expand_down ? 0 : 0xfffff, access, expand_down ? DESC_DB : DESC_G | DESC_DB));
	struct outcome want = l->reg == 4 ? ss_load_outcome(l) : data_load_outcome(l);
	struct state s = state_at(loads[l->reg], l->cpl);
	s.ax = TEST_SELECTOR | l->rpl;
	run(&s);
	bool loaded = want.vector == VECTOR_END;
	unsigned accessed = gdt[TEST_SELECTOR / 8] >> 40 & 1;
	bool ok = s.vector == want.vector && s.error == want.error && (loaded || s.ip == (ulong)loads[l->reg]) &&
		  accessed == (loaded ? 1 : l->type & 1);
	CHECK(ok);
	if (ok)
		return;
	print("    register %u type %x dpl %u rpl %u cpl %u present %u: want vector %u error %lx\n", l->reg, l->type,
	      l->dpl, l->rpl, l->cpl, l->present, want.vector, want.error);
	state_print(&s);
}

static void load_everything(void)
{
	for (unsigned i = 0; i < 32 * 4 * 4 * 4 * 2; i++) {
		struct load l = {
			.type = i & 31, .dpl = i >> 5 & 3, .rpl = i >> 7 & 3, .cpl = i >> 9 & 3, .present = i >> 11
		};
		l.reg = i % 4; /* the four data registers follow one rule */
		load_one(&l);
		l.reg = 4;
		load_one(&l);
	}
}

static void null_and_foreign_selectors(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		for (unsigned rpl = 0; rpl < 4; rpl++) {
			struct state s = state_at(load_ds, cpl);
			s.ax = rpl;
			run(&s);
			CHECK_END(s, load_ds);
			CHECK_EQ(s.ds, rpl);
			s = state_at(load_ss, cpl);
			s.ax = rpl;
			run(&s);
			if (sizeof(long) == 8 && cpl < 3 && rpl != cpl && is_amd)
				continue; /* Intel wants RPL = CPL; AMD's manual does not say */
			if (sizeof(long) == 8 && cpl < 3 && rpl == cpl)
				CHECK_END(s, load_ss); /* 64-bit mode allows a null SS, but for user code */
			else
				CHECK_FAULT(s, VEC_GP, 0, load_ss);
		}
		struct state s = state_at(load_es, cpl);
		s.ax = sizeof(gdt) | 3; /* beyond the GDT */
		run(&s);
		CHECK_FAULT(s, VEC_GP, sizeof(gdt), load_es);
		s = state_at(load_es, cpl);
		s.ax = 0x17; /* no LDT */
		run(&s);
		CHECK_FAULT(s, VEC_GP, 0x14, load_es);
		s = state_at(load_ss, cpl);
		s.ax = 0xfff8 | cpl;
		run(&s);
		CHECK_FAULT(s, VEC_GP, 0xfff8, load_ss);
	}
}

/* MOV to CS does not exist; segment register numbers 6 and 7 neither. */
CODE(load_cs, ".byte 0x8e, 0xc8");
CODE(load_register6, ".byte 0x8e, 0xf0");
CODE(store_register7, ".byte 0x8c, 0xf8");

static void no_such_register(void)
{
	struct state s = run_code(load_cs, 0);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, load_cs);
	s = run_code(load_register6, 3);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, load_register6);
	s = run_code(store_register7, 3);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, store_register7);
}

/* ---- Far pointers: the register changes only when the segment was loaded ---- */

CODE(far_fs, "lfs (" R "di), %ecx");
CODE(far_ss, "lss (" R "di), %esp");

static void far_pointers(void)
{
	struct __attribute__((packed)) {
		u32 offset;
		u16 selector;
	} pointer = { 0x12345678, SEL_USER_DATA | 3 };
	struct state s = state_at(far_fs, 3);
	s.di = (ulong)&pointer;
	s.cx = 0x5555;
	run(&s);
	CHECK_END(s, far_fs);
	CHECK(s.fs == (SEL_USER_DATA | 3) && s.cx == 0x12345678);
	pointer.selector = SEL_DATA;
	s = state_at(far_fs, 3);
	s.di = (ulong)&pointer;
	s.cx = 0x5555;
	run(&s);
	CHECK_FAULT(s, VEC_GP, SEL_DATA, far_fs);
	CHECK(s.fs == 0 && s.cx == 0x5555);
	s = state_at(far_ss, 3);
	s.di = (ulong)&pointer;
	ulong sp = s.sp;
	run(&s);
	CHECK_FAULT(s, VEC_GP, SEL_DATA, far_ss);
	CHECK_EQ(s.sp, sp);
}

/* ---- Limits and rights of accesses (none in 64-bit mode) ---- */

#ifndef __x86_64__
#define QEMU_LIMITS "TCG does not check limits and rights of segments"
#define BASE 0x40000u

CODE(read8, "mov %fs:(%ebx), %al");
CODE(read16, "mov %fs:(%ebx), %ax");
CODE(read32, "mov %fs:(%ebx), %eax");
CODE(write8, "mov %al, %fs:(%ebx)");
CODE(write16, "mov %ax, %fs:(%ebx)");
CODE(write32, "mov %eax, %fs:(%ebx)");

static void access_one(unsigned access, u32 limit, unsigned flags, u32 offset, unsigned size, bool write)
{
	u8 *const codes[2][3] = { { read8, read16, read32 }, { write8, write16, write32 } };
	u8 *code = codes[write][size >> 1];
	gdt_set(TEST_SELECTOR, descriptor(BASE, limit, access | ACCESS_DPL(3), flags));
	u32 last = flags & DESC_G ? limit << 12 | 0xfff : limit;
	bool data = !(access & 8), expand_down = data && (access & 4);
	u32 top = flags & DESC_DB ? 0xffffffffu : 0xffff;
	u32 end = offset + size - 1;
	bool inside = expand_down ? offset > last && end <= top && end >= offset : end <= last && end >= offset;
	bool right = write ? data && (access & 2) : data || (access & 2);
	struct state s = state_at(code, 3);
	s.fs = TEST_SELECTOR | 3;
	s.bx = offset;
	run(&s);
	bool ok = inside && right ? s.vector == VECTOR_END : s.vector == VEC_GP && s.error == 0 && s.ip == (ulong)code;
	CHECK_BUT_QEMU(ok, QEMU_LIMITS);
	if (!ok && !on_qemu) {
		print("    access %x limit %x flags %x offset %x size %u write %u\n", access, limit, flags, offset,
		      size, write);
		state_print(&s);
	}
}

static void accesses(void)
{
	static const struct {
		u8 access, flags;
		u32 limit;
	} segments[] = {
		{ 0x93, DESC_DB, 0x0fff },     { 0x93, 0, 0x7ffe },       { 0x93, DESC_DB | DESC_G, 3 },
		{ 0x91, DESC_DB, 0x1000 },     { 0x93, DESC_DB, 0 },      { 0x97, DESC_DB, 0x0fff },
		{ 0x97, 0, 0x0fff },           { 0x97, 0, 0x7000 },       { 0x95, DESC_DB, 0x0100 },
		{ 0x97, DESC_DB | DESC_G, 1 }, { 0x9b, DESC_DB, 0x2000 }, { 0x9f, DESC_DB, 0x2000 },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(segments); i++) {
		u32 limit = segments[i].limit, last = segments[i].flags & DESC_G ? limit << 12 | 0xfff : limit;
		u32 offsets[] = { 0,        last - 4, last - 3, last - 2, last - 1, last,
				  last + 1, last + 2, 0xfffe,   0xffff,   0x10000 };
		for (unsigned j = 0; j < ARRAY_SIZE(offsets) * 6; j++)
			access_one(segments[i].access, limit, segments[i].flags, offsets[j / 6], 1 << j % 3, j % 6 / 3);
	}
}

/* A null segment register faults when it is used, with #GP; the stack's faults are #SS. */
CODE(push_word, "push %eax");
CODE(read_by_bp, "mov (%ebp), %eax");
CODE(read_sp_by_ds, "mov %ds:(%ebp), %eax");
CODE(near_jump, "jmp *%eax");
CODE(execute_only_read, "mov %cs:(%ebx), %eax");

static void null_segment_faults(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = state_at(read32, cpl);
		s.fs = cpl; /* a null selector, with an RPL */
		run(&s);
		CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, read32, QEMU_LIMITS);
		s = state_at(write8, cpl);
		s.bx = BASE;
		run(&s);
		CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, write8, QEMU_LIMITS);
	}
}

static void near_jump_checks_limit(void)
{
	u32 limit = (u32)(ulong)near_jump_end + 16;
	gdt_set(TEST_SELECTOR, descriptor(0, limit >> 12, ACCESS_CODE | ACCESS_DPL(3), DESC_G | DESC_DB));
	struct state s = state_at(near_jump, 3);
	s.cs = TEST_SELECTOR | 3;
	s.ax = (limit | 0xfff) + 1;
	run(&s);
	CHECK_FAULT(s, VEC_GP, 0, near_jump);
	gdt_set(TEST_SELECTOR, descriptor(0, 0xfffff, 0x99 | ACCESS_DPL(3), DESC_G | DESC_DB));
	s = state_at(execute_only_read, 3);
	s.cs = TEST_SELECTOR | 3;
	s.bx = BASE;
	run(&s);
	CHECK_FAULT(s, VEC_GP, 0, execute_only_read);
}

static void stack_limits(void)
{
	static const struct {
		u32 sp;
		bool ok;
	} pushes[] = { { 0x1000, true }, { 0x1001, false }, { 0x0004, true }, { 0x0003, false }, { 0x0ffc, true } };
	gdt_set(TEST_SELECTOR, descriptor(BASE, 0x0fff, ACCESS_DATA | ACCESS_DPL(3), DESC_DB));
	for (unsigned i = 0; i < ARRAY_SIZE(pushes); i++) {
		struct state s = state_at(push_word, 3);
		s.ss = TEST_SELECTOR | 3;
		s.sp = pushes[i].sp;
		run(&s);
		if (pushes[i].ok)
			CHECK_END(s, push_word);
		else
			CHECK_FAULT_BUT_QEMU(s, VEC_SS, 0, push_word, QEMU_LIMITS);
		if (s.vector == VEC_SS)
			CHECK_EQ(s.sp, pushes[i].sp);
	}
	struct state s = state_at(read_by_bp, 3);
	s.ss = TEST_SELECTOR | 3;
	s.bp = 0x0ffd;
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_SS, 0, read_by_bp, QEMU_LIMITS);
	s = state_at(read_sp_by_ds, 3);
	s.ds = TEST_SELECTOR | 3;
	s.bp = 0x0ffd;
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, read_sp_by_ds, QEMU_LIMITS);
}
#else
CODE(read_gs, "mov %gs:(%rbx), %eax");

/* In 64-bit mode limits and null selectors do not matter, and DS, ES, SS have no base; addresses must be canonical. */
CODE(read_noncanonical, "mov (%rbx), %eax");
CODE(read_noncanonical_bp, "mov (%rbp), %eax");
CODE(push_noncanonical, "push %rax");
CODE(jump_noncanonical, "jmp *%rbx");

static void canonical_addresses(void)
{
	struct state s = state_at(read_gs, 3);
	s.bx = (ulong)gdt;
	run(&s);
	CHECK_END(s, read_gs);
	s = state_at(read_noncanonical, 3);
	s.bx = 0x800000000000;
	run(&s);
	CHECK_FAULT(s, VEC_GP, 0, read_noncanonical);
	s = state_at(read_noncanonical_bp, 0);
	s.bp = 0xffff000000000000;
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_SS, 0, read_noncanonical_bp, "TCG raises #GP for stack references too");
	s = state_at(push_noncanonical, 3);
	s.sp = 0x800000000008;
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_SS, 0, push_noncanonical, "TCG raises #GP for stack references too");
	s = state_at(jump_noncanonical, 3);
	s.bx = 0x1000000000000;
	run(&s);
	CHECK_EQ(s.vector, VEC_GP);
	CHECK_EQ(s.error, 0);
	CHECK_BUT_QEMU(s.ip == (ulong)jump_noncanonical, "TCG faults at the target");
}
#endif

void guest_main(void)
{
	load_everything();
	null_and_foreign_selectors();
	no_such_register();
	far_pointers();
#ifndef __x86_64__
	accesses();
	null_segment_faults();
	stack_limits();
	if (!on_qemu) /* runs on into nowhere */
		near_jump_checks_limit();
#else
	canonical_addresses();
#endif
}
