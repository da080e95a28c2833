/* The posted-interrupt descriptor against the VT-d specification, also from two threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "irq/posted.h"

static void test_first_post_notifies(void **state)
{
	struct posted p = { 0 };
	u64 vectors[4], level[4];

	assert_false(posted_pending(&p));
	assert_true(posted_post(&p, 0x31, false));
	assert_false(posted_post(&p, 0x31, false));
	assert_false(posted_post(&p, 0xff, true));
	assert_true(posted_pending(&p));
	assert_int_equal(p.descriptor.control, POSTED_ON);
	assert_int_equal(p.descriptor.pir[0], BIT(0x31));
	assert_int_equal(p.descriptor.pir[3], BIT(63));

	assert_true(posted_drain(&p, vectors, level));
	assert_int_equal(vectors[0], BIT(0x31));
	assert_int_equal(vectors[3], BIT(63));
	assert_int_equal(vectors[1] | vectors[2], 0);
	assert_int_equal(level[0] | level[1] | level[2], 0);
	assert_int_equal(level[3], BIT(63));
	assert_false(posted_drain(&p, vectors, level));
	assert_true(posted_post(&p, 0x31, false));
}

/* What a processor must not take: levels, and the edge that tells software of the end of that. */
static void test_aside(void **state)
{
	struct posted p = { 0 };
	u64 vectors[4], level[4];

	assert_false(posted_post_aside(&p, 0x40, false));
	assert_false(posted_pending(&p));
	for (unsigned i = 0; i < 2; i++) {
		assert_true(posted_post_aside(&p, 0x40, !i));
		assert_int_equal(p.descriptor.pir[1], 0);
		assert_false(posted_outstanding(&p));
		assert_true(posted_pending(&p));
		posted_post(&p, 0x41, false);
		assert_true(posted_drain(&p, vectors, level));
		assert_int_equal(vectors[1], 3);
		assert_int_equal(level[1], !i);
		assert_false(posted_pending(&p));
	}
	assert_false(posted_post_aside(&p, 0x40, false));
}

/* The last trigger mode posted counts. */
static void test_trigger_mode(void **state)
{
	struct posted p = { 0 };
	u64 vectors[4], level[4];

	posted_post(&p, 0x40, true);
	posted_drain(&p, vectors, level);
	assert_int_equal(level[1], 1);
	posted_post(&p, 0x40, false);
	posted_drain(&p, vectors, level);
	assert_int_equal(vectors[1], 1);
	assert_int_equal(level[1], 0);
}

static void test_suppression(void **state)
{
	struct posted p = { 0 };

	posted_suppress(&p, true);
	assert_false(posted_post(&p, 0x31, false));
	assert_true(posted_pending(&p));
	posted_suppress(&p, false);
	assert_true(posted_post(&p, 0x32, false));
}

/* Notification vector and destination belong to hardware; posting leaves them alone. */
static void test_other_fields_stay(void **state)
{
	u64 fields = 0xf2ull << POSTED_NV_SHIFT | 7ull << POSTED_NDST_SHIFT;
	struct posted p = { .descriptor.control = fields };
	u64 vectors[4], level[4];

	posted_post(&p, 0x31, false);
	assert_int_equal(p.descriptor.control, fields | POSTED_ON);
	posted_drain(&p, vectors, level);
	assert_int_equal(p.descriptor.control, fields);
}

#define POSTS 20000

struct race {
	struct posted posted;
	u32 notified, done;
};

static void *poster(void *opaque)
{
	struct race *r = opaque;
	for (unsigned i = 0; i < POSTS; i++) {
		/* Wait until the owner has seen the last one, so that none is merged with another. */
		while (posted_pending(&r->posted))
			sched_yield();
		if (posted_post(&r->posted, (u8)(16 + i % 240), false))
			__atomic_store_n(&r->notified, 1, __ATOMIC_SEQ_CST);
	}
	__atomic_store_n(&r->done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* An owner that looks only when notified loses nothing. A lost notification would leave the poster waiting for ever:
 * the test then fails by its time limit. */
static void test_no_notification_is_lost(void **state)
{
	static struct race r;
	u64 vectors[4], level[4], taken = 0;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, poster, &r), 0);
	while (!__atomic_load_n(&r.done, __ATOMIC_SEQ_CST) || __atomic_load_n(&r.notified, __ATOMIC_SEQ_CST)) {
		if (!__atomic_exchange_n(&r.notified, 0, __ATOMIC_SEQ_CST)) {
			sched_yield();
			continue;
		}
		posted_drain(&r.posted, vectors, level);
		for (unsigned i = 0; i < 4; i++)
			taken += (u64)__builtin_popcountll(vectors[i]);
	}
	pthread_join(thread, NULL);
	assert_int_equal(taken, POSTS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_post_notifies),
		cmocka_unit_test(test_aside),
		cmocka_unit_test(test_trigger_mode),
		cmocka_unit_test(test_suppression),
		cmocka_unit_test(test_other_fields_stay),
		cmocka_unit_test(test_no_notification_is_lost),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
