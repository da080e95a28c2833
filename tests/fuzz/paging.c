/* How guest memory reaches the hardware (engine/hw), under any page tables, accesses, invalidations and changes of the machine's memory, with two vCPUs: the hardware
 * never finds anything but the guest's RAM, and writes only where it may. */
#include "arch/exception.h"
#include "arch/paging.h"
#include "engine/hw/memory.h"
#include "fake_bare.h"
#include "input.h"
#include "lib/string.h"

#define RAM_SIZE (4ull << 20)
#define ROM_SIZE (4 * PAGE_SIZE)
#define TABLES_SIZE (8 * PAGE_SIZE) /* where tables are looked for, mostly */
#define VCPUS 2

struct machine {
	struct ram ram;
	struct vcpu vcpu[VCPUS];
	struct hw_memory *m[VCPUS];
	u8 *memory, *rom;
};

static const struct vcpu_ops ops;

/* ---- what the hardware finds ---- */

static const struct ram_slot *slot_of(const struct machine *g, const u8 *hva)
{
	for (unsigned i = 0; i < g->ram.slots; i++)
		if ((u64)(hva - g->ram.slot[i].hva) < g->ram.slot[i].size)
			return &g->ram.slot[i];
	return NULL;
}

static void check_leaf(const struct machine *g, u64 entry, u64 size)
{
	const u8 *hva = (const u8 *)(uintptr_t)(entry & PTE_ADDR & ~(size - 1));
	for (u64 offset = 0; offset < size; offset += PAGE_SIZE) {
		const struct ram_slot *slot = slot_of(g, hva + offset);
		CHECK(slot);
		u8 flags = slot->flags[(u64)(hva + offset - slot->hva) >> PAGE_SHIFT];
		if (entry & PTE_W)
			CHECK(!slot->readonly && !(flags & (PAGE_READONLY | PAGE_TABLE)) && (!slot->log_dirty || (flags & PAGE_DIRTY)));
	}
}

static void check_table(const struct machine *g, const u64 *table, unsigned shift, unsigned entries)
{
	for (unsigned i = 0; i < entries; i++) {
		if (!(table[i] & PTE_P))
			continue;
		if (shift == PAGE_SHIFT || (table[i] & PTE_PS))
			check_leaf(g, table[i], BIT(shift));
		else
			check_table(g, (const u64 *)host_virtual(table[i] & PTE_ADDR), shift - 9, 512);
	}
}

static void check(struct machine *g)
{
	for (unsigned i = 0; i < VCPUS; i++) {
		struct hw_memory *m = g->m[i];
		struct hw_control c;
		m->ops->prepare(m);
		m->ops->control(m, &c);
		bool wide = m->ops->nested || (c.efer.value & EFER_LMA);
		check_table(g, host_virtual(m->ops->root(m)), wide ? 39 : 30, wide ? 512 : 4);
	}
}

/* ---- what guests do ---- */

static void set_mode(struct machine *g, struct input *in)
{
	u8 mode = input_u8(in), bits = input_u8(in);
	for (unsigned i = 0; i < VCPUS; i++) {
		struct vcpu *v = &g->vcpu[i];
		v->cr0 = CR0_PE | CR0_ET | ((mode & 3) ? CR0_PG : 0) | ((bits & 1) ? CR0_WP : 0);
		v->cr4 = ((mode & 3) > 1 ? CR4_PAE : 0) | ((bits & 2) ? CR4_PSE : 0) | ((bits & 4) ? CR4_PGE : 0) | ((bits & 8) ? CR4_SMEP : 0) |
			 ((bits & 16) ? CR4_SMAP : 0);
		v->efer = ((mode & 3) == 3 ? EFER_LME | EFER_LMA : 0) | ((bits & 32) ? EFER_NXE : 0);
		v->pages_1g = bits & 64;
		mmu_flush_all(v);
		mmu_update_view(v);
	}
}

static void load_cr3(struct vcpu *v, struct input *in)
{
	v->cr3 = input_u8(in) * PAGE_SIZE % (2 * TABLES_SIZE);
	for (unsigned i = 0; i < 4; i++)
		v->pdpte[i] = (v->cr3 + i * PAGE_SIZE) % TABLES_SIZE | PTE_P;
	mmu_load_cr3(v, false);
}

static void store(struct machine *g, struct input *in)
{
	u64 where = input_take(in, 2), value = input_take(in, 8);
	/* A byte for the frame: among the tables, somewhere in RAM, ROM, nowhere. */
	if (where & 1)
		value = (value & (0xfff | PTE_NX)) | (value >> 12 & 0xff) << (where & 2 ? PAGE_SHIFT : 19);
	ram_write(&g->ram, where * 8 % TABLES_SIZE, &value, 8);
}

static gla_t address(const struct vcpu *v, struct input *in)
{
	u64 bits = input_take(in, 3);
	gla_t gla = (bits & 3) << 12 | (bits >> 2 & 3) << 21 | (bits >> 4 & 3) << 30 | (bits >> 6 & 3) << 39 | (bits >> 8 & 0xffff);
	if (bits & BIT(23))
		gla = (u64)(u32)input_take(in, 4) << 12;
	return vcpu_long_mode(v) || !(v->cr0 & CR0_PG) ? gla & mask_of(47) : (u32)gla;
}

static void do_fault(struct machine *g, unsigned cpu, struct input *in)
{
	u8 how = input_u8(in);
	struct vcpu *v = &g->vcpu[cpu];
	gla_t gla = address(v, in);
	v->cpl = (how & 1) ? 3 : 0;
	v->rflags = RFLAGS_FIXED1 | ((how & 2) ? RFLAGS_AC : 0);
	mmu_update_view(v);
	g->m[cpu]->ops->prepare(g->m[cpu]);
	g->m[cpu]->ops->fault(g->m[cpu], gla, how >> 2 & (PF_P | PF_WR | PF_US | PF_ID));
}

static void change_memory(struct machine *g, struct input *in)
{
	u8 what = input_u8(in);
	if (what & 1)
		ram_set_readonly(&g->ram, input_u8(in) % (RAM_SIZE / PAGE_SIZE) * PAGE_SIZE, PAGE_SIZE, what & 2);
	else if (what & 2)
		ram_move(&g->ram, g->rom, (u64)input_take(in, 3) << (PAGE_SHIFT + (what >> 2 & 7)));
	else if (what & 4)
		ram_log(&g->ram, what & 8);
}

static void step(struct machine *g, struct input *in)
{
	u8 what = input_u8(in);
	unsigned cpu = what >> 7;
	switch (what % 8) {
	case 0:
		set_mode(g, in);
		break;
	case 1:
		load_cr3(&g->vcpu[cpu], in);
		break;
	case 2:
		mmu_flush_page(&g->vcpu[cpu], address(&g->vcpu[cpu], in));
		break;
	case 3:
		change_memory(g, in);
		break;
	case 4:
		store(g, in);
		break;
	case 5:
		fake_host_limit_pages((what & 0x40) ? 2 : ~0u);
		break;
	default:
		do_fault(g, cpu, in);
	}
}

/* ---- life ---- */

static struct machine *machine(void)
{
	static struct machine *g;
	if (g)
		return g;
	g = host_alloc(sizeof(*g));
	g->memory = host_ram_create(RAM_SIZE);
	g->rom = host_ram_create(ROM_SIZE);
	CHECK(!ram_add(&g->ram, 0, RAM_SIZE, g->memory, false) && !ram_add(&g->ram, 0xfff00000, ROM_SIZE, g->rom, true));
	g->ram.memory = g->memory;
	g->ram.memory_size = RAM_SIZE;
	for (unsigned i = 0; i < VCPUS; i++) {
		struct vcpu *v = &g->vcpu[i];
		v->ops = &ops;
		v->ram = &g->ram;
		v->rflags = RFLAGS_FIXED1;
		v->physical_bits = 40;
		v->linear_bits = 48;
		CHECK(!mmu_create(v));
	}
	return g;
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	static const struct hw_memory_ops *const kinds[] = { &hw_memory_nested, &hw_memory_shadow, &hw_memory_vtlb };
	struct input in = { bytes, size };
	struct machine *g = machine();
	u8 kind = input_u8(&in);
	unsigned pages = fake_host_pages();
	const struct hw_memory_ops *chosen = kinds[kind % ARRAY_SIZE(kinds)];
	memset(g->memory, 0, TABLES_SIZE);
	ram_log(&g->ram, false);
	ram_move(&g->ram, g->rom, 0xfff00000);
	ram_set_readonly(&g->ram, 0, RAM_SIZE, false);
	fake_host_set_run((kind & 0x80) ? PAGE_SIZE : 2 << 20);
	for (unsigned i = 0; i < VCPUS; i++)
		g->m[i] = chosen->create(&g->vcpu[i], chosen->nested ? &hw_format_npt : &hw_format_shadow);
	set_mode(g, &in);
	while (in.left) {
		step(g, &in);
		check(g);
	}
	fake_host_limit_pages(~0u);
	for (unsigned i = 0; i < VCPUS; i++)
		g->m[i]->ops->destroy(g->m[i]);
	CHECK(fake_host_pages() == pages);
	return 0;
}
