/* Running code in real mode: the interrupt vector table and the state. Empty in 64-bit guests. */
#ifndef __x86_64__
#include "lib/real.h"

extern struct real_state real_regs;
void real_switch(void);

static struct {
	bool set;
	u16 offset, segment;
} vectors[256];

struct real_state real_state_at(const void *code)
{
	return (struct real_state){ .ip = LOW_OFFSET(code),
				    .cs = LOW_SEGMENT,
				    .ss = REAL_STACK_SEGMENT,
				    .sp = 0xff00,
				    .ds = REAL_DATA_SEGMENT,
				    .es = REAL_DATA_SEGMENT,
				    .flags = FLAG_FIXED };
}

void real_vector_set(unsigned vector, u16 segment, u16 offset)
{
	vectors[vector].set = true;
	vectors[vector].segment = segment;
	vectors[vector].offset = offset;
}

void ivt_write(unsigned vector, u16 segment, u16 offset)
{
	u32 address = vector * 4;
	asm volatile("" : "+r"(address)); /* not a constant to the compiler, to whom address 0 is no object */
	*(volatile u32 *)address = (u32)segment << 16 | offset;
}

static void fill_vectors(void)
{
	for (unsigned i = 0; i < 256; i++) {
		if (vectors[i].set)
			ivt_write(i, vectors[i].segment, vectors[i].offset);
		else
			ivt_write(i, LOW_SEGMENT, LOW_OFFSET(real_stubs) + 8 * i);
		vectors[i].set = false;
	}
}

void run_real(struct real_state *s)
{
	ulong flags = read_flags();
	cli();
	fill_vectors();
	gdt_set(SEL_CODE16LOW, descriptor(LOW_BASE, 0xffff, ACCESS_CODE, 0));
	real_regs = *s;
	real_switch();
	*s = real_regs;
	asm volatile("push %0; popf" : : "r"(flags) : "memory", "cc");
}

void real_state_print(const struct real_state *s)
{
	print("    vector %u cs:ip %x:%x flags %x ss:sp %x:%x ds %x es %x fs %x gs %x\n", s->vector, s->cs, s->ip,
	      s->flags, s->ss, s->sp, s->ds, s->es, s->fs, s->gs);
	print("    ax %x bx %x cx %x dx %x si %x di %x bp %x\n", s->ax, s->bx, s->cx, s->dx, s->si, s->di, s->bp);
}

void check_real(const struct real_state *s, unsigned vector, u32 ip, const char *file, int line)
{
	bool ok = s->vector == vector && s->ip == ip && s->cs == LOW_SEGMENT;
	check(ok, file, line, "real-mode run");
	if (!ok) {
		print("    want vector %u ip %x\n", vector, ip);
		real_state_print(s);
	}
}
#else
typedef int real_is_32_bit_only;
#endif
