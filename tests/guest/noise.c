/* A neighbour that takes what it can get: endless work, a storm of interrupts at itself, or nothing at all for ever. "mode=loop|storm|halt" is
 * given as mode=0, 1 or 2; "rounds=N" ends it after so many rounds, and without it it never ends. */
#include "lib/apic.h"

#define VECTOR 0x40
#define ROUND 100000u

static volatile u32 taken;

static void count(struct state *s)
{
	taken++;
	apic_eoi();
}

static void loop(void)
{
	for (u32 i = 0; i < ROUND; i++)
		asm volatile("" : : : "memory");
}

/* The timer as fast as it goes, and interrupts to itself between. */
static void storm(void)
{
	for (u32 i = 0; i < ROUND / 100; i++) {
		apic_write(APIC_ICR, ICR_SELF | ICR_ASSERT | VECTOR);
		asm volatile("sti\n nop\n cli" : : : "memory");
	}
}

/* Until something comes; nothing does, but for what says so: the timer, where it is to end. */
static void halt(void)
{
	asm volatile("sti\n hlt\n cli" : : : "memory");
}

void guest_main(void)
{
	static void (*const modes[])(void) = { loop, storm, halt };
	u64 mode = 0, rounds = 0;
	command_option("mode", &mode);
	command_option("rounds", &rounds);
	apic_init();
	handler_set(VECTOR, count);
	if (mode == 1 || rounds) {
		apic_write(APIC_LVT_TIMER, LVT_PERIODIC | VECTOR);
		apic_write(APIC_TIMER_DIVIDE, 0xb);
		apic_write(APIC_TIMER_INITIAL, mode == 1 ? 1 : 1000000);
	}
	for (u64 i = 0; !rounds || i < rounds; i++)
		modes[mode % ARRAY_SIZE(modes)]();
	CHECK(mode == 0 || taken > 0);
	CHECK(rounds > 0);
}
