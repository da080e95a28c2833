/* What one guest leaves to the next (A3): nothing. It looks for anything in memory and registers that it finds at its start, then fills all of both with a
 * pattern, checks for a while that they stay what it made them, whoever else runs, and ends in the way "end=" says: by itself, by a triple fault, or by
 * rebooting. "megabytes=N" is its memory, "rounds=N" how often it looks, "pattern=N" what makes it differ from others. */
#include "lib/guest.h"

#define MIB 0x100000ul
#define FIRST (16 * MIB) /* the loader puts nothing from here on */
#define VECTORS 16

static u64 megabytes = 32, rounds = 10, pattern = 1, end;

/* As no instruction of this program has it. */
static u64 value(unsigned index)
{
	return 0x5ca1ab1e00000000 ^ (pattern << 40) ^ index * 0x9e3779b97f4a7c15;
}

/* ---- memory ---- */

static u64 words_that_are_not(u64 wanted)
{
	u64 count = 0;
	for (const u64 *p = (const u64 *)FIRST; p < (const u64 *)(megabytes * MIB); p++)
		count += *p != wanted;
	return count;
}

static void fill_memory(void)
{
	u64 *p = (u64 *)FIRST;
	u64 count = (megabytes * MIB - FIRST) / sizeof(*p);
	asm volatile("rep stosq" : "+D"(p), "+c"(count) : "a"(value(0)) : "memory");
}

/* ---- registers ---- */

static const u32 msrs[] = { MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_KERNEL_GS_BASE, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP };

/* FXSAVE's image: x87 registers at 32, vector registers at 160. */
static u8 area[512] __attribute__((aligned(16)));

static u64 vector_words(void)
{
	u64 found = 0;
	asm volatile("fxsave %0" : "=m"(area));
	for (unsigned i = 0; i < VECTORS; i++)
		found += *(u64 *)(area + 160 + 16 * i) || *(u64 *)(area + 168 + 16 * i);
	for (unsigned i = 0; i < 8; i++)
		found += *(u64 *)(area + 32 + 16 * i) != 0;
	return found;
}

static void read_debug(ulong *dr)
{
	asm volatile("mov %%dr0, %0\n mov %%dr1, %1\n mov %%dr2, %2\n mov %%dr3, %3" : "=r"(dr[0]), "=r"(dr[1]), "=r"(dr[2]), "=r"(dr[3]));
}

static void check_fresh(void)
{
	ulong dr[4];
	CHECK_EQ(vector_words(), 0);
	read_debug(dr);
	CHECK(!(dr[0] | dr[1] | dr[2] | dr[3]));
	for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++)
		CHECK_EQ(rdmsr(msrs[i]), 0);
	CHECK_EQ(words_that_are_not(0), 0);
}

/* Addresses are canonical. */
static u64 address(unsigned index)
{
	return value(index) & 0x7fffffffffff;
}

static void fill_registers(void)
{
	ulong dr[4] = { address(1), address(2), address(3), address(4) };
	asm volatile("mov %0, %%dr0\n mov %1, %%dr1\n mov %2, %%dr2\n mov %3, %%dr3" : : "r"(dr[0]), "r"(dr[1]), "r"(dr[2]), "r"(dr[3]));
	for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++)
		wrmsr(msrs[i], address(10 + i));
	asm volatile("fxsave %0" : "=m"(area));
	for (unsigned i = 0; i < VECTORS; i++) {
		*(u64 *)(area + 160 + 16 * i) = value(20 + i);
		*(u64 *)(area + 168 + 16 * i) = value(40 + i);
	}
	for (unsigned i = 0; i < 8; i++) {
		*(u64 *)(area + 32 + 16 * i) = value(60 + i);
		*(u64 *)(area + 40 + 16 * i) = 0x3fff;
	}
	asm volatile("fxrstor %0" : : "m"(area));
}

static bool registers_are_mine(void)
{
	ulong dr[4];
	bool good = true;
	read_debug(dr);
	for (unsigned i = 0; i < 4; i++)
		good = good && dr[i] == address(1 + i);
	for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++)
		good = good && rdmsr(msrs[i]) == address(10 + i);
	asm volatile("fxsave %0" : "=m"(area));
	for (unsigned i = 0; i < VECTORS; i++)
		good = good && *(u64 *)(area + 160 + 16 * i) == value(20 + i) && *(u64 *)(area + 168 + 16 * i) == value(40 + i);
	for (unsigned i = 0; i < 8; i++)
		good = good && *(u64 *)(area + 32 + 16 * i) == value(60 + i);
	return good;
}

/* ---- the end ---- */

static void end_as_wanted(void)
{
	static const struct table_register none = { 0, 0 };
	if (end == 1)
		asm volatile("lidt %0\n ud2" : : "m"(none));
	if (end == 2)
		outb(0xcf9, 6);
	while (end == 2)
		asm volatile("hlt");
}

void guest_main(void)
{
	command_option("megabytes", &megabytes);
	command_option("rounds", &rounds);
	command_option("pattern", &pattern);
	command_option("end", &end);
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	check_fresh();
	fill_memory();
	fill_registers();
	for (u64 i = 0; i < rounds; i++) {
		for (volatile u32 delay = 0; delay < 100000; delay++)
			;
		CHECK(registers_are_mine());
	}
	CHECK_EQ(words_that_are_not(value(0)), 0);
	print("nothing was found, and everything kept\n");
	end_as_wanted();
}
