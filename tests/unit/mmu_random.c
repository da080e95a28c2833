/* Random page tables, walked by the MMU and by a small model written from the manual's figures alone, one function a
 * paging mode, without the MMU's tables. The result of every access and all bits of the tables must agree. */
#include "random.h"
#include "small_vm.h"

#include <stdio.h>
#include <stdlib.h>

#define TABLES 12
#define REGION (TABLES * PAGE_SIZE) /* of tables, at 0 */
#define ROUNDS 3000
#define ACCESSES 60

/* ---- the model ---- */

struct model {
	u8 memory[REGION];
	u64 pdpte[4];
	unsigned physical_bits;
	bool wp, pse, smep, smap, ac, nxe, pages_1g;
	bool user; /* who */
	bool implicit;
	unsigned kind;
};

struct result {
	bool fault;
	u32 error;
	gpa_t gpa;
};

static u64 load(struct model *m, gpa_t gpa, unsigned size)
{
	u64 value = 0;
	if (gpa + size > REGION)
		return gpa < RAM_SIZE ? 0 : size_mask(size);
	memcpy(&value, m->memory + gpa, size);
	return value;
}

static void or_low_byte(struct model *m, gpa_t gpa, u8 bits)
{
	if (gpa < REGION)
		m->memory[gpa] |= bits;
}

static struct result faulted(const struct model *m, bool wide, u32 bits)
{
	if (m->user)
		bits |= 4;
	if (m->kind == ACCESS_WRITE)
		bits |= 2;
	if (m->kind == ACCESS_EXEC && (m->smep || (wide && m->nxe)))
		bits |= 16;
	return (struct result){ .fault = true, .error = bits };
}

static bool refused(const struct model *m, bool writable, bool user, bool no_exec)
{
	bool write = m->kind == ACCESS_WRITE, exec = m->kind == ACCESS_EXEC;
	if (exec && no_exec)
		return true;
	if (m->user)
		return !user || (write && !writable);
	if (user && exec && m->smep)
		return true;
	if (user && !exec && m->smap && (m->implicit || !m->ac))
		return true;
	return write && m->wp && !writable;
}

static struct result model_32bit(struct model *m, u64 cr3, u32 gla)
{
	gpa_t pde_at = (cr3 & 0xfffff000) + (gla >> 22) * 4;
	u32 pde = (u32)load(m, pde_at, 4);
	u8 dirty = m->kind == ACCESS_WRITE ? 0x40 : 0;
	if (!(pde & 1))
		return faulted(m, false, 0);
	if ((pde & 0x80) && m->pse) {
		unsigned top = m->physical_bits > 40 ? 40 : m->physical_bits;
		for (unsigned bit = top - 32 + 13; bit <= 21; bit++)
			if (pde >> bit & 1)
				return faulted(m, false, 9);
		if (refused(m, pde >> 1 & 1, pde >> 2 & 1, false))
			return faulted(m, false, 1);
		or_low_byte(m, pde_at, 0x20 | dirty);
		return (struct result){ .gpa = (pde & 0xffc00000) | ((u64)(pde >> 13 & 0xff) << 32) |
					       (gla & 0x3fffff) };
	}
	gpa_t pte_at = (pde & 0xfffff000) + (gla >> 12 & 0x3ff) * 4;
	u32 pte = (u32)load(m, pte_at, 4);
	if (!(pte & 1))
		return faulted(m, false, 0);
	if (refused(m, pde & pte & 2, pde & pte & 4, false))
		return faulted(m, false, 1);
	or_low_byte(m, pde_at, 0x20);
	or_low_byte(m, pte_at, 0x20 | dirty);
	return (struct result){ .gpa = (pte & 0xfffff000) | (gla & 0xfff) };
}

/* The levels below `table`; index of the first is taken at bit `shift` of gla. */
static struct result model_64bit(struct model *m, gpa_t table, unsigned shift, u64 gla, bool pae)
{
	bool writable = true, user = true, no_exec = false;
	gpa_t used[5];
	for (unsigned n = 0;; n++, shift -= 9) {
		gpa_t at = used[n] = table + (gla >> shift & 511) * 8;
		u64 entry = load(m, at, 8), frame = entry << 12 >> 24 << 12;
		if (!(entry & 1))
			return faulted(m, true, 0);
		bool reserved =
			(frame >> m->physical_bits) || (entry >> 63 && !m->nxe) || (pae && (entry >> 52 & 0x7ff));
		bool large = shift > 12 && (entry & 0x80);
		if (large)
			reserved |= shift >= 39 || (shift == 30 && !m->pages_1g) ||
				    (frame & ((1ull << shift) - 1) & ~0x1fffull);
		if (reserved)
			return faulted(m, true, 9);
		writable &= !!(entry & 2);
		user &= !!(entry & 4);
		no_exec |= entry >> 63;
		if (shift > 12 && !large) {
			table = frame;
			continue;
		}
		if (refused(m, writable, user, no_exec))
			return faulted(m, true, 1);
		for (unsigned i = 0; i <= n; i++)
			or_low_byte(m, used[i], 0x20);
		if (m->kind == ACCESS_WRITE)
			or_low_byte(m, at, 0x40);
		u64 offset = (1ull << shift) - 1;
		return (struct result){ .gpa = (frame & ~offset) | (gla & offset) };
	}
}

static struct result model_walk(struct model *m, enum paging mode, u64 cr3, u64 gla)
{
	switch (mode) {
	case PAGING_32BIT:
		return model_32bit(m, cr3, (u32)gla);
	case PAGING_PAE:
		if (!(m->pdpte[gla >> 30 & 3] & 1))
			return faulted(m, true, 0);
		return model_64bit(m, m->pdpte[gla >> 30 & 3] & ~0xfffull, 21, gla, true);
	case PAGING_4LEVEL:
		return model_64bit(m, cr3, 39, gla, false);
	default:
		return model_64bit(m, cr3, 48, gla, false);
	}
}

/* ---- random machines ---- */

static u64 random_frame(void)
{
	if (chance(40))
		return random64() & PTE_ADDR;
	if (chance(30))
		return MMIO_BASE + (random64() & 0xff000);
	if (chance(30))
		return (random64() & 0xff) << 21;
	return (random64() % TABLES) << 12;
}

static u64 random_entry(void)
{
	u64 entry = random_frame() | PTE_P | (random64() & 0xf00);
	entry |= (chance(4) ? 0 : PTE_W) | (chance(4) ? 0 : PTE_U) | (chance(3) ? PTE_A : 0) | (chance(3) ? PTE_D : 0);
	if (chance(12))
		entry |= PTE_PS;
	if (chance(8))
		entry |= PTE_NX;
	if (chance(25))
		entry |= BIT(52 + random64() % 11);
	return chance(12) ? entry & ~PTE_P : entry;
}

static u32 random_entry32(void)
{
	u64 entry = random_entry();
	return (u32)(entry & PTE_PS && chance(2) ? entry & ~(u64)BIT(21) : entry);
}

static void random_machine(struct small_vm *vm, struct model *m, enum paging mode)
{
	struct vcpu *v = &vm->vcpu;
	static const u8 widths[] = { 32, 36, 39, 40, 46, 48, 52 };
	for (unsigned i = 0; i < REGION; i += mode == PAGING_32BIT ? 4 : 8) {
		if (mode == PAGING_32BIT)
			*entry32(vm, i) = random_entry32();
		else
			*entry64(vm, i) = random_entry();
	}
	paging_enable(vm, mode, 0, 0);
	v->physical_bits = m->physical_bits = widths[random64() % ARRAY_SIZE(widths)];
	v->pages_1g = m->pages_1g = chance(2);
	v->cr3 = (random64() % TABLES) << 12;
	for (unsigned i = 0; i < 4; i++)
		v->pdpte[i] = m->pdpte[i] = (random64() % TABLES) << 12 | !chance(8);
	m->wp = chance(2);
	m->smep = chance(2);
	m->smap = chance(2);
	m->nxe = !chance(3);
	m->pse = mode != PAGING_32BIT || !chance(4);
	v->cr0 |= m->wp ? CR0_WP : 0;
	v->cr4 |= (m->smep ? CR4_SMEP : 0) | (m->smap ? CR4_SMAP : 0) | (chance(2) ? CR4_PGE : 0);
	v->cr4 &= m->pse ? ~0ull : ~CR4_PSE;
	v->efer |= m->nxe ? EFER_NXE : 0;
	memcpy(m->memory, vm->memory, REGION);
	mmu_flush_all(v);
}

static void random_access(struct small_vm *vm, struct model *m, enum paging mode, unsigned round)
{
	struct vcpu *v = &vm->vcpu;
	/* Few indexes, so that the TLB is hit too. */
	u64 gla = 0;
	for (unsigned shift = 12; shift < 57; shift += 9)
		gla |= (random64() & 3) << shift;
	gla |= random64() & 0xfff;
	if (mode == PAGING_32BIT || mode == PAGING_PAE)
		gla = (u32)(gla | (random64() & 3) << 30);
	m->kind = random64() % 3;
	m->implicit = chance(4);
	v->cpl = chance(2) ? 3 : 0;
	m->user = v->cpl == 3 && !m->implicit;
	m->ac = chance(2);
	v->rflags = RFLAGS_FIXED1 | (m->ac ? RFLAGS_AC : 0);
	mmu_update_view(v);

	struct translation t;
	struct result expected = model_walk(m, mode, v->cr3, gla);
	bool done = mmu_translate(v, gla, m->kind | (m->implicit ? ACCESS_IMPLICIT : 0), &t);
	if (done == expected.fault || (done ? t.gpa != expected.gpa : v->fault.error != expected.error))
		fail_msg("round %u mode %u gla %llx kind %u: %s, gpa %llx error %x; expected %s, gpa %llx error %x",
			 round, mode, (unsigned long long)gla, m->kind, done ? "done" : "fault",
			 (unsigned long long)(done ? t.gpa : 0), done ? 0 : v->fault.error,
			 expected.fault ? "fault" : "done", (unsigned long long)expected.gpa, expected.error);
	if (done && expected.gpa < RAM_SIZE)
		assert_ptr_equal(t.hva, vm->memory + expected.gpa);
}

static void random_tables(void **state)
{
	struct small_vm *vm = *state;
	struct model *m = host_alloc(sizeof(*m));
	const char *given = getenv("NADIR_TEST_SEED");
	seed = given ? strtoull(given, NULL, 0) : 0x9e3779b97f4a7c15ull;
	print_message("seed %#llx\n", (unsigned long long)seed);
	for (unsigned round = 0; round < ROUNDS; round++) {
		enum paging mode = round % PAGING_MODES;
		random_machine(vm, m, mode);
		for (unsigned i = 0; i < ACCESSES; i++)
			random_access(vm, m, mode, round);
		assert_memory_equal(m->memory, vm->memory, REGION);
	}
	host_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(random_tables, small_vm_setup, small_vm_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
