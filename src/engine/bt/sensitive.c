/* Looking for sensitive instructions in a page; see sensitive.h. */
#include "engine/bt/sensitive.h"

#include "arch/paging.h"

#include <Zydis/Zydis.h>

#define STARTS 16 /* one more than the longest instruction has bytes, so one of so many addresses in a row begins an instruction */
#define DECODE_BYTES 15
#define NEAR 48

/* Behind 0F 01: SGDT, SIDT and SMSW, and of what has a byte of its own all that does not trap at CPL 3 wherever the guest's CPUID does
 * not tell of it, but for XEND, XTEST, SERIALIZE and the like, which depend on nothing: VMCALL and its kind, XGETBV, VMFUNC, ENCLU,
 * VMMCALL, RDPKRU, WRPKRU, RDTSCP, RDPRU. */
static bool group_7_sensitive(u8 modrm)
{
	unsigned reg = modrm >> 3 & 7;
	if (modrm < 0xc0 || reg == 4)
		return reg < 2 || reg == 4;
	static const u8 alone[] = { 0xd0, 0xd4, 0xd7, 0xd9, 0xee, 0xef, 0xf9, 0xfd };
	for (unsigned i = 0; i < ARRAY_SIZE(alone); i++)
		if (modrm == alone[i])
			return true;
	return reg == 0;
}

/* The opcode's bytes, from the one that may follow prefixes. Group 6 (0F 00) without LLDT, LTR and what is undefined, which trap. */
static bool looks_sensitive(const u8 *p, bool same_tsc)
{
	unsigned reg = p[2] >> 3 & 7;
	if (p[0] == 0xcd)
		return p[1] == 0x80;
	switch (p[1]) {
	case 0x00:
		return reg < 2 || reg == 4 || reg == 5;
	case 0x01:
		return group_7_sensitive(p[2]);
	case 0x31:
		return !same_tsc;
	case 0x02:
	case 0x03:
	case 0x34:
	case 0xa2:
		return true;
	case 0xc7:
		return p[2] >= 0xf8; /* RDPID; RDSEED, which would do no harm, looks alike */
	default:
		return false;
	}
}

static bool is_prefix(u8 byte)
{
	return (byte & 0xf0) == 0x40 || (byte & 0xe7) == 0x26 || (byte >= 0x64 && byte <= 0x67) || byte == 0xf0 || byte == 0xf2 || byte == 0xf3;
}

struct text {
	u8 byte[SENSITIVE_BEFORE + PAGE_SIZE + SENSITIVE_BEHIND];
	u32 start, end; /* what is known of it */
	u32 from; /* where the code was followed from, and from there on whether an instruction can begin */
	u8 reached[SENSITIVE_BEFORE + STARTS];
	ZydisDecoder decoder;
};

static u32 length_at(const struct text *t, u32 at)
{
	ZydisDecodedInstruction insn;
	ZydisDecoderContext context;
	u32 room = MIN(t->end - at, DECODE_BYTES);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&t->decoder, &context, t->byte + at, room, &insn)))
		return 1;
	return insn.length;
}

/* Follow the code to `to` from all starts `before` bytes before. False: no way comes to an address from `first` to `to`. */
static bool follow(struct text *t, u32 first, u32 to, u32 before)
{
	t->from = to >= t->start + before ? to - before : t->start;
	__builtin_memset(t->reached, 0, sizeof(t->reached));
	__builtin_memset(t->reached, 1, STARTS);
	for (u32 at = t->from; at < to; at++)
		if (t->reached[at - t->from])
			t->reached[at - t->from + length_at(t, at)] = 1;
	for (u32 at = first; at <= to; at++)
		if (t->reached[at - t->from])
			return true;
	return false;
}

/* Add where instructions with the opcode at `hit` begin: there, and at prefixes before. The nearer the start, the more ways there are: most of
 * what only looks like an instruction is on none even so; from far away the ways have met the real one. False: too many. */
static bool add_sites(struct text *t, u32 hit, u16 *site, unsigned *sites, unsigned max)
{
	u32 first = hit;
	while (first > t->start && hit - first < DECODE_BYTES && is_prefix(t->byte[first - 1]))
		first--;
	if (!follow(t, first, hit, NEAR) || !follow(t, first, hit, SENSITIVE_BEFORE))
		return true;
	for (u32 at = first; at <= hit; at++) {
		if (!t->reached[at - t->from])
			continue;
		if (at < SENSITIVE_BEFORE || *sites == max)
			return false;
		site[(*sites)++] = (u16)(at - SENSITIVE_BEFORE);
	}
	return true;
}

/* Eight bytes at a time: 80h in the lowest that is `byte`, and perhaps in higher ones. */
static u64 equal_bytes(u64 eight, u8 byte)
{
	u64 x = eight ^ 0x0101010101010101ull * byte;
	return (x - 0x0101010101010101ull) & ~x & 0x8080808080808080ull;
}

/* The first address from `at` on where an opcode that may be sensitive can begin, or one behind `to`. */
static u32 next_opcode(const struct text *t, u32 at, u32 to)
{
	for (; at < to; at += 8) {
		u64 eight;
		__builtin_memcpy(&eight, t->byte + at, sizeof(eight));
		u64 found = equal_bytes(eight, 0x0f) | equal_bytes(eight, 0xcd);
		if (found)
			return at + ((u32)__builtin_ctzll(found) >> 3);
	}
	return at;
}

static void read_text(struct text *t, const u8 *page, const u8 *before, const u8 *behind)
{
	t->start = before ? 0 : SENSITIVE_BEFORE;
	t->end = SENSITIVE_BEFORE + PAGE_SIZE + (behind ? SENSITIVE_BEHIND : 0);
	if (before)
		__builtin_memcpy(t->byte, before + PAGE_SIZE - SENSITIVE_BEFORE, SENSITIVE_BEFORE);
	__builtin_memcpy(t->byte + SENSITIVE_BEFORE, page, PAGE_SIZE);
	__builtin_memset(t->byte + SENSITIVE_BEFORE + PAGE_SIZE, 0, SENSITIVE_BEHIND);
	if (behind)
		__builtin_memcpy(t->byte + SENSITIVE_BEFORE + PAGE_SIZE, behind, SENSITIVE_BEHIND);
	ZydisDecoderInit(&t->decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderEnableMode(&t->decoder, ZYDIS_DECODER_MODE_MINIMAL, ZYAN_TRUE);
}

unsigned sensitive_sites(const u8 *page, const u8 *before, const u8 *behind, bool same_tsc, u16 *site, unsigned max)
{
	struct text t;
	unsigned sites = 0;
	read_text(&t, page, before, behind);
	/* From where an opcode of the page before may reach into this one. */
	u32 from = before ? SENSITIVE_BEFORE - 2 : SENSITIVE_BEFORE, to = SENSITIVE_BEFORE + PAGE_SIZE;
	for (u32 at = next_opcode(&t, from, to); at < to && at + 2 <= t.end; at = next_opcode(&t, at + 1, to))
		if (looks_sensitive(t.byte + at, same_tsc) && !add_sites(&t, at, site, &sites, max))
			return max + 1;
	return sites;
}
