/* Shadows of the guest's page tables, against what a TLB could hold. Random tables are changed at random, used, and invalidated as the manual wants it.
 * The walker of mmu/walk.h is the oracle: what it said of a page at any time since the page was invalidated last is what a CPU may still go by; a shadow may
 * permit some of one such answer, and no more. What was invalidated just now is as the walker says now. */
#include "random.h"
#include "small_vm.h"

#include "arch/exception.h"
#include "fake_bare.h"
#include "hw_look.h"
#include "mmu/walk.h"

#include <stdio.h>
#include <stdlib.h>

#define TABLES 16
#define REGION (TABLES * PAGE_SIZE) /* of tables, at 0 */
#define ROUNDS 240
#define OPERATIONS 300
#define PAGES 24
#define ANSWERS 64

struct page {
	gla_t gla;
	unsigned answers;
	struct walk answer[ANSWERS];
};

struct test {
	struct small_vm *vm;
	struct hw_memory *m;
	bool paging;
	enum paging mode;
	unsigned round;
	struct page page[PAGES];
	u64 hits, fills, faults, emulated; /* what happened, so that a test that tests nothing is seen */
};

/* ---- the hardware ---- */

static struct hw_control control_of(struct test *t)
{
	struct hw_control c;
	t->m->ops->control(t->m, &c);
	return c;
}

static struct found look(struct test *t, gla_t gla)
{
	return hw_look(t->vm, t->m, gla);
}

static bool hardware_permits(struct test *t, const struct found *f, enum tlb_view view, unsigned kind)
{
	struct hw_control c = control_of(t);
	u64 cr4 = (t->vm->vcpu.cr4 & ~c.cr4.own) | c.cr4.value;
	if (!f->present || (kind == ACCESS_EXEC && !f->execute) || (kind == ACCESS_WRITE && !f->write))
		return false;
	if (view == VIEW_USER)
		return f->user;
	return !f->user || !(kind == ACCESS_EXEC ? cr4 & CR4_SMEP : view == VIEW_SUPERVISOR_SMAP && (cr4 & CR4_SMAP));
}

/* ---- what a TLB could hold ---- */

static bool same_walk(const struct walk *a, const struct walk *b)
{
	return a->gpa == b->gpa && a->page_shift == b->page_shift && a->writable == b->writable && a->user == b->user && a->no_execute == b->no_execute &&
	       a->dirty == b->dirty && a->global == b->global && a->any == b->any && a->error == b->error;
}

static void learn(struct test *t)
{
	for (unsigned i = 0; i < PAGES; i++) {
		struct page *p = &t->page[i];
		struct walk w = { 0 };
		if (!walk_inspect(&t->vm->vcpu, p->gla, &w) || (p->answers && same_walk(&w, &p->answer[p->answers - 1])))
			continue;
		assert_true(p->answers < ANSWERS);
		p->answer[p->answers++] = w;
	}
}

static bool is_rom(gpa_t gpa)
{
	return gpa >= ROM_BASE;
}

static bool answer_covers(struct test *t, const struct walk *w, const struct found *f)
{
	bool smap = t->vm->vcpu.cr4 & CR4_SMAP;
	if (w->gpa != f->gpa)
		return false;
	for (unsigned view = 0; view < (smap ? VIEW_COUNT : VIEW_SUPERVISOR_SMAP); view++)
		for (unsigned kind = 0; kind < 3; kind++)
			if (hardware_permits(t, f, view, kind) && (!walk_permits(&t->vm->vcpu, w, view, kind) || (kind == ACCESS_WRITE && !w->dirty)))
				return false;
	return true;
}

static void check_page(struct test *t, const struct page *p)
{
	struct found f = look(t, p->gla);
	if (!f.present)
		return;
	assert_false(f.write && is_rom(f.gpa));
	for (unsigned i = 0; i < p->answers; i++)
		if (answer_covers(t, &p->answer[i], &f))
			return;
	fail_msg("round %u mode %u: the shadow has %llx at %llx, write %u user %u execute %u, which no TLB could hold", t->round, t->mode,
		 (unsigned long long)p->gla, (unsigned long long)f.gpa, f.write, f.user, f.execute);
}

static void forget_all(struct test *t, bool global)
{
	for (unsigned i = 0; i < PAGES; i++) {
		struct page *p = &t->page[i];
		unsigned kept = 0;
		for (unsigned j = 0; j < p->answers; j++)
			if (!global && p->answer[j].global)
				p->answer[kept++] = p->answer[j];
		p->answers = kept;
	}
}

static void check_all(struct test *t)
{
	t->m->ops->prepare(t->m);
	if (t->m->ops == &hw_memory_shadow) /* which is always in step */
		forget_all(t, true);
	learn(t);
	for (unsigned i = 0; i < PAGES; i++)
		check_page(t, &t->page[i]);
}

/* ---- what a guest does ---- */

static u64 random_frame(void)
{
	if (chance(40))
		return random64() & PTE_ADDR;
	if (chance(30))
		return MMIO_BASE + (random64() & 0xff000);
	if (chance(30))
		return ROM_BASE + (random64() & 0xf000);
	if (chance(8))
		return (random64() & 7) << 21;
	return chance(2) ? (random64() % TABLES) << 12 : REGION + ((random64() & 0xff) << 12);
}

static u64 random_entry(void)
{
	u64 entry = random_frame() | PTE_P | (random64() & 0xf00);
	entry |= (chance(4) ? 0 : PTE_W) | (chance(4) ? 0 : PTE_U) | (chance(3) ? PTE_A : 0) | (chance(3) ? PTE_D : 0);
	if (chance(8))
		entry = (entry | PTE_PS) & ~(mask_of(21) & ~mask_of(13));
	if (chance(8))
		entry |= PTE_NX;
	return chance(16) ? entry & ~PTE_P : entry;
}

static unsigned entry_size(const struct test *t)
{
	return t->mode == PAGING_32BIT ? 4 : 8;
}

static void random_registers(struct test *t)
{
	struct vcpu *v = &t->vm->vcpu;
	t->paging = !chance(12);
	t->mode = t->round % 3;
	for (unsigned i = 0; i < REGION; i += entry_size(t)) {
		u64 entry = random_entry();
		memcpy(t->vm->memory + i, &entry, entry_size(t));
	}
	paging_enable(t->vm, t->mode, 0, 0);
	v->pages_1g = chance(2);
	v->cr3 = (random64() % TABLES) << 12;
	for (unsigned i = 0; i < 4; i++)
		v->pdpte[i] = (random64() % TABLES) << 12 | !chance(8);
	v->cr0 |= chance(2) ? CR0_WP : 0;
	v->cr4 |= (chance(2) ? CR4_SMEP : 0) | (chance(2) ? CR4_SMAP : 0) | (chance(2) ? CR4_PGE : 0);
	v->efer |= chance(3) ? 0 : EFER_NXE;
	if (!t->paging) {
		v->cr0 &= ~CR0_PG;
		v->efer &= ~EFER_LMA;
	}
	mmu_flush_all(v);
	mmu_update_view(v);
}

static void random_pages(struct test *t)
{
	for (unsigned i = 0; i < PAGES; i++) {
		gla_t gla = 0;
		for (unsigned shift = 12; shift < 48; shift += 9)
			gla |= (random64() & (shift == 21 ? 3 : 1)) << shift;
		if (t->mode != PAGING_4LEVEL || !t->paging)
			gla = (u32)(gla | (random64() & 3) << 30);
		if (!t->paging)
			gla = chance(3) ? gla : random64() & (RAM_SIZE - 1) & PAGE_MASK;
		t->page[i].gla = gla;
		t->page[i].answers = 0;
	}
}

static void forget_page(struct test *t, gla_t gla)
{
	for (unsigned i = 0; i < PAGES; i++) {
		struct page *p = &t->page[i];
		unsigned kept = 0;
		for (unsigned j = 0; j < p->answers; j++)
			if ((p->gla ^ gla) >> p->answer[j].page_shift)
				p->answer[kept++] = p->answer[j];
		p->answers = kept;
	}
}

static void do_invlpg(struct test *t, gla_t gla)
{
	mmu_flush_page(&t->vm->vcpu, gla);
	forget_page(t, gla);
	t->m->ops->prepare(t->m);
	assert_false(look(t, gla).present && t->m->ops == &hw_memory_vtlb);
}

static void do_load_cr3(struct test *t)
{
	struct vcpu *v = &t->vm->vcpu;
	if (chance(2))
		v->cr3 = (random64() % TABLES) << 12;
	if (chance(2))
		v->pdpte[random64() & 3] = (random64() % TABLES) << 12 | !chance(8);
	mmu_load_cr3(v, false);
	forget_all(t, false);
}

static void do_change_mode(struct test *t)
{
	static const u64 bits[] = { CR4_SMEP, CR4_SMAP, CR4_PGE };
	struct vcpu *v = &t->vm->vcpu;
	if (chance(2))
		v->cr0 ^= CR0_WP;
	else
		v->cr4 ^= bits[random64() % ARRAY_SIZE(bits)];
	mmu_flush_all(v);
	mmu_update_view(v);
	forget_all(t, true);
}

/* A store to the tables, as the guest does it: at once where the shadow lets it, else by step. */
static void store(struct test *t, gpa_t gpa, u64 value, unsigned size)
{
	for (unsigned i = 0; i < PAGES; i++) {
		struct found f = look(t, t->page[i].gla);
		if (f.present && f.write && f.gpa == (gpa & PAGE_MASK)) {
			memcpy(t->vm->memory + gpa, &value, size);
			t->hits++;
			return;
		}
	}
	assert_true(ram_write(&t->vm->ram, gpa, &value, size));
}

static void do_edit(struct test *t)
{
	unsigned size = entry_size(t);
	gpa_t gpa = (random64() % (REGION / size)) * size;
	if (chance(2)) /* of the page, an entry that is used, more likely */
		gpa = (gpa & PAGE_MASK) | (random64() & 3) * size;
	u64 old = 0;
	memcpy(&old, t->vm->memory + gpa, size);
	switch (random64() & 3) {
	case 0:
		store(t, gpa, old & ~PTE_D, size);
		break;
	case 1:
		store(t, gpa, old & ~PTE_A, size);
		break;
	default:
		store(t, gpa, random_entry(), size);
	}
}

static u32 error_of(enum tlb_view view, unsigned kind, bool present)
{
	return (view == VIEW_USER ? PF_US : 0) | (kind == ACCESS_WRITE ? PF_WR : 0) | (kind == ACCESS_EXEC ? PF_ID : 0) | (present ? PF_P : 0);
}

/* The instruction is tried until it is done, faults, or is left to step. */
static void do_access(struct test *t, gla_t gla)
{
	struct vcpu *v = &t->vm->vcpu;
	unsigned kind = random64() % 3;
	struct walk w;
	v->cpl = chance(2) ? 3 : 0;
	v->rflags = RFLAGS_FIXED1 | (chance(2) ? RFLAGS_AC : 0);
	mmu_update_view(v);
	enum tlb_view view = v->mmu->view;
	for (unsigned i = 0; i < 3; i++) {
		struct found f = look(t, gla);
		if (hardware_permits(t, &f, view, kind)) {
			t->hits++;
			return;
		}
		switch (t->m->ops->fault(t->m, gla, error_of(view, kind, f.present))) {
		case HW_FAULT_RETRY:
			t->fills++;
			learn(t);
			f = look(t, gla);
			assert_true(walk_page(v, gla, view, kind, &w));
			assert_true(f.present);
			assert_int_equal(f.gpa, w.gpa);
			assert_true(hardware_permits(t, &f, view, kind));
			break;
		case HW_FAULT_GUEST:
			t->faults++;
			assert_false(walk_page(v, gla, view, kind, &w));
			assert_int_equal(v->fault.vector, VEC_PF);
			assert_int_equal(v->fault.error, w.error);
			assert_int_equal(v->fault.payload, gla);
			return;
		case HW_FAULT_DEVICE:
		case HW_FAULT_STORE:
		case HW_FAULT_EMULATE:
			t->emulated++;
			return;
		}
	}
	fail_msg("round %u: an access to %llx does not come to an end", t->round, (unsigned long long)gla);
}

static void do_something(struct test *t)
{
	gla_t gla = t->page[random64() % PAGES].gla;
	switch (random64() % 32) {
	case 0:
		do_load_cr3(t);
		break;
	case 1:
		do_change_mode(t);
		break;
	case 2:
	case 3:
	case 4:
		do_invlpg(t, gla);
		break;
	case 5 ... 9:
		do_edit(t);
		break;
	default:
		do_access(t, gla);
	}
}

static void random_guest(struct test *t)
{
	random_registers(t);
	random_pages(t);
	fake_host_set_run(chance(3) ? PAGE_SIZE : 2ull << 20);
	check_all(t);
	for (unsigned i = 0; i < OPERATIONS; i++) {
		do_something(t);
		check_all(t);
	}
}

static struct hw_memory *create(struct small_vm *vm, const struct hw_memory_ops *ops)
{
	struct hw_memory *m = ops->create(&vm->vcpu, &hw_format_shadow);
	assert_non_null(m);
	return m;
}

static void random_guests(void **state, const struct hw_memory_ops *ops)
{
	unsigned pages = fake_host_pages();
	struct test *t = host_alloc(sizeof(*t));
	const char *given = getenv("NADIR_TEST_SEED");
	seed = given ? strtoull(given, NULL, 0) : 0x9e3779b97f4a7c15ull;
	print_message("seed %#llx\n", (unsigned long long)seed);
	t->vm = *state;
	t->m = create(t->vm, ops);
	for (t->round = 0; t->round < ROUNDS; t->round++)
		random_guest(t);
	print_message("%llu hits, %llu fills, %llu faults, %llu emulated\n", (unsigned long long)t->hits, (unsigned long long)t->fills,
		      (unsigned long long)t->faults, (unsigned long long)t->emulated);
	assert_true(t->hits > ROUNDS && t->fills > ROUNDS && t->faults > ROUNDS && t->emulated > ROUNDS);
	ops->destroy(t->m);
	assert_int_equal(fake_host_pages(), pages);
	host_free(t);
}

static void random_guests_vtlb(void **state)
{
	random_guests(state, &hw_memory_vtlb);
}

static void random_guests_shadow(void **state)
{
	random_guests(state, &hw_memory_shadow);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(random_guests_vtlb, small_vm_setup, small_vm_teardown),
		cmocka_unit_test_setup_teardown(random_guests_shadow, small_vm_setup, small_vm_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
