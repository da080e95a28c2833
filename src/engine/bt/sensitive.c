/* Looking for sensitive instructions in a page; see sensitive.h. */
#include "engine/bt/sensitive.h"

#include "arch/paging.h"

#include <Zydis/Zydis.h>

#define STARTS 16 /* one more than the longest instruction has bytes, so one of so many addresses in a row begins an instruction */
#define DECODE_BYTES 15

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
	u8 reached[SENSITIVE_BEFORE + PAGE_SIZE + 2 * SENSITIVE_BEHIND]; /* whether an instruction can begin there */
	u32 start, end; /* what is known of it */
	u32 followed; /* up to here */
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

/* Follow the code up to `to`, from so far before that the ways from all starts but the real one have come to an end or met that. */
static void follow(struct text *t, u32 to)
{
	u32 from = to >= t->start + SENSITIVE_BEFORE ? to - SENSITIVE_BEFORE : t->start;
	if (from > t->followed) {
		__builtin_memset(t->reached + from, 1, STARTS);
		t->followed = from;
	}
	for (; t->followed < to; t->followed++)
		if (t->reached[t->followed])
			t->reached[t->followed + length_at(t, t->followed)] = 1;
}

/* Add where instructions with the opcode at `hit` begin: there, and at prefixes before. False: too many. */
static bool add_sites(const struct text *t, u32 hit, u16 *site, unsigned *sites, unsigned max)
{
	u32 first = hit;
	while (first > t->start && hit - first < DECODE_BYTES && is_prefix(t->byte[first - 1]))
		first--;
	for (u32 at = first; at <= hit; at++) {
		if (!t->reached[at])
			continue;
		if (at < SENSITIVE_BEFORE || *sites == max)
			return false;
		site[(*sites)++] = (u16)(at - SENSITIVE_BEFORE);
	}
	return true;
}

static void read_text(struct text *t, const u8 *page, const u8 *before, const u8 *behind)
{
	t->start = t->followed = before ? 0 : SENSITIVE_BEFORE;
	t->end = SENSITIVE_BEFORE + PAGE_SIZE + (behind ? SENSITIVE_BEHIND : 0);
	if (before)
		__builtin_memcpy(t->byte, before + PAGE_SIZE - SENSITIVE_BEFORE, SENSITIVE_BEFORE);
	__builtin_memcpy(t->byte + SENSITIVE_BEFORE, page, PAGE_SIZE);
	__builtin_memset(t->byte + SENSITIVE_BEFORE + PAGE_SIZE, 0, SENSITIVE_BEHIND);
	if (behind)
		__builtin_memcpy(t->byte + SENSITIVE_BEFORE + PAGE_SIZE, behind, SENSITIVE_BEHIND);
	__builtin_memset(t->reached, 0, sizeof(t->reached));
	__builtin_memset(t->reached + t->start, 1, STARTS);
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
	for (u32 at = from; at < to && at + 2 <= t.end; at++) {
		if ((t.byte[at] != 0x0f && t.byte[at] != 0xcd) || !looks_sensitive(t.byte + at, same_tsc))
			continue;
		follow(&t, at);
		if (!add_sites(&t, at, site, &sites, max))
			return max + 1;
	}
	return sites;
}
