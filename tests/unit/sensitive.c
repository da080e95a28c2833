/* Where a page has sensitive instructions: every kind of them, with prefixes, at every edge, and what only looks like one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch/paging.h"
#include "engine/bt/sensitive.h"

#include <stdlib.h>
#include <string.h>

#define NOP 0x90
#define MAX_SITES 8

struct bytes {
	u8 length, byte[15];
};

static const struct bytes sensitive[] = {
	{ 2, { 0x0f, 0xa2 } }, /* CPUID */
	{ 3, { 0x0f, 0x01, 0x00 } }, /* SGDT [RAX] */
	{ 3, { 0x0f, 0x01, 0x0b } }, /* SIDT [RBX] */
	{ 7, { 0x0f, 0x01, 0x0d, 1, 2, 3, 4 } }, /* SIDT [RIP + ...] */
	{ 3, { 0x0f, 0x01, 0xe0 } }, /* SMSW EAX */
	{ 4, { 0x0f, 0x01, 0x60, 0x10 } }, /* SMSW [RAX + 10H] */
	{ 3, { 0x0f, 0x00, 0xc0 } }, /* SLDT EAX */
	{ 3, { 0x0f, 0x00, 0xc8 } }, /* STR EAX */
	{ 3, { 0x0f, 0x00, 0xe0 } }, /* VERR AX */
	{ 3, { 0x0f, 0x00, 0x28 } }, /* VERW [RAX] */
	{ 3, { 0x0f, 0x02, 0xc1 } }, /* LAR */
	{ 3, { 0x0f, 0x03, 0xc1 } }, /* LSL */
	{ 2, { 0x0f, 0x34 } }, /* SYSENTER */
	{ 3, { 0x0f, 0x01, 0xd0 } }, /* XGETBV */
	{ 3, { 0x0f, 0x01, 0xd4 } }, /* VMFUNC */
	{ 3, { 0x0f, 0x01, 0xd7 } }, /* ENCLU */
	{ 3, { 0x0f, 0x01, 0xd9 } }, /* VMMCALL */
	{ 3, { 0x0f, 0x01, 0xc1 } }, /* VMCALL */
	{ 3, { 0x0f, 0x01, 0xee } }, /* RDPKRU */
	{ 3, { 0x0f, 0x01, 0xef } }, /* WRPKRU */
	{ 3, { 0x0f, 0x01, 0xf9 } }, /* RDTSCP */
	{ 3, { 0x0f, 0x01, 0xfd } }, /* RDPRU */
	{ 4, { 0xf3, 0x0f, 0xc7, 0xf8 } }, /* RDPID RAX */
	{ 5, { 0xf3, 0x41, 0x0f, 0xc7, 0xff } }, /* RDPID R15 */
	{ 2, { 0xcd, 0x80 } }, /* INT 80H */
	{ 3, { 0x66, 0x0f, 0xa2 } },
	{ 3, { 0x48, 0x0f, 0xa2 } },
	{ 5, { 0xf2, 0x2e, 0x66, 0x0f, 0xa2 } },
	{ 5, { 0x64, 0x67, 0x0f, 0x01, 0x03 } },
	{ 15, { 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x0f, 0xa2 } },
};

/* Their bytes are in immediates and displacements, or they trap. */
static const struct bytes harmless[] = {
	{ 5, { 0xb8, 0x0f, 0xa2, 0x0f, 0xa2 } }, /* MOV EAX, imm32 */
	{ 10, { 0x48, 0xb8, 0x0f, 0xa2, 0xcd, 0x80, 0x0f, 0x01, 0xf9, 0x90 } }, /* MOV RAX, imm64 */
	{ 7, { 0x48, 0x8d, 0x05, 0x0f, 0xa2, 0, 0 } }, /* LEA RAX, [RIP + disp32] */
	{ 5, { 0xe9, 0x0f, 0x01, 0xd0, 0x00 } }, /* JMP */
	{ 2, { 0xeb, 0x0f } }, /* JMP short */
	{ 3, { 0x0f, 0x01, 0xd8 } }, /* VMRUN */
	{ 3, { 0x0f, 0x01, 0x10 } }, /* LGDT */
	{ 3, { 0x0f, 0x00, 0xd8 } }, /* LTR */
	{ 3, { 0x0f, 0x01, 0xd5 } }, /* XEND */
	{ 2, { 0x0f, 0x05 } }, /* SYSCALL */
	{ 2, { 0x0f, 0x31 } }, /* RDTSC */
	{ 2, { 0xcd, 0x81 } },
	{ 3, { 0x0f, 0xaf, 0xc0 } }, /* IMUL */
	{ 3, { 0x0f, 0xc7, 0xf0 } }, /* RDRAND */
};

static u8 *page, *before, *behind;
static u16 site[MAX_SITES + 1];

/* Each page is an allocation of its own, so that a byte too far is found. */
static int set_up(void **state)
{
	u8 **const pages[] = { &page, &before, &behind };
	for (unsigned i = 0; i < 3; i++) {
		*pages[i] = malloc(PAGE_SIZE);
		if (!*pages[i])
			return -1;
		memset(*pages[i], NOP, PAGE_SIZE);
	}
	return 0;
}

static int tear_down(void **state)
{
	free(page);
	free(before);
	free(behind);
	return 0;
}

static void put(unsigned at, const struct bytes *b)
{
	memcpy(page + at, b->byte, b->length);
}

static bool found_at(unsigned sites, unsigned at)
{
	for (unsigned i = 0; i < sites && i < MAX_SITES; i++)
		if (site[i] == at)
			return true;
	return false;
}

static bool has_prefixes(const struct bytes *b)
{
	return b->byte[0] != 0x0f && b->byte[0] != 0xcd;
}

/* At many places, with neighbours and without. What has prefixes can begin at each of them. */
static void test_each(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(sensitive); i++) {
		for (unsigned at = 0; at + sensitive[i].length <= PAGE_SIZE; at += at < 40 || at > PAGE_SIZE - 40 ? 1 : 31) {
			memset(page, NOP, PAGE_SIZE);
			put(at, &sensitive[i]);
			for (unsigned neighbours = 0; neighbours < 4; neighbours++) {
				unsigned sites = sensitive_sites(page, neighbours & 1 ? before : NULL, neighbours & 2 ? behind : NULL, true, site, MAX_SITES);
				if (!has_prefixes(&sensitive[i]))
					assert_true(sites == 1 && site[0] == at);
				else
					assert_true(sites > MAX_SITES || found_at(sites, at));
			}
		}
	}
}

static void test_look_alikes(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(harmless); i++) {
		for (unsigned at = 64; at + harmless[i].length <= PAGE_SIZE; at += 131) {
			memset(page, NOP, PAGE_SIZE);
			put(at, &harmless[i]);
			assert_int_equal(sensitive_sites(page, before, behind, true, site, MAX_SITES), 0);
		}
	}
	/* Without what was before, any byte of the first may be an instruction's first. */
	memset(page, NOP, PAGE_SIZE);
	put(0, &harmless[0]);
	assert_true(sensitive_sites(page, NULL, behind, true, site, MAX_SITES) > 0);
	/* With it, so may be what a page of NOPs leads to: none. */
	assert_int_equal(sensitive_sites(page, before, behind, true, site, MAX_SITES), 0);
}

/* One that begins here and ends behind is a site here; one whose opcode is here but whose start is before is too many. */
static void test_straddling(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(sensitive); i++) {
		const struct bytes *b = &sensitive[i];
		for (unsigned here = 1; here < b->length; here++) {
			memset(page, NOP, PAGE_SIZE);
			memset(before, NOP, PAGE_SIZE);
			memset(behind, NOP, PAGE_SIZE);
			memcpy(page + PAGE_SIZE - here, b->byte, here);
			memcpy(behind, b->byte + here, b->length - here);
			unsigned sites = sensitive_sites(page, before, behind, true, site, MAX_SITES);
			/* Where all of it that is here are prefixes, the other page has the opcode, and is the one that is refused. */
			bool opcode_here = false;
			for (unsigned n = 0; n < here; n++)
				opcode_here |= b->byte[n] == 0x0f || b->byte[n] == 0xcd;
			if (opcode_here)
				assert_true(sites > MAX_SITES || found_at(sites, PAGE_SIZE - here));
			memset(page, NOP, PAGE_SIZE);
			memset(behind, NOP, PAGE_SIZE);
			memcpy(before + PAGE_SIZE - (b->length - here), b->byte, b->length - here);
			memcpy(page, b->byte + b->length - here, here);
			sites = sensitive_sites(page, before, behind, true, site, MAX_SITES);
			bool opcode_whole_before = true;
			for (unsigned n = b->length - here; n < b->length; n++)
				opcode_whole_before &= b->byte[n] != 0x0f && b->byte[n] != 0xcd;
			if (!opcode_whole_before)
				assert_int_equal(sites, MAX_SITES + 1);
		}
	}
	memset(before, NOP, PAGE_SIZE);
	memset(behind, NOP, PAGE_SIZE);
}

/* In ascending order, and one more than the most when there are more. */
static void test_count(void **state)
{
	for (unsigned count = 0; count < 12; count++) {
		memset(page, NOP, PAGE_SIZE);
		for (unsigned i = 0; i < count; i++)
			put(100 + 300 * i, &sensitive[0]);
		for (unsigned max = 0; max <= MAX_SITES; max++) {
			site[max] = 0xabcd;
			unsigned sites = sensitive_sites(page, before, behind, true, site, max);
			assert_int_equal(sites, MIN(count, max + 1));
			assert_int_equal(site[max], 0xabcd);
			for (unsigned i = 0; sites <= max && i < sites; i++)
				assert_int_equal(site[i], 100 + 300 * i);
		}
	}
}

/* RDTSC is one where the guest's counter is not the host's. */
static void test_counter(void **state)
{
	memcpy(page + 77, (const u8[]){ 0x0f, 0x31 }, 2);
	assert_int_equal(sensitive_sites(page, before, behind, true, site, MAX_SITES), 0);
	assert_int_equal(sensitive_sites(page, before, behind, false, site, MAX_SITES), 1);
	assert_int_equal(site[0], 77);
}

static u64 seed = 1;

static u8 next_random(void)
{
	seed = seed * 6364136223846793005 + 1442695040888963407;
	return (u8)(seed >> 56);
}

/* Bytes without order: sites are ascending, within the page, and hold what may be an instruction of these, behind prefixes. */
static void test_random(void **state)
{
	for (unsigned round = 0; round < 300; round++) {
		u8 *const pages[] = { page, before, behind };
		for (unsigned p = 0; p < 3; p++)
			for (unsigned i = 0; i < PAGE_SIZE; i++)
				pages[p][i] = next_random() & 15 ? next_random() & (round & 1 ? 0xff : 0x7f) : 0x0f;
		static u16 many[PAGE_SIZE * 4 + 1];
		unsigned sites = sensitive_sites(page, round & 2 ? before : NULL, round & 4 ? behind : NULL, true, many, PAGE_SIZE);
		if (sites > PAGE_SIZE)
			continue; /* something reaches in from before */
		for (unsigned i = 0; i < sites; i++)
			assert_true(many[i] < PAGE_SIZE);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = { TEST(test_each), TEST(test_look_alikes), TEST(test_straddling), TEST(test_count), TEST(test_counter), TEST(test_random) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
