/* A vCPU with 4 MBytes of RAM and small descriptor tables, for the tests of segmentation, events and transfers. Every descriptor of
 * the GDT stands at a selector named here. Linear addresses from UNMAPPED on have no page where paging is on. */
#ifndef NADIR_TESTS_CPU_MACHINE_H
#define NADIR_TESTS_CPU_MACHINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "arch/paging.h"
#include "cpu/cpuid.h"
#include "cpu/segment.h"
#include "fake_host.h"
#include "mmu/mmu.h"

#define RAM_SIZE 0x400000ull
#define UNMAPPED 0x200000ull

enum {
	GDT = 0x1000, LDT = 0x1800, IDT = 0x2000, IVT = 0x0, TSS = 0x4000, TSS_NEXT = 0x5000,
	STACK_IN = 0x8000, /* top of the inner stack */
	STACK_OUT = 0xa000, /* top of the stack in use at level 3 */
	PAGE_TABLES = 0x10000,
};

/* Selectors, without RPL. */
enum {
	CODE0 = 0x08, DATA0 = 0x10, CODE3 = 0x18, DATA3 = 0x20, TSS_NOW = 0x28 /* 16 bytes */, LDT_SEL = 0x38 /* 16 */,
	CODE64_0 = 0x48, CODE64_3 = 0x50, CONFORMING0 = 0x58, CODE_NP = 0x60, DATA_NP = 0x68, READ_ONLY = 0x70, EXEC_ONLY = 0x78,
	TSS_FREE = 0x80 /* 16 */, CALL_GATE = 0x90 /* 16 */, TASK_GATE = 0xa0, CODE16 = 0xa8, DATA16 = 0xb0, CONFORMING64 = 0xb8,
	EXPAND_DOWN = 0xc0, CODE1 = 0xc8, DATA1 = 0xd0, TSS16_FREE = 0xd8, FRESH = 0xe0, CODE_LD = 0xe8, CALL_GATE16 = 0xf0,
	SMALL_CODE = 0xf8, TSS_SHORT = 0x100, TSS_NP = 0x108, GATE_NP = 0x110, SMALL_STACK = 0x118, LDT_NP = 0x120, GATE_NULL = 0x128,
	GATE_BAD = 0x138, BEYOND = 0x400,
};
#define LDT_DATA 0x0f /* LDT, index 1, RPL 3 */
#define GDT_LIMIT 0x1ff

#define A_CODE 0x9a
#define A_DATA 0x92
#define A_BIG 0x4000
#define A_PAGES 0x8000
#define A_LONG 0x2000
#define A_DPL(n) ((n) << 5)

static struct vcpu vcpu;
static struct ram ram;
static u8 *memory;

static inline u64 make_descriptor(u32 base, u32 limit, u32 attr)
{
	return (u64)(limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)attr << 40 | (u64)(limit >> 16 & 0xf) << 48 |
	       (u64)(base >> 24) << 56;
}

static inline u64 make_gate(u16 selector, u32 offset, u32 attr, u32 count)
{
	return (u64)(offset & 0xffff) | (u64)selector << 16 | (u64)count << 32 | (u64)attr << 40 |
	       (u64)(offset >> 16) << 48;
}

static inline void put(gpa_t gpa, u64 value, unsigned size)
{
	memcpy(memory + gpa, &value, size);
}

static inline u64 get(gpa_t gpa, unsigned size)
{
	u64 value = 0;
	memcpy(&value, memory + gpa, size);
	return value;
}

static inline void set_gdt(u16 selector, u64 descriptor)
{
	put(GDT + (selector & 0xfff8), descriptor, 8);
}

static inline void machine_tables(void)
{
	const u32 flat = A_BIG | A_PAGES;
	memset(memory, 0, 0x10000);
	set_gdt(CODE0, make_descriptor(0, 0xfffff, A_CODE | 1 | flat));
	set_gdt(DATA0, make_descriptor(0, 0xfffff, A_DATA | 1 | flat));
	set_gdt(CODE3, make_descriptor(0, 0xfffff, A_CODE | 1 | A_DPL(3) | flat));
	set_gdt(DATA3, make_descriptor(0, 0xfffff, A_DATA | 1 | A_DPL(3) | flat));
	set_gdt(TSS_NOW, make_descriptor(TSS, 0x67, 0x8b));
	set_gdt(LDT_SEL, make_descriptor(LDT, 0x1f, 0x82));
	set_gdt(CODE64_0, make_descriptor(0, 0xfffff, A_CODE | 1 | A_LONG | A_PAGES));
	set_gdt(CODE64_3, make_descriptor(0, 0xfffff, A_CODE | 1 | A_DPL(3) | A_LONG | A_PAGES));
	set_gdt(CONFORMING0, make_descriptor(0, 0xfffff, A_CODE | 4 | 1 | flat));
	set_gdt(CODE_NP, make_descriptor(0, 0xfffff, (A_CODE & ~0x80) | flat));
	set_gdt(DATA_NP, make_descriptor(0, 0xfffff, (A_DATA & ~0x80) | flat));
	set_gdt(READ_ONLY, make_descriptor(0, 0xfffff, 0x90 | A_DPL(3) | flat));
	set_gdt(EXEC_ONLY, make_descriptor(0, 0xfffff, 0x98 | A_DPL(3) | flat));
	set_gdt(TSS_FREE, make_descriptor(TSS_NEXT, 0x67, 0x89));
	set_gdt(CALL_GATE, make_gate(CODE0, 0x1234, 0xec, 2));
	set_gdt(TASK_GATE, make_gate(TSS_FREE, 0, 0xe5, 0));
	set_gdt(CODE16, make_descriptor(0, 0xffff, A_CODE | 1));
	set_gdt(DATA16, make_descriptor(0, 0xffff, A_DATA | 1));
	set_gdt(CONFORMING64, make_descriptor(0, 0xfffff, A_CODE | 4 | 1 | A_LONG | A_PAGES));
	set_gdt(EXPAND_DOWN, make_descriptor(0, 0xfff, A_DATA | 4 | A_DPL(3) | A_BIG));
	set_gdt(CODE1, make_descriptor(0, 0xfffff, A_CODE | 1 | A_DPL(1) | flat));
	set_gdt(DATA1, make_descriptor(0, 0xfffff, A_DATA | 1 | A_DPL(1) | flat));
	set_gdt(TSS16_FREE, make_descriptor(TSS_NEXT, 0x2b, 0x81));
	set_gdt(FRESH, make_descriptor(0x12345678, 0x54321, A_DATA | A_DPL(3) | flat));
	set_gdt(CODE_LD, make_descriptor(0, 0xfffff, A_CODE | 1 | A_LONG | flat));
	set_gdt(CALL_GATE16, make_gate(CODE0, 0xabc1234, 0xe4, 2));
	set_gdt(SMALL_CODE, make_descriptor(0, 0xfff, A_CODE | 1 | A_BIG));
	set_gdt(TSS_SHORT, make_descriptor(TSS_NEXT, 0x66, 0x89));
	set_gdt(TSS_NP, make_descriptor(TSS_NEXT, 0x67, 0x09));
	set_gdt(GATE_NP, make_gate(CODE0, 0x1234, 0x6c, 0));
	set_gdt(SMALL_STACK, make_descriptor(0, 7, A_DATA | 1 | A_BIG));
	set_gdt(LDT_NP, make_descriptor(LDT, 0x1f, 0x02));
	set_gdt(GATE_NULL, make_gate(0, 0x1234, 0xec, 0));
	set_gdt(GATE_BAD, make_gate(DATA0, 0x1234, 0xec, 0));
	put(LDT + 8, make_descriptor(0x777000, 0xff, A_DATA | A_DPL(3)), 8);
}

/* 2-MByte pages, the first 2 MBytes identity-mapped for everybody. */
static inline void machine_page_tables(void)
{
	put(PAGE_TABLES, (PAGE_TABLES + 0x1000) | PTE_P | PTE_W | PTE_U, 8);
	put(PAGE_TABLES + 0x1000, (PAGE_TABLES + 0x2000) | PTE_P | PTE_W | PTE_U, 8);
	put(PAGE_TABLES + 0x2000, PTE_P | PTE_W | PTE_U | PTE_PS, 8);
}

/* Nothing answers outside RAM: reads give ones. */
static inline void machine_exit(struct vcpu *v, struct exit *exit)
{
	if (exit->reason == EXIT_MMIO && !exit->mmio.write)
		exit->mmio.value = ~0ull;
}

static inline int machine_create(const char *model)
{
	static const struct vcpu_ops ops = { .exit = machine_exit };
	char error[200];
	memset(&vcpu, 0, sizeof(vcpu));
	vcpu.ops = &ops;
	memset(&ram, 0, sizeof(ram));
	memory = host_ram_create(RAM_SIZE);
	struct cpuid_policy *policy = cpuid_policy_create(model, 1, 1000000000, error, sizeof(error));
	if (!memory || !policy || ram_add(&ram, 0, RAM_SIZE, memory, false) < 0)
		return -1;
	cpuid_apply(&vcpu, policy);
	vcpu.ram = &ram;
	return mmu_create(&vcpu);
}

static inline void machine_destroy(void)
{
	mmu_destroy(&vcpu);
	host_free((void *)vcpu.cpuid);
	ram_release(&ram);
	host_ram_destroy(memory, RAM_SIZE);
}

/* Put a segment register straight from the GDT. */
static inline void set_segment(enum segment_register seg, u16 selector)
{
	if (selector & ~3)
		segment_parse(get(GDT + (selector & 0xfff8), 8), selector, &vcpu.seg[seg]);
	else
		vcpu.seg[seg] = (struct segment){ .selector = selector, .attr = SEG_ATTR_UNUSABLE };
}

static inline void machine_common(u8 cpl)
{
	machine_tables();
	memset(vcpu.gpr, 0, sizeof(vcpu.gpr));
	vcpu.rflags = RFLAGS_FIXED1;
	vcpu.rip = 0x7000;
	vcpu.next_rip = 0x7002;
	vcpu.cr0 = CR0_PE | CR0_ET | CR0_NE;
	vcpu.cr2 = vcpu.cr3 = vcpu.cr4 = vcpu.efer = 0;
	vcpu.dr6 = DR6_FIXED1;
	vcpu.dr7 = DR7_FIXED1;
	vcpu.pending = vcpu.shadow = vcpu.nmi_blocked = 0;
	vcpu.activity = ACTIVITY_ACTIVE;
	memset(&vcpu.msr, 0, sizeof(vcpu.msr));
	memset(&vcpu.fault, 0, sizeof(vcpu.fault));
	vcpu.gdtr = (struct table_register){ GDT, GDT_LIMIT };
	vcpu.idtr = (struct table_register){ IDT, 0xfff };
	vcpu.tr = (struct segment){ .selector = TSS_NOW, .attr = 0x8b, .limit = 0x67, .base = TSS };
	vcpu.ldtr = (struct segment){ .selector = LDT_SEL, .attr = 0x82, .limit = 0x1f, .base = LDT };
	mmu_flush_all(&vcpu);
	cpu_set_cpl(&vcpu, cpl);
}

/* 32-bit protected mode without paging, flat segments of level `cpl` (0 or 3). */
static inline void machine_protected(u8 cpl)
{
	machine_common(cpl);
	u16 data = cpl ? DATA3 | 3 : DATA0;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		set_segment(i, i == SEG_CS ? (cpl ? CODE3 | 3 : CODE0) : data);
	vcpu.gpr[RSP] = cpl ? STACK_OUT : STACK_IN;
	put(TSS + 4, STACK_IN, 4);
	put(TSS + 8, DATA0, 4);
	put(TSS + 12, STACK_IN - 0x1000, 4);
	put(TSS + 16, DATA1 | 1, 4);
	mmu_update_view(&vcpu);
}

/* 64-bit mode with paging. */
static inline void machine_long(u8 cpl)
{
	machine_common(cpl);
	machine_page_tables();
	set_gdt(CALL_GATE, make_gate(CODE64_0, 0x1234, 0xec, 0));
	put(GDT + TSS_NOW + 8, 0, 8);
	for (unsigned i = 0; i < SEG_COUNT; i++)
		set_segment(i, 0);
	set_segment(SEG_CS, cpl ? CODE64_3 | 3 : CODE64_0);
	set_segment(SEG_SS, cpl ? DATA3 | 3 : DATA0);
	vcpu.gpr[RSP] = cpl ? STACK_OUT : STACK_IN;
	put(TSS + 4, STACK_IN, 8);
	put(TSS + 12, STACK_IN - 0x1000, 8);
	put(TSS + 36, STACK_IN - 0x2000, 8); /* IST1 */
	vcpu.cr3 = PAGE_TABLES;
	vcpu.cr4 = CR4_PAE;
	vcpu.efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
	vcpu.cr0 |= CR0_PG | CR0_WP;
	mmu_load_cr3(&vcpu, false);
	mmu_update_view(&vcpu);
}

/* Real mode with all segments at 0. */
static inline void machine_real(void)
{
	machine_common(0);
	vcpu.cr0 &= ~CR0_PE;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		vcpu.seg[i] = (struct segment){ .attr = i == SEG_CS ? 0x9b : 0x93, .limit = 0xffff };
	vcpu.idtr = (struct table_register){ IVT, 0x3ff };
	vcpu.gpr[RSP] = STACK_IN;
}

/* Virtual-8086 mode; the segments lie at 0. */
static inline void machine_v86(unsigned iopl)
{
	machine_protected(0);
	vcpu.rflags |= RFLAGS_VM | (u64)iopl << RFLAGS_IOPL_SHIFT;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		segment_set_real(&vcpu, i, 0);
	vcpu.gpr[RSP] = STACK_OUT;
	cpu_set_cpl(&vcpu, 3);
}

static inline void set_idt(u8 vector, u16 selector, u32 offset, u32 attr)
{
	put(IDT + vector * 8, make_gate(selector, offset, attr, 0), 8);
}

static inline void set_idt64(u8 vector, u16 selector, u64 offset, u32 attr, u32 ist)
{
	put(IDT + vector * 16, make_gate(selector, offset, attr, ist), 8);
	put(IDT + vector * 16 + 8, offset >> 32, 8);
}

/* What a fault must be; vector < 0: none. */
struct expect {
	int vector;
	u32 error;
};
#define SUCCESS { -1, 0 }

/* The architectural part of a vCPU, to see whether it changed. */
struct snapshot {
	u8 bytes[offsetof(struct vcpu, xsave)];
};

static inline void snapshot_take(struct snapshot *s)
{
	struct vcpu *copy = (struct vcpu *)malloc(sizeof(*copy));
	memcpy(copy, &vcpu, sizeof(s->bytes));
	memset(&copy->fault, 0, sizeof(copy->fault));
	memset(&copy->delivery, 0, sizeof(copy->delivery));
	copy->nmi_blocked = false;
	memcpy(s->bytes, copy, sizeof(s->bytes));
	free(copy);
}

static inline bool snapshot_same(const struct snapshot *s)
{
	struct snapshot now;
	snapshot_take(&now);
	return !memcmp(&now, s, sizeof(now));
}

/* Assert a result: success, or that fault and an unchanged vCPU. */
static inline void assert_outcome(bool ok, struct expect expect, const struct snapshot *before, const char *name)
{
	if (expect.vector < 0 && !ok)
		fail_msg("%s: faults with vector %u, error %x", name, vcpu.fault.vector, vcpu.fault.error);
	if (expect.vector < 0)
		return;
	if (ok)
		fail_msg("%s: succeeds, expected vector %d", name, expect.vector);
	if (vcpu.fault.vector != expect.vector || vcpu.fault.error != expect.error)
		fail_msg("%s: vector %u error %x, expected %d %x", name, vcpu.fault.vector, vcpu.fault.error, expect.vector,
			 expect.error);
	if (before && !snapshot_same(before))
		fail_msg("%s: the fault changed the vCPU", name);
}

#endif
