/* Torture: pages that are mapped, protected and taken away while other CPUs use them. */
#include "torture/torture.h"

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

void window_set_up(void)
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

void on_page_fault(struct state *s)
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

void act_access(void)
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

void act_map(void)
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
