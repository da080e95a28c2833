/* Torture of several CPUs at once: each does pseudo-random things whose outcome it knows, while the others do the same to it. Counters under
 * every kind of lock, mappings changed with shootdown, functions patched while others call them, timers, IPIs, HLT, excursions to
 * user mode, strings and vector state under interrupts. Nothing may be lost, seen twice, or seen after it has been taken back.
 * Intel SDM volume 3, "Multiple-Processor Management"; "Handling Self- and Cross-Modifying Code"; "Propagation of Paging-Structure Changes
 * to Multiple Processors". Options: cpus=N, actions=N each CPU, seconds=N instead, seed=N, only=MASK of the actions. */
#include "lib/smp.h"

#define V_TIMER 0x41
#define V_PERIODIC 0x42
#define V_PAIR 0x50 /* + sender */
#define V_SELF 0x61
#define V_CALL 0x71
#define V_USER_END 0x82
#define SEL_SYSCALL 0x200 /* and data behind it, as SYSCALL wants them */
#define WAIT_LIMIT (60ull << 30) /* TSC ticks: some 20 seconds */

/* What one CPU has and counts. */
struct worker {
	u64 seed;
	u64 actions;
	u64 xadds, cas, bts, tickets; /* what it added to the shared counters */
	u64 timers_armed, timers_fired, periods;
	u64 sent[CPUS_MAX], received[CPUS_MAX]; /* IPIs to and from each CPU; received is written by its own handlers */
	u64 selfs_sent, selfs_received, nmis_received, calls_received, calls_last;
	u64 users, user_sum;
	u64 checks, seen_patching, seen_faults; /* how often the interesting cases were met */
	u64 fixup, fault_error; /* of an access that may fault */
	u64 kernel_sp;
	u64 function_seen[16];
	u64 failures;
	const char *failed;
	u64 got, want;
} __attribute__((aligned(64)));

static struct worker workers[CPUS_MAX];
static volatile bool stop;
static u64 actions_wanted = 3000, seconds_wanted, only = ~0ull;
static struct barrier barrier;

static struct worker *self(void)
{
	return &workers[this_cpu()->index];
}

static void fail(const char *what, u64 got, u64 want)
{
	struct worker *w = self();
	if (!w->failures++) {
		w->failed = what;
		w->got = got;
		w->want = want;
	}
}

static void expect(const char *what, u64 got, u64 want)
{
	self()->checks++;
	if (got != want)
		fail(what, got, want);
}

static u64 pick(u64 n)
{
	return random64(&self()->seed) % n;
}

/* Wait with interrupts on; what does not come ends the test. */
#define WAIT(condition)                                                                                                \
	do {                                                                                                           \
		u64 end_ = rdtsc() + WAIT_LIMIT;                                                                       \
		while (!(condition) && !stop) {                                                                        \
			pause();                                                                                       \
			if (rdtsc() > end_) {                                                                          \
				fail("never came: " #condition, 0, 1);                                                 \
				stop = true;                                                                           \
			}                                                                                              \
		}                                                                                                      \
	} while (0)

/* ---- locks and counters ---- */

struct ticket_lock {
	volatile u64 next, serving;
};

static void ticket_take(struct ticket_lock *lock)
{
	u64 mine = atomic_add(&lock->next, 1);
	WAIT(lock->serving == mine);
}

static void ticket_give(struct ticket_lock *lock)
{
	lock->serving++;
}

static struct {
	volatile u64 xadd __attribute__((aligned(64)));
	volatile u64 cas __attribute__((aligned(64)));
	volatile u64 bts __attribute__((aligned(64)));
	volatile u64 bit __attribute__((aligned(64)));
	struct ticket_lock lock __attribute__((aligned(64)));
	volatile u64 ticket, ticket_mirror;
} counters;

static void act_xadd(void)
{
	u64 n = pick(1000);
	atomic_add(&counters.xadd, n);
	self()->xadds += n;
}

static void act_cas(void)
{
	u64 old = counters.cas;
	while (!atomic_compare_exchange(&counters.cas, &old, old + 3))
		pause();
	self()->cas += 3;
}

static void act_bts(void)
{
	bool was;
	for (;;) {
		asm volatile("lock btsq $17, %1" : "=@ccc"(was), "+m"(counters.bit) : : "memory");
		if (!was)
			break;
		WAIT(!(counters.bit & BIT(17)));
		if (stop)
			return;
	}
	counters.bts++;
	asm volatile("lock btrq $17, %0" : "+m"(counters.bit) : : "memory", "cc");
	self()->bts++;
}

static void act_ticket(void)
{
	ticket_take(&counters.lock);
	u64 n = ++counters.ticket;
	expect("ticket lock excludes", counters.ticket_mirror, n - 1);
	counters.ticket_mirror = n;
	ticket_give(&counters.lock);
	self()->tickets++;
}

/* ---- all CPUs do something, and say so ---- */

enum call { CALL_NOTHING, CALL_INVLPG, CALL_CR3, CALL_SERIALIZE };

static struct {
	struct ticket_lock lock;
	volatile u64 sequence, acknowledged;
	volatile enum call what;
	volatile ulong address;
} call;

static void do_call(enum call what, ulong address)
{
	if (what == CALL_INVLPG)
		invlpg((const void *)address);
	else if (what == CALL_CR3)
		write_cr3(read_cr3());
	else
		cpuid(0, 0);
}

static void on_call(struct state *s)
{
	struct worker *w = self();
	(void)s;
	if (w->calls_last == call.sequence)
		fail("a broadcast came twice", w->calls_last, call.sequence);
	w->calls_last = call.sequence;
	w->calls_received++;
	do_call(call.what, call.address);
	atomic_add(&call.acknowledged, 1);
	apic_eoi();
}

/* By shorthand, one by one, or by logical destination. */
static void send_call(void)
{
	unsigned me = this_cpu()->index;
	switch (pick(3)) {
	case 0:
		smp_send(0, ICR_OTHERS | V_CALL);
		break;
	case 1:
		for (unsigned i = 0; i < smp_cpus; i++)
			if (i != me)
				smp_send(smp_apic_id(i), V_CALL);
		break;
	default:
		smp_send((((1u << smp_cpus) - 1) & ~(1u << me)) << 24, ICR_LOGICAL | V_CALL);
	}
}

static void call_all(enum call what, ulong address)
{
	ticket_take(&call.lock);
	call.what = what;
	call.address = address;
	call.acknowledged = 0;
	call.sequence++;
	self()->calls_last = call.sequence;
	send_call();
	do_call(what, address);
	WAIT(call.acknowledged == smp_cpus - 1);
	ticket_give(&call.lock);
}

static void act_call(void)
{
	call_all(CALL_NOTHING, 0);
}

/* ---- mappings ---- */

#define WINDOW ((u8 *)0x20000000000)
#define PAGES 8
#define FRAMES 24
#define POISON 0xdeadbeefdeadbeefull
#define SIGNATURE 0x5157000000000000ull
#define P 1u
#define W 2u
#define U 4u
#define A 0x20u
#define D 0x40u

extern u64 boot_pml4[];
static u64 frames[FRAMES][512] __attribute__((aligned(4096)));
static volatile u64 window_table[512] __attribute__((aligned(4096)));

/* A page's version is odd while it changes; between equal even versions its state must be what is seen. */
static struct page {
	volatile u64 version;
	volatile unsigned frame; /* FRAMES: none */
	volatile bool writable;
	struct ticket_lock lock;
} pages[PAGES];
static volatile u64 frame_used; /* bits */

static void window_set_up(void)
{
	static u64 pdpt[512] __attribute__((aligned(4096))), pd[512] __attribute__((aligned(4096)));
	pd[0] = (ulong)window_table | P | W | U;
	pdpt[0] = (ulong)pd | P | W | U;
	boot_pml4[(ulong)WINDOW >> 39] = (ulong)pdpt | P | W | U;
	for (unsigned i = 0; i < PAGES; i++)
		pages[i].frame = FRAMES;
	for (unsigned i = 0; i < FRAMES; i++)
		frames[i][0] = POISON;
}

static void on_page_fault(struct state *s)
{
	struct worker *w = self();
	if (!w->fixup || s->cr2 - (ulong)WINDOW >= PAGES * 4096) {
		fail("page fault at", s->cr2, s->ip);
		state_print(s);
		finish();
	}
	w->fault_error = s->error;
	s->ip = w->fixup;
}

#define NO_FAULT 0x100u

static u64 read_window(const volatile u64 *p, u64 *error)
{
	struct worker *w = self();
	u64 value = 0;
	w->fault_error = NO_FAULT;
	asm volatile("leaq 1f(%%rip), %%rax\n movq %%rax, %1\n movq %2, %0\n 1: movq $0, %1"
		     : "+r"(value), "+m"(w->fixup) : "m"(*p) : "rax", "memory");
	*error = w->fault_error;
	return value;
}

static u64 write_window(volatile u64 *p)
{
	struct worker *w = self();
	w->fault_error = NO_FAULT;
	asm volatile("leaq 1f(%%rip), %%rax\n movq %%rax, %0\n lock incq %1\n 1: movq $0, %0"
		     : "+m"(w->fixup), "+m"(*p) : : "rax", "memory", "cc");
	return w->fault_error;
}

static void act_access(void)
{
	unsigned number = pick(PAGES);
	struct page *page = &pages[number];
	u64 *at = (u64 *)(WINDOW + number * 4096);
	bool write = pick(2);
	u64 before = page->version, error, value = 0;
	unsigned frame = page->frame;
	bool writable = page->writable;
	if (write)
		error = write_window(at + 64 + this_cpu()->index);
	else
		value = read_window(at, &error);
	if (!write && error == NO_FAULT && value == POISON)
		fail("a mapping was seen after its shootdown", number, before);
	if (before & 1 || page->version != before)
		return;
	if (error != NO_FAULT)
		self()->seen_faults++;
	if (frame == FRAMES)
		expect("access to an absent page", error, write ? W : 0);
	else if (write)
		expect("write access", error, writable ? NO_FAULT : P | W);
	else
		expect("value read", error == NO_FAULT ? value : error, SIGNATURE + frame);
}

static unsigned frame_take(void)
{
	for (;;) {
		unsigned frame = pick(FRAMES);
		bool was;
		asm volatile("lock btsq %2, %1" : "=@ccc"(was), "+m"(frame_used) : "r"((u64)frame) : "memory");
		if (was)
			continue;
		u64 written = 0;
		for (unsigned i = 64; i < 64 + CPUS_MAX; i++)
			written += frames[frame][i];
		expect("a free frame stays poisoned", frames[frame][0], POISON);
		expect("nobody wrote to a free frame", written, 0);
		return frame;
	}
}

/* Nobody may use it any more. What was written through the mapping must have left its dirty flag. */
static void frame_give(unsigned frame, u64 entry)
{
	u64 written = 0;
	for (unsigned i = 64; i < 64 + CPUS_MAX; i++) {
		written |= frames[frame][i];
		frames[frame][i] = 0;
	}
	if (written)
		expect("dirty flag of a written page", entry & (A | D), A | D);
	*(volatile u64 *)&frames[frame][0] = POISON;
	asm volatile("lock btrq %1, %0" : "+m"(frame_used) : "r"((u64)frame) : "memory", "cc");
}

static void act_map(void)
{
	unsigned number = pick(PAGES);
	struct page *page = &pages[number];
	ticket_take(&page->lock);
	page->version++;
	unsigned old = page->frame, frame = FRAMES;
	u64 way = pick(4), entry = 0;
	if (way == 0 && old != FRAMES) { /* only the permission changes; A and D are kept */
		frame = old;
		page->writable = !page->writable;
		entry = P | U | (page->writable ? W : 0);
	} else if (way != 1) {
		frame = frame_take();
		*(volatile u64 *)&frames[frame][0] = SIGNATURE + frame;
		page->writable = pick(4) != 0;
		entry = (ulong)frames[frame] | P | U | (page->writable ? W : 0);
	}
	u64 was = window_table[number];
	if (frame == old && frame != FRAMES) {
		while (!atomic_compare_exchange(&window_table[number], &was, (was & ~(u64)W) | (entry & W)))
			;
	} else {
		was = atomic_exchange(&window_table[number], entry);
	}
	page->frame = frame;
	call_all(pick(4) ? CALL_INVLPG : CALL_CR3, (ulong)WINDOW + number * 4096);
	if (old != FRAMES && old != frame)
		frame_give(old, was);
	page->version++;
	ticket_give(&page->lock);
}

/* ---- code ---- */

#define FUNCTIONS 12
static u8 code[3][4096] __attribute__((aligned(4096)));
static struct function {
	u8 *at;
	volatile u64 version; /* odd while it is patched; the value is its half */
	struct ticket_lock lock;
} functions[FUNCTIONS];
static volatile u64 code_counter; /* in the page of the functions' */

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

static void code_set_up(void)
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
static void on_breakpoint(struct state *s)
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

static void act_call_code(void)
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

static void act_patch(void)
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
static void act_own_code(void)
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

/* ---- timers ---- */

static u8 vector_areas[CPUS_MAX][3][4096] __attribute__((aligned(64)));

/* Now and then the handler uses the vector registers, as a context switch does. */
static void disturb_vectors(struct worker *w)
{
	if (w->timers_fired % 4)
		return;
	u8 *area = vector_areas[w - workers][2];
	asm volatile("fxsave64 (%0)\n pxor %%xmm0, %%xmm0\n pcmpeqd %%xmm7, %%xmm7\n movdqa %%xmm7, %%xmm15\n fxrstor64 (%0)"
		     : : "r"(area) : "memory");
}

static void on_timer(struct state *s)
{
	struct worker *w = self();
	(void)s;
	if (++w->timers_fired > w->timers_armed)
		fail("a timer fired twice", w->timers_fired, w->timers_armed);
	disturb_vectors(w);
	apic_eoi();
}

static void on_period(struct state *s)
{
	(void)s;
	self()->periods++;
	apic_eoi();
}

static bool timer_waits(void)
{
	volatile struct worker *w = self();
	return w->timers_fired != w->timers_armed;
}

static void timer_arm(u64 ticks)
{
	struct worker *w = self();
	WAIT(!timer_waits());
	w->timers_armed++;
	if (HAS_TSC_DEADLINE && pick(2)) {
		apic_write(APIC_LVT_TIMER, V_TIMER | LVT_TSC_DEADLINE);
		mfence();
		wrmsr(MSR_TSC_DEADLINE, rdtsc() + ticks * 2);
	} else {
		apic_write(APIC_LVT_TIMER, V_TIMER);
		apic_write(APIC_TIMER_DIVIDE, pick(2) ? 0xb : 0);
		apic_write(APIC_TIMER_INITIAL, ticks);
	}
}

static void act_timer(void)
{
	timer_arm(1 + pick(100000));
}

static void act_periodic(void)
{
	volatile struct worker *w = self();
	WAIT(!timer_waits());
	u64 before = w->periods, wanted = 1 + pick(4);
	apic_write(APIC_LVT_TIMER, V_PERIODIC | LVT_PERIODIC);
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_TIMER_INITIAL, 60000 + pick(100000));
	WAIT(w->periods - before >= wanted);
	apic_write(APIC_TIMER_INITIAL, 0);
}

/* As an idle loop does: look with interrupts off, STI and HLT as one. */
static void act_halt(void)
{
	timer_arm(1 + pick(200000));
	while (timer_waits() && !stop) {
		cli();
		if (timer_waits())
			asm volatile("sti\n hlt" : : : "memory");
		sti();
	}
}

/* ---- IPIs ---- */

static volatile u64 nmi_wanted[CPUS_MAX];
static volatile u64 nmis_sent[CPUS_MAX];

static void on_pair(struct state *s)
{
	self()->received[s->vector - V_PAIR]++;
	apic_eoi();
}

static void on_self(struct state *s)
{
	(void)s;
	self()->selfs_received++;
	apic_eoi();
}

static void on_nmi(struct state *s)
{
	(void)s;
	if (!atomic_exchange(&nmi_wanted[this_cpu()->index], 0))
		fail("an NMI that nobody sent", 1, 0);
	self()->nmis_received++;
}

static bool pair_arrived(unsigned from, unsigned to)
{
	return *(volatile u64 *)&workers[to].received[from] == workers[from].sent[to];
}

/* The next is sent when the last one has come: there is one place for each vector. */
static void act_ipi(void)
{
	unsigned me = this_cpu()->index, to = pick(smp_cpus);
	WAIT(pair_arrived(me, to));
	if (stop)
		return;
	workers[me].sent[to]++;
	smp_send(smp_apic_id(to), V_PAIR + me);
}

static void act_self(void)
{
	volatile struct worker *w = self();
	w->selfs_sent++;
	apic_send_self(V_SELF);
	WAIT(w->selfs_received == w->selfs_sent);
}

static void act_nmi(void)
{
	unsigned to = pick(smp_cpus);
	if (atomic_exchange(&nmi_wanted[to], 1))
		return; /* one is on its way */
	atomic_add(&nmis_sent[to], 1);
	smp_send(smp_apic_id(to), ICR_NMI);
}

/* ---- user mode ---- */

static u8 user_stacks[CPUS_MAX][4096] __attribute__((aligned(16)));
extern u8 user_code[], syscall_entry[];
void user_enter(u64 *kernel_sp, ulong user_sp);
extern u8 user_left[];

/* RAX doubles in the kernel; the sum is in R12 in the end. */
asm(".pushsection .text\n"
    "user_code: xorl %r12d, %r12d\n movl $20, %ebx\n movq %rsp, %r13\n"
    "1: movl %ebx, %eax\n syscall\n addq %rax, %r12\n decl %ebx\n jnz 1b\n"
    "int $" STRINGIFY(V_USER_END) "\n ud2\n"
    "syscall_entry: addq %rax, %rax\n sysretq\n"
    "user_enter: pushq %rbx\n pushq %rbp\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
    "movq %rsp, (%rdi)\n pushq $" STRINGIFY(SEL_USER_DATA) " + 3\n pushq %rsi\n pushq $0x202\n"
    "pushq $" STRINGIFY(SEL_USER_CODE64) " + 3\n pushq $user_code\n iretq\n"
    "user_left: popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbp\n popq %rbx\n ret\n"
    ".popsection");

static void on_user_end(struct state *s)
{
	struct worker *w = self();
	expect("sum of a user program", s->r12, 420);
	expect("stack of a user program", s->r13, s->sp);
	s->ip = (ulong)user_left;
	s->cs = SEL_CODE64;
	s->ss = SEL_DATA;
	s->ds = s->es = SEL_DATA;
	s->sp = w->kernel_sp;
	s->flags = FLAG_FIXED | FLAG_IF;
}

static void act_user(void)
{
	struct worker *w = self();
	user_enter(&w->kernel_sp, (ulong)user_stacks[this_cpu()->index] + 4000);
	w->users++;
}

static void user_set_up(void)
{
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	wrmsr(MSR_STAR, (u64)(SEL_USER_CODE32 | 3) << 48 | (u64)SEL_SYSCALL << 32);
	wrmsr(MSR_LSTAR, (ulong)syscall_entry);
	wrmsr(MSR_SFMASK, FLAG_IF | FLAG_TF | FLAG_DF);
}

/* ---- strings ---- */

static u8 strings[CPUS_MAX][2][32768] __attribute__((aligned(64)));

static void act_string(void)
{
	u8 *from = strings[this_cpu()->index][0], *to = strings[this_cpu()->index][1];
	u64 offset = pick(4096), length = 1 + pick(28000), value = pick(256);
	if (!timer_waits())
		timer_arm(1 + pick(5000));
	memset(from + offset, value, length);
	from[offset] = ~value;
	from[offset + length - 1] = ~value;
	memcpy(to, from + offset, length);
	const u8 *a = to, *b = from + offset;
	u64 left = length;
	asm volatile("repe cmpsb" : "+S"(a), "+D"(b), "+c"(left) : : "memory", "cc");
	expect("strings are equal", left, 0);
	expect("a string's ends", to[0] | (u64)to[length - 1] << 8, (~value & 0xff) * 0x101);
	if (length > 2)
		expect("a string's inside", to[1 + pick(length - 2)], value);
}

/* ---- vector state ---- */

static u64 vector_patterns[CPUS_MAX][2];

static void vectors_load(u64 pattern)
{
	u64 pair[2] __attribute__((aligned(16))) = { pattern, ~pattern };
	asm volatile("movdqa (%0), %%xmm0\n movdqa %%xmm0, %%xmm5\n movdqa %%xmm0, %%xmm7\n movdqa %%xmm0, %%xmm15"
		     : : "r"(pair) : "memory");
	if (HAS_AVX && (read_cr4() & CR4_OSXSAVE))
		asm volatile("vbroadcastf128 (%0), %%ymm6" : : "r"(pair) : "memory");
}

static bool vectors_hold(u64 pattern)
{
	u64 got[5][4] __attribute__((aligned(32))) = { 0 };
	asm volatile("movdqa %%xmm0, (%0)\n movdqa %%xmm5, 32(%0)\n movdqa %%xmm7, 64(%0)\n movdqa %%xmm15, 96(%0)"
		     : : "r"(got) : "memory");
	bool ok = true;
	for (unsigned i = 0; i < 4; i++)
		ok &= got[i][0] == pattern && got[i][1] == ~pattern;
	if (HAS_AVX && (read_cr4() & CR4_OSXSAVE)) {
		asm volatile("vmovdqu %%ymm6, (%0)" : : "r"(got[4]) : "memory");
		for (unsigned i = 0; i < 4; i++)
			ok &= got[4][i] == (i & 1 ? ~pattern : pattern);
	}
	return ok;
}

/* Two threads' states by turns: bring one back, see that it is what it was, change it, put it away. */
static void act_vectors(void)
{
	unsigned me = this_cpu()->index, thread = pick(2);
	bool xsave = read_cr4() & CR4_OSXSAVE;
	u8 *area = vector_areas[me][thread];
	u64 *pattern = &vector_patterns[me][thread];
	if (*pattern) {
		if (xsave)
			asm volatile("xrstor64 (%0)" : : "r"(area), "a"(7), "d"(0) : "memory");
		else
			asm volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
		expect("vector state comes back", vectors_hold(*pattern), true);
	}
	*pattern = random64(&self()->seed);
	vectors_load(*pattern);
	if (!timer_waits() && pick(2))
		timer_arm(1 + pick(2000));
	for (u64 n = pick(300); n; n--)
		pause();
	expect("vector state stays", vectors_hold(*pattern), true);
	if (xsave)
		asm volatile("xsave64 (%0)" : : "r"(area), "a"(7), "d"(0) : "memory");
	else
		asm volatile("fxsave64 (%0)" : : "r"(area) : "memory");
}

static void vectors_set_up(void)
{
	if (HAS_XSAVE && HAS_AVX) {
		write_cr4(read_cr4() | CR4_OSXSAVE);
		asm volatile("xsetbv" : : "a"(7), "d"(0), "c"(0));
	}
}

/* ---- the whole ---- */

static void (*const actions[])(void) = {
	act_xadd, act_cas, act_bts, act_ticket, act_call, act_access, act_access, act_access, act_map, act_call_code,
	act_call_code, act_call_code, act_patch, act_own_code, act_timer, act_periodic, act_halt, act_ipi, act_ipi, act_self,
	act_nmi, act_user, act_string, act_vectors,
};

/* The first CPU watches the clock: seconds that have begun. */
static bool time_is_up(void)
{
	static u8 last = 0xff;
	static u64 seconds, looked;
	if (rdtsc() - looked < 1 << 24)
		return false;
	looked = rdtsc();
	outb(0x70, 0);
	u8 now = inb(0x71);
	if (now != last)
		seconds++;
	last = now;
	return seconds > seconds_wanted;
}

static bool goes_on(unsigned index, const struct worker *w)
{
	if (stop)
		return false;
	if (!seconds_wanted)
		return w->actions < actions_wanted;
	static volatile bool up;
	if (!index && time_is_up())
		up = true;
	return !up;
}

static void work(unsigned index)
{
	struct worker *w = &workers[index];
	user_set_up();
	vectors_set_up();
	apic_write(APIC_DFR, 0xffffffff);
	apic_write(APIC_LDR, 1u << (24 + index));
	barrier_wait(&barrier, smp_cpus);
	sti();
	while (goes_on(index, w)) {
		unsigned action = pick(ARRAY_SIZE(actions));
		if (only >> action & 1)
			actions[action]();
		w->actions++;
	}
	/* What is on its way still comes. */
	WAIT(!timer_waits());
	barrier_wait(&barrier, smp_cpus);
	for (unsigned to = 0; to < smp_cpus; to++)
		WAIT(pair_arrived(index, to));
	WAIT(!nmi_wanted[index]);
	barrier_wait(&barrier, smp_cpus);
	cli();
}

static void report_failures(void)
{
	for (unsigned i = 0; i < smp_cpus; i++) {
		const struct worker *w = &workers[i];
		check(!w->failures, __FILE_NAME__, __LINE__, w->failures ? w->failed : "");
		if (w->failures)
			print("    CPU %u, %llu failures: got %llx, want %llx\n", i, w->failures, w->got, w->want);
	}
}

static void check_sums(void)
{
	struct worker sum = { 0 };
	for (unsigned i = 0; i < smp_cpus; i++) {
		const struct worker *w = &workers[i];
		sum.xadds += w->xadds;
		sum.cas += w->cas;
		sum.bts += w->bts;
		sum.tickets += w->tickets;
		sum.actions += w->actions;
		sum.checks += w->checks;
		sum.seen_patching += w->seen_patching;
		sum.seen_faults += w->seen_faults;
		sum.calls_received += w->calls_received;
		sum.periods += w->periods;
		sum.timers_fired += w->timers_fired;
		CHECK_EQ(w->timers_fired, w->timers_armed);
		CHECK_EQ(w->selfs_received, w->selfs_sent);
		CHECK_EQ(w->nmis_received, nmis_sent[i]);
		sum.nmis_received += w->nmis_received;
		for (unsigned to = 0; to < smp_cpus; to++)
			CHECK_EQ(workers[to].received[i], w->sent[to]);
	}
	CHECK_EQ(counters.xadd, sum.xadds);
	CHECK_EQ(counters.cas, sum.cas);
	CHECK_EQ(counters.bts, sum.bts);
	CHECK_EQ(counters.ticket, sum.tickets);
	CHECK_EQ(call.sequence * (smp_cpus - 1), sum.calls_received);
	CHECK_EQ(*(volatile u64 *)(code[0] + 3000), code_counter);
	print("%llu actions, %llu checks, %llu broadcasts, %llu timers, %llu periods, %llu NMIs, %llu faults, %llu calls while patching\n",
		sum.actions, sum.checks, call.sequence, sum.timers_fired, sum.periods, sum.nmis_received, sum.seen_faults, sum.seen_patching);
}

void guest_main(void)
{
	extern const u8 trap_stubs[];
	u64 seed = 1;
	if (!smp_start())
		return;
	command_option("actions", &actions_wanted);
	if (on_qemu)
		actions_wanted /= 100; /* its CPUs wait for each other with all their might */
	command_option("seconds", &seconds_wanted);
	command_option("seed", &seed);
	command_option("only", &only);
	gdt_set(SEL_SYSCALL, descriptor(0, 0xfffff, ACCESS_CODE, DESC_G | DESC_L));
	gdt_set(SEL_SYSCALL + 8, descriptor(0, 0xfffff, ACCESS_DATA, DESC_G | DESC_DB));
	window_set_up();
	code_set_up();
	for (unsigned i = 0; i < CPUS_MAX; i++)
		workers[i].seed = seed * 0x9e3779b97f4a7c15 + i * 0xbf58476d1ce4e5b9 + 1;
	handler_set(VEC_PF, on_page_fault);
	handler_set(VEC_BP, on_breakpoint);
	handler_set(VEC_NMI, on_nmi);
	handler_set(V_TIMER, on_timer);
	handler_set(V_PERIODIC, on_period);
	handler_set(V_SELF, on_self);
	handler_set(V_CALL, on_call);
	for (unsigned i = 0; i < CPUS_MAX; i++)
		handler_set(V_PAIR + i, on_pair);
	handler_set(V_USER_END, on_user_end);
	idt_set(V_USER_END, SEL_CODE64, (ulong)trap_stubs + 16 * V_USER_END, GATE_INT, 3, 0);
	smp_run(work);
	report_failures();
	check_sums();
}
