/* Points of a debugger outside the guest, and its single steps (vcpu/debug.h), on each engine. */
#include "bt_guest.h"

#include "cpu/control.h"

static const struct engine_ops *const tried[] = { &engine_step, &engine_bt };

#define EACH(e) for (unsigned e = 0; e < ARRAY_SIZE(tried); e++)

PROGRAM(count, "mov $100, %ecx\n 1: incl 8(%rbx)\n mov %ecx, 64(%rbx)\n dec %ecx\n jnz 1b");
#define COUNT_INC (CODE + 5)
#define COUNT_DEC (CODE + 11)
PROGRAM(strings, "cld\n rep movsb");

static struct exit go_on(struct flat_guest *g)
{
	struct exit exit = { .reason = EXIT_NONE };
	g->vcpu.engine->run(&g->vcpu, &exit);
	return exit;
}

static struct flat_guest *start(unsigned e, const u8 *code, const u8 *end)
{
	struct flat_guest *g = bt_guest(tried[e]);
	bt_load(g, 0, code, end);
	g->vcpu.rip = CODE;
	g->vcpu.gpr[RSP] = STACK_TOP - 0x800;
	g->vcpu.gpr[RBX] = g->vcpu.gpr[RSI] = DATA;
	g->vcpu.gpr[RDI] = DATA + 100;
	return g;
}

static void test_break(void **state)
{
	const struct debug_point point = { COUNT_DEC, 1, DEBUG_EXECUTE };
	EACH(e) {
		struct flat_guest *g = start(e, count_start, count_end);
		assert_true(debug_insert(&g->vcpu, &point));
		for (unsigned i = 0; i < 50; i++) {
			struct exit exit = go_on(g);
			assert_int_equal(exit.reason, EXIT_DEBUG);
			assert_false(exit.debug.step);
			assert_int_equal(exit.debug.kind, DEBUG_EXECUTE);
			assert_int_equal(exit.debug.gla, COUNT_DEC);
			assert_int_equal(g->vcpu.rip, COUNT_DEC);
			assert_int_equal(g->vcpu.gpr[RCX], 100 - i);
		}
		assert_true(debug_remove(&g->vcpu, &point));
		assert_false(debug_remove(&g->vcpu, &point));
		assert_int_equal(go_on(g).reason, EXIT_HLT);
		assert_int_equal(g->vcpu.gpr[RCX], 0);
		flat_destroy(g);
	}
}

static void test_watch(void **state)
{
	const struct debug_point other = { DATA + 32, 16, DEBUG_ACCESS }, write = { DATA + 60, 6, DEBUG_WRITE };
	EACH(e) {
		struct flat_guest *g = start(e, count_start, count_end);
		assert_true(debug_insert(&g->vcpu, &other));
		assert_int_equal(go_on(g).reason, EXIT_HLT);
		assert_int_equal(g->memory[DATA_GPA(0) + 8], 100);
		assert_true(debug_insert(&g->vcpu, &write));
		g->vcpu.rip = CODE;
		g->vcpu.activity = ACTIVITY_ACTIVE;
		for (unsigned i = 0; i < 100; i++) {
			struct exit exit = go_on(g);
			assert_int_equal(exit.reason, EXIT_DEBUG);
			assert_int_equal(exit.debug.kind, DEBUG_WRITE);
			assert_int_equal(exit.debug.gla, write.gla);
			assert_int_equal(g->vcpu.rip, COUNT_DEC);
			assert_int_equal(g->memory[DATA_GPA(0) + 64], 100 - i);
		}
		assert_int_equal(go_on(g).reason, EXIT_HLT);
		flat_destroy(g);
	}
}

static void test_step(void **state)
{
	EACH(e) {
		struct flat_guest *g = start(e, count_start, count_end);
		for (unsigned i = 0; i < 401; i++) {
			g->vcpu.debug.step = true;
			struct exit exit = go_on(g);
			assert_int_equal(exit.reason, EXIT_DEBUG);
			assert_true(exit.debug.step);
			assert_false(g->vcpu.rflags & RFLAGS_TF);
		}
		assert_int_equal(g->vcpu.gpr[RCX], 0);
		assert_int_equal(go_on(g).reason, EXIT_HLT);
		bt_load(g, 0, strings_start, strings_end);
		g->vcpu.rip = CODE;
		g->vcpu.activity = ACTIVITY_ACTIVE;
		g->vcpu.gpr[RCX] = 10;
		for (unsigned i = 0; i < 4; i++) {
			g->vcpu.debug.step = true;
			assert_int_equal(go_on(g).reason, EXIT_DEBUG);
		}
		assert_int_equal(g->vcpu.gpr[RCX], 7);
		flat_destroy(g);
	}
}

static void test_limits(void **state)
{
	struct flat_guest *g = bt_guest(&engine_bt);
	struct debug_point p = { DATA, 1, DEBUG_IO };
	assert_false(debug_insert(&g->vcpu, &p));
	p = (struct debug_point){ CODE, 2, DEBUG_EXECUTE };
	assert_false(debug_insert(&g->vcpu, &p));
	p = (struct debug_point){ DATA, PAGE_SIZE + 1, DEBUG_WRITE };
	assert_false(debug_insert(&g->vcpu, &p));
	for (unsigned i = 0; i < DEBUGGER_POINTS; i++) {
		p = (struct debug_point){ DATA + i * PAGE_SIZE + 1, PAGE_SIZE, DEBUG_ACCESS };
		assert_true(debug_insert(&g->vcpu, &p));
	}
	assert_false(debug_insert(&g->vcpu, &p));
	flat_destroy(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_break),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_step),
		cmocka_unit_test(test_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
