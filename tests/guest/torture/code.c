/* Torture: functions that are patched while other CPUs call them, and code that changes itself. */
#include "torture/torture.h"

#define FUNCTIONS 12
static u8 code[3][4096] __attribute__((aligned(4096)));
static struct function {
	u8 *at;
	volatile u64 version; /* odd while it is patched; the value is its half */
	struct ticket_lock lock;
} functions[FUNCTIONS];
volatile u64 code_counter; /* in the page of the functions' */

/* MOV EAX, value; RET: the bytes of the value tell when they do not belong together. */
static u32 function_value(u64 n)
{
	u32 b = n & 0xff;
	return b | (~b & 0xff) << 8 | b << 16 | (~b & 0xff) << 24;
}

static void put_code(u8 *at, u32 value)
{
	at[0] = 0xb8;
	memcpy(at + 1, &value, 4);
	at[5] = 0xc3;
}

void code_set_up(void)
{
	/* Beside each other, across lines, across pages, and elsewhere. */
	static const u16 offsets[FUNCTIONS] = { 0, 6, 12, 60, 125, 192, 1000, 2046, 4000, 4093, 6000, 8189 };
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		functions[i].at = code[0] + offsets[i];
		put_code(functions[i].at, function_value(0));
	}
}

#define PATCHING 0x1ccull

/* INT3 where a function was: it is being patched. Return to its caller. */
void on_breakpoint(struct state *s)
{
	if (s->ip - 1 - (ulong)code >= sizeof(code)) {
		fail("breakpoint at", s->ip, 0);
		state_print(s);
		finish();
	}
	s->ip = *(ulong *)s->sp;
	s->sp += 8;
	s->ax = PATCHING;
}

static u64 call_code(const void *at)
{
	u64 result;
	asm volatile("call *%1" : "=a"(result) : "r"(at) : "memory");
	return result;
}

void act_call_code(void)
{
	unsigned number = pick(FUNCTIONS);
	struct function *f = &functions[number];
	struct worker *w = self();
	u64 before = f->version;
	u64 got = call_code(f->at);
	u64 after = f->version;
	if (got == PATCHING) {
		w->seen_patching++;
		if (!(before & 1) && before == after)
			fail("INT3 is seen after it was taken back", number, before);
		return;
	}
	/* The value of some version between the two, and none older than one that this CPU has seen. */
	u64 low = before >> 1, high = (after + 1) >> 1;
	u64 n = low > w->function_seen[number] ? low : w->function_seen[number];
	while (n < high && function_value(n) != got)
		n++;
	expect("value of patched code", got, function_value(n));
	w->function_seen[number] = n;
	if (!(before & 1) && before == after)
		expect("patched code is current", got, function_value(before >> 1));
}

void act_patch(void)
{
	unsigned number = pick(FUNCTIONS);
	struct function *f = &functions[number];
	ticket_take(&f->lock);
	f->version++;
	u32 value = function_value((f->version + 1) >> 1);
	volatile u8 *at = f->at;
	at[0] = 0xcc;
	call_all(CALL_SERIALIZE, 0);
	if (pick(2)) {
		*(volatile u32 *)(at + 1) = value;
	} else {
		for (unsigned i = 0; i < 4; i++)
			at[1 + i] = value >> 8 * i;
	}
	call_all(CALL_SERIALIZE, 0);
	at[0] = 0xb8;
	call_all(CALL_SERIALIZE, 0);
	f->version++;
	ticket_give(&f->lock);
}

/* Self-modifying, in a page of this CPU's; and data in the page of everybody's functions. */
void act_own_code(void)
{
	static u8 own[CPUS_MAX][4096] __attribute__((aligned(4096)));
	u8 *at = own[this_cpu()->index] + pick(4000);
	for (unsigned i = 0; i < 4; i++) {
		u32 value = random64(&self()->seed);
		put_code(at, value);
		expect("self-modifying code", call_code(at), value);
	}
	asm volatile("lock incq %0" : "+m"(*(volatile u64 *)(code[0] + 3000)) : : "memory", "cc");
	atomic_add(&code_counter, 1);
}

u64 code_page_counter(void)
{
	return *(volatile u64 *)(code[0] + 3000);
}
