/* The code cache as vCPUs share it: what one translates the others find, and none is lost when code is written or evicted. */
#define _GNU_SOURCE
#include "bt_guest.h"

#include <pthread.h>

#define CPUS 4

/* The first vCPU is that of a flat guest; the others have its memory, page tables and registers. */
struct machine {
	struct flat_guest *g;
	struct vcpu *cpu[CPUS];
};

static void no_exit(struct vcpu *vcpu, struct exit *exit)
{
}

static struct vcpu *add_cpu(struct flat_guest *g, unsigned index)
{
	static const struct vcpu_ops ops = { .exit = no_exit, .interrupt_acknowledge = flat_no_interrupt };
	struct vcpu *v = host_alloc(sizeof(*v));
	v->ops = &ops;
	v->ram = &g->ram;
	v->engine = g->vcpu.engine;
	v->index = index;
	cpuid_apply(v, g->policy);
	assert_int_equal(mmu_create(v), 0);
	cpu_reset(v, false);
	flat_registers(v);
	mmu_load_cr3(v, false);
	memcpy(v->seg, g->vcpu.seg, sizeof(v->seg));
	cpu_set_cpl(v, g->vcpu.cpl);
	v->gdtr = g->vcpu.gdtr;
	v->idtr = g->vcpu.idtr;
	v->tr = g->vcpu.tr;
	assert_int_equal(v->engine->vcpu_create(v), 0);
	return v;
}

static struct machine machine_create(void)
{
	struct machine m = { .g = bt_guest(&engine_bt) };
	m.cpu[0] = &m.g->vcpu;
	for (unsigned i = 1; i < CPUS; i++)
		m.cpu[i] = add_cpu(m.g, i);
	return m;
}

static void machine_destroy(struct machine *m)
{
	for (unsigned i = 1; i < CPUS; i++) {
		m->cpu[i]->engine->vcpu_destroy(m->cpu[i]);
		mmu_destroy(m->cpu[i]);
		host_free(m->cpu[i]);
	}
	flat_destroy(m->g);
}

static enum exit_reason go(struct vcpu *v, u64 rip)
{
	struct exit exit;
	v->rip = rip;
	v->gpr[RAX] = 0;
	v->gpr[RSP] = STACK_TOP - 0x100 - v->index * 0x200;
	v->activity = ACTIVITY_ACTIVE;
	v->engine->run(v, &exit);
	return exit.reason;
}

struct search {
	const char *name;
	unsigned long value;
};

static void find_counter(void *opaque, const char *line)
{
	struct search *s = opaque;
	if (strstr(line, s->name))
		s->value = strtoul(line, NULL, 10);
}

static unsigned long counter(struct vcpu *v, const char *name)
{
	struct search s = { .name = name };
	v->engine->report(v, find_counter, &s);
	return s.value;
}

PROGRAM(one, "mov $1, %eax\n mov $1000, %ecx\n 1: dec %ecx\n jnz 1b\n call 2f\n jmp 3f\n 2: ret\n 3: nop");
PROGRAM(two, "mov $2, %eax");

static void test_found_by_others(void **state)
{
	struct machine m = machine_create();
	bt_load(m.g, 0, one_start, one_end);
	for (unsigned i = 0; i < CPUS; i++) {
		assert_int_equal(go(m.cpu[i], CODE), EXIT_HLT);
		assert_int_equal(m.cpu[i]->gpr[RAX], 1);
	}
	assert_in_range(counter(m.cpu[0], "blocks translated"), 3, 20);
	for (unsigned i = 1; i < CPUS; i++)
		assert_int_equal(counter(m.cpu[i], "blocks translated"), 0);
	machine_destroy(&m);
}

/* Each in turn finds the code changed, which another has executed last, or has already looked at anew. */
static void test_written(void **state)
{
	struct machine m = machine_create();
	for (unsigned round = 0; round < 50; round++) {
		bool odd = round % 2;
		bt_load(m.g, 0, odd ? two_start : one_start, odd ? two_end : one_end);
		for (unsigned i = 0; i < CPUS; i++) {
			struct vcpu *v = m.cpu[(round * 3 + i) % CPUS];
			assert_int_equal(go(v, CODE), EXIT_HLT);
			assert_int_equal(v->gpr[RAX], 1 + odd);
		}
	}
	machine_destroy(&m);
}

/* ---- more code than the cache holds ---- */

#define MUCH 0x1000000ull
#define MUCH_GPA 0x300000ull
#define MUCH_SIZE (320ull << 10)

/* Small blocks, chained or reached through the jump cache where pages end. */
static unsigned write_much(struct machine *m)
{
	static const u8 block[] = { 0x48, 0xff, 0xc0, 0xeb, 0x00 }; /* inc %rax; jmp to the next */
	unsigned blocks = 0;
	for (u64 at = 0; at < MUCH_SIZE - 64; at += sizeof(block), blocks++)
		memcpy(m->g->memory + MUCH_GPA + at, block, sizeof(block));
	m->g->memory[MUCH_GPA + blocks * sizeof(block)] = 0xf4;
	for (u64 at = 0; at < MUCH_SIZE; at += PAGE_SIZE)
		flat_map(m->g, MUCH + at, MUCH_GPA + at, PTE_P);
	for (unsigned i = 1; i < CPUS; i++)
		mmu_flush_all(m->cpu[i]);
	return blocks;
}

/* What those remember that did not run when it was evicted is forgotten before they run. */
static void test_evicted_meanwhile(void **state)
{
	struct machine m = machine_create();
	unsigned blocks = write_much(&m);
	bt_load(m.g, 0, one_start, one_end);
	for (unsigned i = 0; i < 2 * CPUS; i++) {
		struct vcpu *v = m.cpu[i % CPUS];
		assert_int_equal(go(m.cpu[(i + 1) % CPUS], CODE), EXIT_HLT);
		assert_int_equal(go(v, MUCH), EXIT_HLT);
		assert_int_equal(v->gpr[RAX], blocks);
	}
	unsigned long evicted = 0;
	for (unsigned i = 0; i < CPUS; i++)
		evicted += counter(m.cpu[i], "evicted");
	assert_in_range(evicted, 8, 100000);
	machine_destroy(&m);
}

/* All at once: they translate for each other, chain and evict what others are in. */
struct runner {
	struct vcpu *vcpu;
	unsigned wanted, right;
};

#define RUNS 3

static void *run_much(void *opaque)
{
	struct runner *r = opaque;
	trap_thread_init();
	for (unsigned i = 0; i < RUNS; i++)
		r->right += go(r->vcpu, MUCH) == EXIT_HLT && r->vcpu->gpr[RAX] == r->wanted && go(r->vcpu, CODE) == EXIT_HLT && r->vcpu->gpr[RAX] == 1;
	return NULL;
}

static void test_at_once(void **state)
{
	struct machine m = machine_create();
	struct runner runner[CPUS];
	pthread_t thread[CPUS];
	unsigned blocks = write_much(&m);
	bt_load(m.g, 0, one_start, one_end);
	for (unsigned i = 0; i < CPUS; i++) {
		runner[i] = (struct runner){ .vcpu = m.cpu[i], .wanted = blocks };
		assert_int_equal(pthread_create(&thread[i], NULL, run_much, &runner[i]), 0);
	}
	for (unsigned i = 0; i < CPUS; i++)
		pthread_join(thread[i], NULL);
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(runner[i].right, RUNS);
	machine_destroy(&m);
}

/* ---- rest ---- */

/* All that was translated is translated anew, and what was remembered of it is forgotten. */
static void test_rest(void **state)
{
	struct machine m = machine_create();
	unsigned blocks = write_much(&m);
	bt_load(m.g, 0, one_start, one_end);
	for (unsigned round = 0; round < 3; round++) {
		unsigned long before = counter(m.cpu[0], "blocks translated");
		for (unsigned i = 0; i < CPUS; i++) {
			assert_int_equal(go(m.cpu[i], CODE), EXIT_HLT);
			assert_int_equal(m.cpu[i]->gpr[RAX], 1);
			assert_int_equal(go(m.cpu[i], MUCH), EXIT_HLT);
			assert_int_equal(m.cpu[i]->gpr[RAX], blocks);
		}
		assert_true(counter(m.cpu[0], "blocks translated") > before);
		for (unsigned i = 0; i < CPUS; i++)
			m.cpu[i]->engine->rest(m.cpu[i], i == CPUS - 1);
	}
	machine_destroy(&m);
}

static void *rest_often(void *opaque)
{
	struct runner *r = opaque;
	trap_thread_init();
	for (unsigned i = 0; i < 20; i++) {
		r->vcpu->engine->rest(r->vcpu, true);
		r->right += go(r->vcpu, CODE) == EXIT_HLT && r->vcpu->gpr[RAX] == 1;
	}
	return NULL;
}

/* One took the others for resting while they run. */
static void test_rest_meanwhile(void **state)
{
	struct machine m = machine_create();
	struct runner runner[CPUS];
	pthread_t thread[CPUS];
	unsigned blocks = write_much(&m);
	bt_load(m.g, 0, one_start, one_end);
	for (unsigned i = 0; i < CPUS; i++) {
		runner[i] = (struct runner){ .vcpu = m.cpu[i], .wanted = blocks };
		assert_int_equal(pthread_create(&thread[i], NULL, i ? run_much : rest_often, &runner[i]), 0);
	}
	for (unsigned i = 0; i < CPUS; i++)
		pthread_join(thread[i], NULL);
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(runner[i].right, i ? RUNS : 20);
	machine_destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found_by_others), cmocka_unit_test(test_written), cmocka_unit_test(test_evicted_meanwhile),
		cmocka_unit_test(test_at_once), cmocka_unit_test(test_rest), cmocka_unit_test(test_rest_meanwhile),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
