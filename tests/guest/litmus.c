/* Litmus tests: what several CPUs may see of each other's stores, with plain, fenced, locked and exchanging accesses. An outcome that
 * the manual forbids must never be seen; the one that x86 allows (a load overtakes an older store) is counted and reported.
 * Intel SDM volume 3, "Memory Ordering in P6 and More Recent Processor Families"; names as in the literature. */
#include "lib/smp.h"

#define CELLS 512

struct cell {
	volatile u32 x __attribute__((aligned(64)));
	volatile u32 y __attribute__((aligned(64)));
	volatile u32 r[4] __attribute__((aligned(64)));
};

static struct cell cells[CELLS];
static struct barrier barrier;

/* ---- accesses ---- */

#define STORE_MOV(p, v) ((p) = (v))
#define STORE_XCHG(p, v)                                                                                               \
	do {                                                                                                           \
		u32 value_ = (v);                                                                                      \
		asm volatile("xchgl %0, %1" : "+r"(value_), "+m"(p) : : "memory");                                     \
	} while (0)
/* A store in one step, so that no value in between is ever seen. */
#define STORE_LOCKED(p, v)                                                                                             \
	do {                                                                                                           \
		u32 old_ = (p);                                                                                        \
		asm volatile("1: lock cmpxchgl %2, %1\n jne 1b" : "+a"(old_), "+m"(p) : "r"((u32)(v)) : "memory", "cc");  \
	} while (0)
#define NO_FENCE asm volatile("" : : : "memory")
#define MFENCE asm volatile("mfence" : : : "memory")
#define LOCKED_FENCE asm volatile("lock addl $0, -64(%%rsp)" : : : "memory", "cc")

typedef void body_fn(struct cell *c);

/* The programs, one body a CPU, in a style of stores and of what stands between two accesses. */
#define PROGRAMS(style, STORE, FENCE)                                                                                  \
	static void sb0_##style(struct cell *c) { STORE(c->x, 1); FENCE; c->r[0] = c->y; }                             \
	static void sb1_##style(struct cell *c) { STORE(c->y, 1); FENCE; c->r[1] = c->x; }                             \
	static void mp0_##style(struct cell *c) { STORE(c->x, 1); FENCE; STORE(c->y, 1); }                             \
	static void mp1_##style(struct cell *c) { u32 a = c->y; FENCE; u32 b = c->x; c->r[0] = a; c->r[1] = b; }       \
	static void lb0_##style(struct cell *c) { u32 a = c->x; FENCE; STORE(c->y, 1); c->r[0] = a; }                  \
	static void lb1_##style(struct cell *c) { u32 a = c->y; FENCE; STORE(c->x, 1); c->r[1] = a; }                  \
	static void ww0_##style(struct cell *c) { STORE(c->x, 1); FENCE; STORE(c->y, 2); }                             \
	static void ww1_##style(struct cell *c) { STORE(c->y, 1); FENCE; STORE(c->x, 2); }                             \
	static void rr0_##style(struct cell *c) { STORE(c->x, 1); STORE(c->x, 2); }                                    \
	static void rr1_##style(struct cell *c) { u32 a = c->x; FENCE; u32 b = c->x; c->r[0] = a; c->r[1] = b; }       \
	static void rs0_##style(struct cell *c) { STORE(c->x, 1); FENCE; c->r[0] = c->x; STORE(c->y, 1); }             \
	static void wx_##style(struct cell *c) { STORE(c->x, 1); }                                                     \
	static void wy_##style(struct cell *c) { STORE(c->y, 1); }                                                     \
	static void ir2_##style(struct cell *c) { u32 a = c->x; FENCE; u32 b = c->y; c->r[0] = a; c->r[1] = b; }       \
	static void ir3_##style(struct cell *c) { u32 a = c->y; FENCE; u32 b = c->x; c->r[2] = a; c->r[3] = b; }       \
	static void wrc1_##style(struct cell *c) { u32 a = c->x; FENCE; STORE(c->y, 1); c->r[0] = a; }                 \
	static void wrc2_##style(struct cell *c) { u32 a = c->y; FENCE; u32 b = c->x; c->r[1] = a; c->r[2] = b; }

PROGRAMS(mov, STORE_MOV, NO_FENCE)
PROGRAMS(mfence, STORE_MOV, MFENCE)
PROGRAMS(locked_fence, STORE_MOV, LOCKED_FENCE)
PROGRAMS(xchg, STORE_XCHG, NO_FENCE)
PROGRAMS(locked, STORE_LOCKED, NO_FENCE)

/* ---- outcomes ---- */

static bool sb_seen(const struct cell *c)
{
	return !c->r[0] && !c->r[1];
}

static bool mp_seen(const struct cell *c)
{
	return c->r[0] && !c->r[1];
}

static bool lb_seen(const struct cell *c)
{
	return c->r[0] && c->r[1];
}

static bool ww_seen(const struct cell *c)
{
	return c->x == 1 && c->y == 1;
}

/* Values of one location never go backwards, and a store of one's own is seen at once. */
static bool rr_seen(const struct cell *c)
{
	return c->r[0] > c->r[1];
}

static bool rs_seen(const struct cell *c)
{
	return !c->r[0];
}

static bool iriw_seen(const struct cell *c)
{
	return c->r[0] && !c->r[1] && c->r[2] && !c->r[3];
}

static bool wrc_seen(const struct cell *c)
{
	return c->r[0] && c->r[1] && !c->r[2];
}

struct litmus {
	const char *name;
	unsigned cpus;
	bool (*seen)(const struct cell *c);
	bool allowed;
	body_fn *body[4];
};

#define LITMUSES(style, text, sb_allowed)                                                                              \
	{ "store buffering, " text, 2, sb_seen, sb_allowed, { sb0_##style, sb1_##style } },                            \
	{ "message passing, " text, 2, mp_seen, false, { mp0_##style, mp1_##style } },                                 \
	{ "load buffering, " text, 2, lb_seen, false, { lb0_##style, lb1_##style } },                                  \
	{ "2+2W, " text, 2, ww_seen, false, { ww0_##style, ww1_##style } },                                            \
	{ "CoRR, " text, 2, rr_seen, false, { rr0_##style, rr1_##style } },                                            \
	{ "forwarding, " text, 2, rs_seen, false, { rs0_##style, wy_##style } },                                       \
	{ "WRC, " text, 3, wrc_seen, false, { wx_##style, wrc1_##style, wrc2_##style } },                              \
	{ "IRIW, " text, 4, iriw_seen, false, { wx_##style, wy_##style, ir2_##style, ir3_##style } }

static const struct litmus litmuses[] = {
	LITMUSES(mov, "MOV", true),
	LITMUSES(mfence, "MFENCE", false),
	LITMUSES(locked_fence, "locked ADD between", false),
	LITMUSES(xchg, "XCHG", false),
	LITMUSES(locked, "locked CMPXCHG", false),
};

/* ---- running ---- */

static const struct litmus *current;
static u64 rounds = 40;
static u64 forbidden, observed;

static void clear_and_count(bool count)
{
	for (unsigned i = 0; i < CELLS; i++) {
		struct cell *c = &cells[i];
		if (count && current->seen(c))
			observed++;
		c->x = c->y = 0;
		for (unsigned r = 0; r < ARRAY_SIZE(c->r); r++)
			c->r[r] = 0;
	}
}

/* The roles go round, so that every pair of CPUs meets; the walk starts where the others' does, with a little delay that differs. */
static void litmus_work(unsigned index)
{
	for (unsigned round = 0; round < rounds; round++) {
		unsigned role = (index + round) % smp_cpus;
		if (!index)
			clear_and_count(round != 0);
		barrier_wait(&barrier, smp_cpus);
		for (unsigned i = 0; i < (round * 7 + index * 3) % 16; i++)
			asm volatile("");
		body_fn *body = role < current->cpus ? current->body[role] : NULL;
		for (unsigned i = 0; body && i < CELLS; i++)
			body(&cells[i]);
		barrier_wait(&barrier, smp_cpus);
	}
}

static void run_litmus(const struct litmus *l)
{
	current = l;
	observed = 0;
	smp_run(litmus_work);
	clear_and_count(true);
	if (l->allowed)
		print("%s: seen %llu times of %llu\n", l->name, observed, rounds * CELLS);
	else
		check_equal(observed, 0, __FILE_NAME__, __LINE__, l->name);
	forbidden += l->allowed ? 0 : observed;
}

/* ---- atomicity: sums ---- */

static u8 area[3][4096] __attribute__((aligned(4096)));
static volatile u8 *target;

static void add_xadd(volatile void *p)
{
	atomic_add(p, 1);
}

static void add_inc(volatile void *p)
{
	asm volatile("lock incq %0" : "+m"(*(volatile u64 *)p) : : "memory", "cc");
}

static void add_sub(volatile void *p)
{
	asm volatile("lock subl $-1, %0" : "+m"(*(volatile u32 *)p) : : "memory", "cc");
}

static void add_cmpxchg(volatile void *p)
{
	u64 old = *(volatile u64 *)p;
	while (!atomic_compare_exchange(p, &old, old + 1))
		pause();
}

/* One attempt; on failure the value found is in *low and *high. */
static bool try_cmpxchg8b(volatile void *p, u32 *low, u32 *high, u64 next)
{
	bool done = false;
	asm volatile("lock cmpxchg8b %1"
		     : "=@ccz"(done), "+m"(*(volatile u64 *)p), "+a"(*low), "+d"(*high)
		     : "b"((u32)next), "c"((u32)(next >> 32))
		     : "memory");
	return done;
}

static void add_cmpxchg8b(volatile void *p)
{
	u32 low = 0, high = 0;
	while (!try_cmpxchg8b(p, &low, &high, ((u64)high << 32 | low) + 1))
		pause();
}

static bool try_cmpxchg16b(volatile void *p, u64 *low, u64 *high, u64 next_low, u64 next_high)
{
	bool done = false;
	asm volatile("lock cmpxchg16b %1"
		     : "=@ccz"(done), "+m"(*(volatile u8(*)[16])p), "+a"(*low), "+d"(*high)
		     : "b"(next_low), "c"(next_high)
		     : "memory");
	return done;
}

/* Both halves count, the upper one in steps of 3. */
static void add_cmpxchg16b(volatile void *p)
{
	u64 low = 0, high = 0;
	while (!try_cmpxchg16b(p, &low, &high, low + 1, high + 3))
		pause();
}

/* A lock of one bit around a plain increment. */
static void add_bts(volatile void *p)
{
	static volatile u64 lock[2];
	bool was;
	for (;;) {
		asm volatile("lock btsq %2, %1" : "=@ccc"(was), "+m"(lock[0]) : "r"(77ul) : "memory");
		if (!was)
			break;
		pause();
	}
	(*(volatile u64 *)p)++;
	asm volatile("lock btrq %1, %0" : "+m"(lock[0]) : "r"(77ul) : "memory", "cc");
}

static void add_xchg(volatile void *p)
{
	static volatile u64 lock;
	while (atomic_exchange(&lock, 1))
		pause();
	(*(volatile u64 *)p)++;
	lock = 0;
}

static const struct adder {
	const char *name;
	void (*add)(volatile void *p);
	unsigned size, align;
} adders[] = {
	{ "XADD", add_xadd, 8, 1 },
	{ "INC", add_inc, 8, 1 },
	{ "SUB", add_sub, 4, 1 },
	{ "CMPXCHG", add_cmpxchg, 8, 1 },
	{ "CMPXCHG8B", add_cmpxchg8b, 8, 1 },
	{ "CMPXCHG16B", add_cmpxchg16b, 16, 16 },
	{ "BTS", add_bts, 8, 8 },
	{ "XCHG", add_xchg, 8, 8 },
};

static const struct adder *adder;
static u64 additions = 2000;
static u64 additions_now;

static void adding_work(unsigned index)
{
	barrier_wait(&barrier, smp_cpus);
	for (unsigned i = 0; i < additions_now; i++)
		adder->add(target);
}

static void run_adder(const struct adder *a, unsigned offset, const char *where, u64 count)
{
	adder = a;
	target = area[0] + offset;
	additions_now = count;
	memset((void *)target, 0, 16);
	smp_run(adding_work);
	u64 sum = a->size == 4 ? *(volatile u32 *)target : *(volatile u64 *)target;
	bool ok = sum == count * smp_cpus;
	if (a->size == 16)
		ok &= *(volatile u64 *)(target + 8) == 3 * sum;
	check(ok, __FILE_NAME__, __LINE__, a->name);
	if (!ok)
		print("    %s: %llu, want %llu\n", where, sum, count * smp_cpus);
}

/* Locks that split a line take a bus lock on a real machine, and cost accordingly. */
static void sums(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(adders); i++) {
		const struct adder *a = &adders[i];
		run_adder(a, 128, "aligned", additions);
		if (a->align > 1)
			continue;
		run_adder(a, 131, "misaligned in a line", additions);
		run_adder(a, 192 - a->size + 1, "across lines", additions / 8);
		run_adder(a, 4096 - a->size / 2, "across pages", additions / 8);
	}
}

/* ---- the second page of a split lock lies elsewhere ---- */

#define FAR_WINDOW ((u8 *)0x10000000000)
extern u64 boot_pml4[];

/* Pages in another order than in memory, and one page seen through two addresses: the locked access through one must exclude a plain
 * locked one through the other. */
static void map_far_window(void)
{
	static u64 pdpt[512] __attribute__((aligned(4096))), pd[512] __attribute__((aligned(4096)));
	static u64 table[512] __attribute__((aligned(4096)));
	table[0] = (ulong)area[2] | 7;
	table[1] = (ulong)area[0] | 7;
	pd[0] = (ulong)table | 7;
	pdpt[0] = (ulong)pd | 7;
	boot_pml4[(ulong)FAR_WINDOW >> 39 & 511] = (ulong)pdpt | 7;
}

/* The upper half of the crossing counter is its second page's first word: half of the CPUs add to that alone. */
static void far_work(unsigned index)
{
	volatile u32 *upper = (volatile u32 *)area[0];
	barrier_wait(&barrier, smp_cpus);
	for (unsigned i = 0; i < additions_now; i++) {
		if (index & 1)
			asm volatile("lock incl %0" : "+m"(*upper) : : "memory", "cc");
		else
			atomic_add((volatile u64 *)(FAR_WINDOW + 4092), 0x100000001ull);
	}
}

static void split_over_far_pages(void)
{
	map_far_window();
	memset(area[0], 0, 8);
	memset(area[2] + 4088, 0, 8);
	additions_now = additions / 8;
	smp_run(far_work);
	unsigned even = (smp_cpus + 1) / 2;
	CHECK_BUT_QEMU(*(volatile u32 *)(area[2] + 4092) == even * additions_now, "TCG's split lock");
	CHECK_BUT_QEMU(*(volatile u32 *)area[0] == smp_cpus * additions_now, "TCG's split lock");
}

/* ---- atomicity: no torn values ---- */

enum torn_kind { TORN_CMPXCHG16B, TORN_MOVDQA, TORN_8_MISALIGNED, TORN_8_CMPXCHG8B, TORN_KINDS };
static const char *const torn_names[] = { "CMPXCHG16B", "MOVDQA", "MOV in a line", "CMPXCHG8B" };
static enum torn_kind torn_kind;
static volatile u64 torn;

static void store16(volatile void *p, u64 v)
{
	u64 pair[2] __attribute__((aligned(16))) = { v, ~v };
	asm volatile("movdqa %1, %%xmm1\n movdqa %%xmm1, %0" : "=m"(*(volatile u8(*)[16])p) : "m"(pair) : "memory");
}

static bool load16_whole(volatile void *p)
{
	u64 pair[2] __attribute__((aligned(16)));
	asm volatile("movdqa %1, %%xmm2\n movdqa %%xmm2, %0" : "=m"(pair) : "m"(*(volatile u8(*)[16])p) : "memory");
	return pair[0] == ~pair[1];
}

static void replace16(volatile void *p, u64 v)
{
	u64 low = *(volatile u64 *)p, high = ~low;
	asm volatile("lock cmpxchg16b %0"
		     : "+m"(*(volatile u8(*)[16])p), "+a"(low), "+d"(high)
		     : "b"(v), "c"(~v)
		     : "memory", "cc");
}

static bool read16_whole(volatile void *p)
{
	u64 low = 1, high = 1;
	asm volatile("lock cmpxchg16b %0"
		     : "+m"(*(volatile u8(*)[16])p), "+a"(low), "+d"(high)
		     : "b"(1ul), "c"(1ul)
		     : "memory", "cc");
	return low == ~high;
}

static void replace8(volatile void *p, u32 v)
{
	u32 low = *(volatile u32 *)p, high = ~low;
	asm volatile("lock cmpxchg8b %0"
		     : "+m"(*(volatile u64 *)p), "+a"(low), "+d"(high)
		     : "b"(v), "c"(~v)
		     : "memory", "cc");
}

static bool whole8(u64 v)
{
	return (u32)v == (u32)~(v >> 32);
}

static void torn_work(unsigned index)
{
	volatile u8 *p = area[1] + (torn_kind == TORN_8_MISALIGNED ? 64 + 21 : 64);
	bool writes = index & 1;
	barrier_wait(&barrier, smp_cpus);
	for (u64 i = 0; i < 4 * additions; i++) {
		u64 value = i << 32 | (i * 0x9e3779b9 & 0xffffffff);
		bool whole = true;
		switch (torn_kind) {
		case TORN_CMPXCHG16B:
			if (writes)
				replace16(p, value);
			else
				whole = read16_whole(p);
			break;
		case TORN_MOVDQA:
			if (writes)
				store16(p, value);
			else
				whole = load16_whole(p);
			break;
		case TORN_8_MISALIGNED:
			if (writes)
				*(volatile u64 *)p = (u64)(u32)~value << 32 | (u32)value;
			else
				whole = whole8(*(volatile u64 *)p);
			break;
		default:
			if (writes)
				replace8(p, value);
			else
				whole = whole8(*(volatile u64 *)p);
		}
		if (!whole)
			atomic_add(&torn, 1);
	}
}

static void torn_values(void)
{
	for (torn_kind = 0; torn_kind < TORN_KINDS; torn_kind++) {
		/* Sixteen bytes at once are promised by CPUs that have AVX. */
		if (torn_kind == TORN_MOVDQA && !HAS_AVX)
			continue;
		torn = 0;
		memset(area[1], 0, 128);
		*(volatile u64 *)(area[1] + 72) = ~0ull;
		if (torn_kind >= TORN_8_MISALIGNED)
			*(volatile u32 *)(area[1] + 64 + (torn_kind == TORN_8_MISALIGNED ? 21 : 0) + 4) = ~0u;
		smp_run(torn_work);
		if (torn_kind == TORN_8_MISALIGNED)
			check_deviation(!torn, "misaligned accesses", __FILE_NAME__, __LINE__, torn_names[torn_kind]);
		else
			check_equal(torn, 0, __FILE_NAME__, __LINE__, torn_names[torn_kind]);
	}
}

/* ---- code that is stored while another CPU runs it for the first time ---- */

#define FRESH_PAGES 16
#define FRESH_SLOTS 256
static u8 fresh[FRESH_PAGES * FRESH_SLOTS][16] __attribute__((aligned(4096)));
static volatile unsigned fresh_at;
static volatile u64 torn_code, stale_code;

static u32 call_fresh(unsigned number)
{
	u32 result;
	asm volatile("call *%1" : "=a"(result) : "r"(&fresh[number][3]) : "memory");
	return result;
}

/* The second CPU calls, the first stores the aligned constant of the instruction at about that moment. The call may return either
 * value; after both have met and serialized, only the new one. */
static void fresh_work(unsigned index)
{
	for (unsigned i = 0; index < 2 && i < FRESH_PAGES * FRESH_SLOTS; i++) {
		if (index) {
			fresh_at = i + 1;
			u32 got = call_fresh(i);
			if (got != 0x11111111 && got != 0x22222222)
				torn_code++;
		} else {
			while (fresh_at <= i)
				pause();
			for (unsigned n = 0; n < i % 16; n++)
				asm volatile("");
			*(volatile u32 *)&fresh[i][4] = 0x22222222;
		}
	}
	barrier_wait(&barrier, smp_cpus);
	cpuid(0, 0);
	for (unsigned i = 0; index == 1 && i < FRESH_PAGES * FRESH_SLOTS; i++)
		stale_code += call_fresh(i) != 0x22222222;
}

static void fresh_code(void)
{
	for (unsigned i = 0; i < FRESH_PAGES * FRESH_SLOTS; i++) {
		fresh[i][3] = 0xb8; /* MOV EAX, constant; RET */
		*(volatile u32 *)&fresh[i][4] = 0x11111111;
		fresh[i][8] = 0xc3;
	}
	smp_run(fresh_work);
	CHECK_EQ(torn_code, 0);
	CHECK_BUT_QEMU(stale_code == 0, "now and then it keeps what it translated while another CPU stored there");
}

void guest_main(void)
{
	if (!smp_start())
		return;
	command_option("rounds", &rounds);
	command_option("additions", &additions);
	if (on_qemu) { /* its CPUs stop each other for every access that is not one of the host's */
		rounds = 4;
		additions = 100;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(litmuses); i++) {
		if (litmuses[i].cpus <= smp_cpus)
			run_litmus(&litmuses[i]);
	}
	sums();
	split_over_far_pages();
	torn_values();
	fresh_code();
	CHECK_EQ(forbidden, 0);
}
