/* A vCPU in 64-bit (or 32-bit) mode with flat segments and a page table that the test fills: the ground of the tests of
 * the software engines. */
#ifndef NADIR_TESTS_FLAT_GUEST_H
#define NADIR_TESTS_FLAT_GUEST_H

#include "arch/paging.h"
#include "cpu/control.h"
#include "cpu/cpuid.h"
#include "cpu/segment.h"
#include "cpu/xstate.h"
#include "engine/engine.h"
#include "engine/step/step.h"
#include "fake_host.h"
#include "host/linux/trap.h"
#include "mmu/mmu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLAT_RAM (8ull << 20) /* at guest physical 0; page tables from 1 MByte on */

struct flat_guest {
	struct vcpu vcpu;
	struct ram ram;
	u8 *memory;
	struct cpuid_policy *policy;
	gpa_t next_table;
	struct exit last_exit; /* the last that the engine asked an answer for */
	unsigned exits;
};

static inline void flat_exit(struct vcpu *vcpu, struct exit *exit)
{
	struct flat_guest *g = container_of(vcpu, struct flat_guest, vcpu);
	if (exit->reason == EXIT_CPUID)
		cpuid_answer(vcpu, exit->cpuid.leaf, exit->cpuid.subleaf, &exit->cpuid.eax, &exit->cpuid.ebx,
			     &exit->cpuid.ecx, &exit->cpuid.edx);
	g->last_exit = *exit;
	g->exits++;
}

static inline int flat_no_interrupt(struct vcpu *vcpu)
{
	vcpu_clear_pending(vcpu, PENDING_INTERRUPT);
	return -1;
}

static inline u64 *flat_table(struct flat_guest *g, u64 *entry)
{
	if (!(*entry & PTE_P)) {
		*entry = g->next_table | PTE_P | PTE_W | PTE_U;
		memset(g->memory + g->next_table, 0, PAGE_SIZE);
		g->next_table += PAGE_SIZE;
	}
	return (u64 *)(void *)(g->memory + (*entry & PTE_ADDR));
}

/* Map one page; bits 0 unmaps it. */
static inline void flat_map(struct flat_guest *g, gla_t gla, gpa_t gpa, u64 bits)
{
	u64 *table = (u64 *)(void *)(g->memory + (g->vcpu.cr3 & PTE_ADDR));
	for (unsigned shift = 39; shift > 12; shift -= 9)
		table = flat_table(g, &table[gla >> shift & 511]);
	table[gla >> 12 & 511] = bits ? gpa | bits : 0;
	mmu_flush_all(&g->vcpu);
}

static inline void flat_segment(struct segment *s, u16 selector, u32 attr)
{
	*s = (struct segment){ .selector = selector, .attr = attr, .limit = 0xffffffff };
}

/* bits: 64, 32 or 16, of the code segment; at CPL `cpl`. */
static inline void flat_mode(struct flat_guest *g, unsigned bits, unsigned cpl)
{
	struct vcpu *v = &g->vcpu;
	u32 dpl = cpl << SEG_ATTR_DPL_SHIFT;
	u32 size = bits == 64 ? SEG_ATTR_L : bits == 32 ? SEG_ATTR_DB : 0;
	flat_segment(&v->seg[SEG_CS], (u16)(8 | cpl), SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_G | 0xb | dpl | size);
	for (unsigned i = 0; i < SEG_COUNT; i++)
		if (i != SEG_CS)
			flat_segment(&v->seg[i], (u16)(16 | cpl),
				     SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_G | SEG_ATTR_DB | 3 | dpl);
	cpu_set_cpl(v, (u8)cpl);
}

static inline void flat_registers(struct vcpu *v)
{
	v->cr0 = CR0_PE | CR0_PG | CR0_MP | CR0_ET | CR0_NE | CR0_WP;
	v->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE;
	v->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
	v->cr3 = 1 << 20;
	v->xcr0 = v->xcr0_valid;
	v->rflags = RFLAGS_FIXED1;
}

static inline struct flat_guest *flat_create_on(const struct engine_ops *engine, const char *cpu)
{
	static const struct vcpu_ops ops = { .exit = flat_exit, .interrupt_acknowledge = flat_no_interrupt };
	char error[200];
	struct flat_guest *g = host_alloc(sizeof(*g));
	g->memory = host_ram_create(FLAT_RAM);
	g->policy = cpuid_policy_create(cpu, 1, host_tsc_hz(), error, sizeof(error));
	if (!g->policy || !g->memory || ram_add(&g->ram, 0, FLAT_RAM, g->memory, false)) {
		fprintf(stderr, "flat guest: %s\n", error);
		exit(1);
	}
	struct vcpu *v = &g->vcpu;
	v->ops = &ops;
	v->ram = &g->ram;
	v->engine = engine;
	cpuid_apply(v, g->policy);
	if (mmu_create(v))
		exit(1);
	cpu_reset(v, false);
	v->activity = ACTIVITY_ACTIVE;
	flat_registers(v);
	g->next_table = v->cr3 + PAGE_SIZE;
	mmu_load_cr3(v, false);
	flat_mode(g, 64, 3);
	host_set_trap_handler(NULL); /* the test framework has its own handlers of these signals */
	trap_thread_init();
	if (engine->vcpu_create(v))
		exit(1);
	return g;
}

static inline struct flat_guest *flat_create(const char *cpu)
{
	return flat_create_on(&engine_step, cpu);
}

static inline void flat_destroy(struct flat_guest *g)
{
	g->vcpu.engine->vcpu_destroy(&g->vcpu);
	mmu_destroy(&g->vcpu);
	ram_release(&g->ram);
	host_ram_destroy(g->memory, FLAT_RAM);
	host_free(g->policy);
	host_free(g);
}

#endif
