/* The ground of the translator's tests: a flat 64-bit guest at CPL 0 with an IDT whose handlers halt, on an engine of the test's choice.
 * Programs are code of the test program, written as assembly between two labels and ended by HLT. */
#ifndef NADIR_TESTS_BT_GUEST_H
#define NADIR_TESTS_BT_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "flat_guest.h"

#define CODE 0x400000ull
#define DATA 0x500000ull /* pages that are neighbours for the guest only; the last is followed by nothing */
#define STACK_TOP 0x600000ull
#define HANDLERS 0x700000ull /* one HLT for each vector, 16 bytes apart */
#define TABLES 0x710000ull /* GDT, TSS, IDT */
#define TABLES_GPA 0x200000ull
#define CODE_GPA 0x10000ull
#define PAGES 4
#define DATA_GPA(page) (0x40000ull - (page) * 2 * PAGE_SIZE)

#define PROGRAM(name, text)                                                                                                               \
	__asm__(".pushsection .rodata\n" #name "_start:\n" text "\nhlt\n" #name "_end:\n.popsection\n");                                   \
	extern const u8 name##_start[], name##_end[]

/* A fault as its handler finds it. */
struct fault_frame {
	unsigned vector;
	u64 error, rip, cs, rflags, rsp, ss;
};

static inline void bt_gate(u8 *idt, unsigned vector)
{
	u64 handler = HANDLERS + vector * 16;
	u64 low = (handler & 0xffff) | 8ull << 16 | 0x8e00ull << 32 | (handler >> 16 & 0xffff) << 48;
	memcpy(idt + vector * 16, &low, 8);
}

static inline void bt_tables(struct flat_guest *g)
{
	struct vcpu *v = &g->vcpu;
	u64 code = 0x00af9b000000ffff, data = 0x00cf93000000ffff;
	for (unsigned i = 0; i < 3; i++)
		flat_map(g, TABLES + i * PAGE_SIZE, TABLES_GPA + i * PAGE_SIZE, PTE_P | PTE_W);
	flat_map(g, HANDLERS, TABLES_GPA + 3 * PAGE_SIZE, PTE_P | PTE_W);
	memcpy(g->memory + TABLES_GPA + 8, &code, 8);
	memcpy(g->memory + TABLES_GPA + 16, &data, 8);
	for (unsigned vector = 0; vector < 32; vector++) {
		bt_gate(g->memory + TABLES_GPA + 2 * PAGE_SIZE, vector);
		g->memory[TABLES_GPA + 3 * PAGE_SIZE + vector * 16] = 0xf4;
	}
	v->gdtr = (struct table_register){ TABLES, 0xff };
	v->tr = (struct segment){ .selector = 0x40, .base = TABLES + PAGE_SIZE, .limit = 0x67, .attr = SEG_ATTR_P | SYS_TSS_BUSY };
	v->idtr = (struct table_register){ TABLES + 2 * PAGE_SIZE, 0x1ff };
}

static inline struct flat_guest *bt_guest(const struct engine_ops *engine)
{
	struct flat_guest *g = flat_create_on(engine, "host");
	for (u64 page = 0; page < PAGES; page++) {
		flat_map(g, CODE + page * PAGE_SIZE, CODE_GPA + page * PAGE_SIZE, PTE_P | PTE_W);
		flat_map(g, DATA + page * PAGE_SIZE, DATA_GPA(page), PTE_P | PTE_W);
		flat_map(g, STACK_TOP - (page + 1) * PAGE_SIZE, 0x50000 + page * PAGE_SIZE, PTE_P | PTE_W);
	}
	flat_mode(g, 64, 0);
	bt_tables(g);
	return g;
}

/* Code into the guest, as a device would put it there. */
static inline void bt_load(struct flat_guest *g, u64 offset, const u8 *start, const u8 *end)
{
	memcpy(g->memory + CODE_GPA + offset, start, (size_t)(end - start));
	ram_written(&g->ram, CODE_GPA + offset, (u64)(end - start));
}

static inline enum exit_reason bt_go(struct flat_guest *g, u64 rip)
{
	struct vcpu *v = &g->vcpu;
	struct exit exit;
	v->rip = rip;
	v->gpr[RSP] = STACK_TOP - 0x800;
	v->activity = ACTIVITY_ACTIVE;
	v->engine->run(v, &exit);
	return exit.reason;
}

/* Run a program at an offset from CODE to its HLT. */
static inline void bt_run_at(struct flat_guest *g, const u8 *start, const u8 *end, u64 offset)
{
	bt_load(g, offset, start, end);
	assert_int_equal(bt_go(g, CODE + offset), EXIT_HLT);
	assert_int_equal(g->vcpu.rip, CODE + offset + (u64)(end - start));
}

/* Run from RIP to the fault that must be taken. */
static inline struct fault_frame bt_fault_from(struct flat_guest *g, u64 rip)
{
	static const u32 with_error = BIT(VEC_DF) | BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) | BIT(VEC_PF) | BIT(VEC_AC);
	struct fault_frame f = { 0 };
	struct vcpu *v = &g->vcpu;
	assert_int_equal(bt_go(g, rip), EXIT_HLT);
	assert_in_range(v->rip, HANDLERS, HANDLERS + PAGE_SIZE);
	f.vector = (unsigned)(v->rip - HANDLERS) / 16;
	bool error = with_error >> f.vector & 1;
	u64 rsp = v->gpr[RSP];
	if (error) {
		assert_true(mmu_read(v, rsp, &f.error, 8, ACCESS_READ));
		rsp += 8;
	}
	u64 *const words[] = { &f.rip, &f.cs, &f.rflags, &f.rsp, &f.ss };
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		assert_true(mmu_read(v, rsp + i * 8, words[i], 8, ACCESS_READ));
	return f;
}

/* The same for a program at an offset from CODE. */
static inline struct fault_frame bt_fault_at(struct flat_guest *g, const u8 *start, const u8 *end, u64 offset)
{
	bt_load(g, offset, start, end);
	return bt_fault_from(g, CODE + offset);
}

#define RUN(g, name) bt_run_at(g, name##_start, name##_end, 0)
#define FAULT(g, name) bt_fault_at(g, name##_start, name##_end, 0)
#define LENGTH(name) ((u64)(name##_end - name##_start))

/* A data word by its guest linear address. */
static inline u64 *bt_data(struct flat_guest *g, gla_t gla)
{
	return (u64 *)(void *)(g->memory + DATA_GPA((gla - DATA) >> PAGE_SHIFT) + (gla & ~PAGE_MASK));
}

#endif
