/* Random instructions: random bytes behind every kind of prefix and opcode map, kept if they decode to something that
 * user mode may run natively, and thinned out so that frequent mnemonics do not crowd out rare ones. */
#include "generate.h"

#include <string.h>

#include "cpu/xstate.h"
#include "engine/insn/rewrite.h"
#include "native.h"

#define DATA_SIZE (DATA_PAGES * PAGE_SIZE)

static unsigned char acceptance[INSN_MODE_COUNT]
			       [ZYDIS_MNEMONIC_MAX_VALUE + 1]; /* out of 255; 0: not seen, always accepted */

/* ---- bytes ---- */

static u8 *put_prefixes(struct random *r, enum insn_mode mode, u8 *p)
{
	static const u8 segment[] = { 0x26, 0x2e, 0x36, 0x3e };
	if (random_chance(r, 25))
		*p++ = 0x66;
	/* 16-bit addresses do not reach the data. */
	if (random_chance(r, mode == INSN_MODE_16 ? 70 : 4))
		*p++ = 0x67;
	if (random_chance(r, 20))
		*p++ = random_chance(r, 50) ? 0xf2 : 0xf3;
	if (random_chance(r, 4))
		*p++ = 0xf0;
	if (random_chance(r, 3))
		*p++ = segment[random_below(r, 4)];
	return p;
}

static u8 *put_opcode_start(struct random *r, enum insn_mode mode, u8 *p)
{
	switch (random_below(r, 10)) {
	case 0: /* VEX, two bytes */
		if (mode == INSN_MODE_16)
			*p++ = 0x67;
		*p++ = 0xc5;
		*p++ = (u8)(random_next(r) | (mode == INSN_MODE_64 ? 0 : 0xc0));
		return p;
	case 1:
	case 2: /* VEX, three bytes */
		if (mode == INSN_MODE_16)
			*p++ = 0x67;
		*p++ = 0xc4;
		*p++ = (u8)((random_next(r) & 0xe0) | (mode == INSN_MODE_64 ? 0 : 0xc0) | (1 + random_below(r, 3)));
		return p;
	case 3:
	case 4:
	case 5: /* EVEX */
		if (mode == INSN_MODE_16)
			*p++ = 0x67;
		*p++ = 0x62;
		*p++ = (u8)((random_next(r) & 0xf0) | (mode == INSN_MODE_64 ? 0 : 0xc0) | (1 + random_below(r, 3)));
		return p;
	case 6:
		p = put_prefixes(r, mode, p);
		if (mode == INSN_MODE_64 && random_chance(r, 50))
			*p++ = (u8)(0x40 | random_below(r, 16));
		return p;
	default:
		p = put_prefixes(r, mode, p);
		if (mode == INSN_MODE_64 && random_chance(r, 50))
			*p++ = (u8)(0x40 | random_below(r, 16));
		*p++ = 0x0f;
		if (random_chance(r, 40))
			*p++ = random_chance(r, 60) ? 0x38 : 0x3a;
		return p;
	}
}

static void random_bytes(struct random *r, enum insn_mode mode, u8 *bytes)
{
	u8 *end = bytes + INSN_LENGTH_MAX + 1;
	for (u8 *p = put_opcode_start(r, mode, bytes); p < end; p++)
		*p = (u8)random_next(r);
}

/* ---- which instructions ---- */

static bool kind_testable(const struct insn *insn)
{
	switch (insn->kind) {
	case KIND_NATIVE:
		return insn->z.mnemonic != ZYDIS_MNEMONIC_RDRAND && insn->z.mnemonic != ZYDIS_MNEMONIC_RDSEED;
	case KIND_X87_ENV:
	case KIND_FWAIT:
	case KIND_BIT:
	case KIND_MASKED:
	case KIND_VMASKMOV:
	case KIND_GATHER:
	case KIND_SCATTER:
	case KIND_MASKMOV:
	case KIND_CLZERO:
	case KIND_LEA:
	case KIND_MOV:
	case KIND_MOVZX:
	case KIND_MOVSX:
	case KIND_NOP:
	case KIND_ENTER:
	case KIND_LEAVE:
	case KIND_XLAT:
	case KIND_LAHF:
	case KIND_SAHF:
	case KIND_CLC:
	case KIND_STC:
	case KIND_CMC:
	case KIND_STRING_MOVS:
	case KIND_STRING_STOS:
	case KIND_STRING_LODS:
	case KIND_STRING_CMPS:
	case KIND_STRING_SCAS:
	case KIND_AAA:
	case KIND_AAS:
	case KIND_AAD:
	case KIND_AAM:
	case KIND_DAA:
	case KIND_DAS:
	case KIND_SALC:
	case KIND_BOUND:
	case KIND_PUSHA:
	case KIND_POPA:
		return true;
	case KIND_PUSH:
	case KIND_POP:
		return insn->operand[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
		       insn_gpr(insn->operand[0].reg.value) >= 0;
	default:
		return false;
	}
}

/* Segments FS and GS have other bases here than in the guest. */
static bool segments_testable(const struct insn *insn)
{
	for (unsigned i = 0; i < insn->z.operand_count; i++) {
		const ZydisDecodedOperand *o = &insn->operand[i];
		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    (o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS))
			return false;
	}
	return true;
}

static bool random_insn(const struct insn_decoder *decoder, enum insn_mode mode, struct random *r, struct insn *insn)
{
	u8 bytes[32];
	random_bytes(r, mode, bytes);
	return insn_decode(decoder, mode, bytes, INSN_LENGTH_MAX, insn) == DECODE_OK && kind_testable(insn) &&
	       segments_testable(insn);
}

#define CALIBRATION 1000000

void generate_calibrate(const struct insn_decoder *decoder, enum insn_mode mode)
{
	static u32 seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	struct random r = { 1 };
	struct insn insn;
	memset(seen, 0, sizeof(seen));
	for (unsigned i = 0; i < CALIBRATION; i++)
		if (random_insn(decoder, mode, &r, &insn))
			seen[insn.z.mnemonic]++;
	for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
		u32 even = 100; /* how often each would come up if all were alike */
		acceptance[mode][m] = seen[m] <= even ? 0 : (unsigned char)MAX(1u, 255 * even / seen[m]);
	}
}

static void pick_insn(const struct insn_decoder *decoder, enum insn_mode mode, struct random *r, struct insn *insn)
{
	for (;;) {
		if (!random_insn(decoder, mode, r, insn))
			continue;
		unsigned char a = acceptance[mode][insn->z.mnemonic];
		if (!a || random_below(r, 255) < a)
			return;
	}
}

/* ---- state ---- */

static u64 random_value(struct random *r)
{
	u64 v = random_next(r);
	switch (random_below(r, 6)) {
	case 0:
		return v & 0xff;
	case 1:
		return (u64)(s64)(s8)v;
	case 2:
		return BIT(v & 63) - (v >> 6 & 1);
	case 3:
		return v & 0xffffffff;
	default:
		return v;
	}
}

/* Bit patterns of floating-point numbers, special ones among them, and integers. */
static u64 random_element(struct random *r)
{
	static const u64 special[] = { 0,
				       0x8000000000000000,
				       0x3ff0000000000000,
				       0xbff0000000000000,
				       0x7ff0000000000000,
				       0x7ff8000000000000,
				       0x7ff4000000000000,
				       0x3f8000003f800000,
				       0x7f8000007fc00000,
				       0x0000000100000001,
				       0x000fffffffffffff,
				       0x3c003c0040004000,
				       0x41e0000000000000 };
	u64 v = random_next(r);
	switch (v & 7) {
	case 0:
		return special[random_below(r, ARRAY_SIZE(special))];
	case 1: /* doubles near one */
		return (v & 0x800fffffffffffff) | (u64)(0x3f0 + random_below(r, 0x20)) << 52;
	case 2: /* floats near one */
		return (v & 0x807fffff807fffff) | 0x3f8000003f800000;
	default:
		return random_next(r);
	}
}

void generate_data(struct random *r, void *buffer, size_t size)
{
	u64 *p = buffer, v = random_next(r);
	for (size_t i = 0; i < size / 8; i++) {
		/* A cheap generator, with an interesting value now and then. */
		v ^= v << 13;
		v ^= v >> 7;
		v ^= v << 17;
		p[i] = (v & 0xf0) ? v : random_element(r);
	}
}

static void put16(u8 *image, unsigned offset, u16 value)
{
	memcpy(image + offset, &value, sizeof(value));
}

static void random_x87(struct random *r, u8 *image)
{
	u16 fcw = (u16)(0x37f ^ (random_below(r, 16) << 8)), fsw = (u16)(random_next(r) & 0x7f00);
	if (random_chance(r, 3))
		fcw &= (u16)~random_below(r, 64);
	if (random_chance(r, 10))
		fsw |= (u16)(random_next(r) & 0x7f);
	/* A pending unmasked exception makes the next instruction fault; ES and B say so. */
	if (fsw & ~fcw & 0x3f)
		fsw |= 0x8080;
	put16(image, 0, fcw);
	put16(image, 2, fsw);
	image[4] = random_chance(r, 50) ? 0xff : (u8)random_next(r);
	for (unsigned i = 0; i < 8; i++) {
		u64 mantissa = random_element(r);
		u16 exponent = (u16)(random_chance(r, 60) ? 0x3ff0 + random_below(r, 32) : random_next(r));
		if (random_chance(r, 80))
			mantissa |= BIT(63);
		memcpy(image + 32 + i * 16, &mantissa, sizeof(mantissa));
		put16(image, 40 + i * 16, (u16)(exponent | (random_next(r) & 0x8000)));
	}
}

static void random_image(struct random *r, u64 xstate_mask, u8 *image)
{
	u32 mxcsr = 0x1f80 | (u32)(random_next(r) & 0x603f);
	if (random_chance(r, 20))
		mxcsr |= 0x8040 & (u32)random_next(r);
	if (random_chance(r, 2))
		mxcsr &= ~((u32)random_below(r, 64) << 7);
	memset(image, 0, 4096);
	random_x87(r, image);
	memcpy(image + 24, &mxcsr, sizeof(mxcsr));
	for (unsigned i = 160; i < 416; i += 8)
		*(u64 *)(void *)(image + i) = random_element(r);
	for (unsigned component = 2; component < 8; component++) {
		u32 offset, size;
		if (!(xstate_mask >> component & 1))
			continue;
		xstate_component(component, &offset, &size);
		for (u32 i = 0; i < size; i += 8)
			*(u64 *)(void *)(image + offset + i) = random_element(r);
	}
	memcpy(image + 512, &xstate_mask, sizeof(xstate_mask));
}

static unsigned gpr_of(ZydisRegister reg)
{
	return (unsigned)insn_gpr(reg);
}

/* An address in or around the data for an operand of `size` bytes. */
static u64 random_target(struct random *r, enum insn_mode mode, unsigned size)
{
	u64 page = DATA_ADDRESS + random_below(r, DATA_PAGES) * PAGE_SIZE;
	u64 way = random_below(r, 100);
	if (way < 60)
		return page + random_below(r, PAGE_SIZE / 64) * 64;
	if (way < 85)
		return page + random_below(r, PAGE_SIZE);
	if (way < 94) /* across two pages of data */
		return DATA_ADDRESS + (1 + random_below(r, DATA_PAGES - 1)) * PAGE_SIZE - random_below(r, size + 1);
	if (way < 98) /* across the end */
		return DATA_ADDRESS + DATA_SIZE - random_below(r, size + 1);
	if (way < 99 || mode != INSN_MODE_64)
		return DATA_ADDRESS - PAGE_SIZE - random_below(r, PAGE_SIZE);
	return random_next(r) | BIT(62);
}

static bool is_rip(ZydisRegister reg)
{
	return reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP;
}

/* Rewrite the displacement in the code, for addresses without a base register. */
static bool patch_displacement(struct test_case *c, struct insn *insn, unsigned start, u64 target, u64 already)
{
	u32 disp = (u32)(target - already);
	if (insn->z.raw.disp.size != 32 || target >> 32)
		return false;
	memcpy(c->code + start + insn->z.raw.disp.offset, &disp, sizeof(disp));
	return true;
}

static void small_indices(struct random *r, struct test_case *c, const ZydisDecodedOperandMem *mem, bool wide)
{
	/* The index register of a gather: small values, so that the elements stay in the data. */
	for (unsigned i = 0; i < 16; i++) {
		u64 v = wide ? random_below(r, 200) : random_below(r, 200) | random_below(r, 200) << 32;
		unsigned reg = (unsigned)ZydisRegisterGetId(mem->index), byte = i * 8;
		u32 offset, size;
		if (byte >= 64)
			break;
		if (reg >= 16) {
			xstate_component(7, &offset, &size);
			offset += (reg - 16) * 64 + byte;
		} else if (byte < 16) {
			offset = 160 + reg * 16 + byte;
		} else {
			xstate_component(byte < 32 ? 2 : 6, &offset, &size);
			offset += byte < 32 ? reg * 16 + byte - 16 : reg * 32 + byte - 32;
		}
		memcpy(c->image + offset, &v, sizeof(v));
	}
}

static bool wide_index(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_VGATHERQPD:
	case ZYDIS_MNEMONIC_VGATHERQPS:
	case ZYDIS_MNEMONIC_VPGATHERQD:
	case ZYDIS_MNEMONIC_VPGATHERQQ:
	case ZYDIS_MNEMONIC_VSCATTERQPD:
	case ZYDIS_MNEMONIC_VSCATTERQPS:
	case ZYDIS_MNEMONIC_VPSCATTERQD:
	case ZYDIS_MNEMONIC_VPSCATTERQQ:
		return true;
	default:
		return false;
	}
}

/* Choose registers so that the operand's address is `target`. */
static bool aim(struct random *r, struct test_case *c, struct insn *insn, unsigned start,
		const ZydisDecodedOperandMem *mem, u64 target)
{
	u64 disp = mem->disp.has_displacement ? (u64)mem->disp.value : 0, index = 0;
	bool vsib = mem->type == ZYDIS_MEMOP_TYPE_VSIB;
	if (vsib) {
		small_indices(r, c, mem, wide_index(insn->z.mnemonic));
	} else if (mem->index != ZYDIS_REGISTER_NONE) {
		unsigned i = gpr_of(mem->index);
		if (mem->base == mem->index || (mem->base != ZYDIS_REGISTER_NONE && gpr_of(mem->base) == i))
			return false;
		if (insn->z.address_width == 64)
			c->gpr[i] = random_chance(r, 50) ? random_below(r, 64) : random_value(r);
		else
			c->gpr[i] = random_below(r, 64);
		index = c->gpr[i] * mem->scale;
	}
	if (insn->z.address_width == 16)
		return false;
	if (is_rip(mem->base))
		return patch_displacement(c, insn, start, target, CODE_ADDRESS + start + insn->z.length);
	if (mem->base == ZYDIS_REGISTER_NONE)
		return mem->index == ZYDIS_REGISTER_NONE && patch_displacement(c, insn, start, target, 0);
	u64 base = target - disp - index;
	if (insn->z.address_width == 32)
		base = (u32)base | (insn->mode == INSN_MODE_64 ? random_next(r) << 32 : 0);
	c->gpr[gpr_of(mem->base)] = base;
	return true;
}

/* Registers that address memory without being named as operands of it, and operands that would lead out of the data. */
static bool fix_implied(struct random *r, struct test_case *c, const struct insn *insn)
{
	switch (insn->kind) {
	case KIND_BIT:
		if (insn->memory >= 0 && insn->operand[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
			unsigned reg = gpr_of(insn->operand[1].reg.value);
			const ZydisDecodedOperandMem *mem = &insn->operand[0].mem;
			if (insn_gpr(mem->base) == (int)reg || insn_gpr(mem->index) == (int)reg)
				return false;
			c->gpr[reg] = random_below(r, 40000) - 20000;
		}
		return true;
	case KIND_MASKMOV:
		c->gpr[RDI] = random_target(r, (enum insn_mode)insn->mode, 16);
		return true;
	case KIND_CLZERO:
		c->gpr[RAX] = random_target(r, (enum insn_mode)insn->mode, 64);
		return true;
	case KIND_XLAT:
		c->gpr[RBX] = random_target(r, (enum insn_mode)insn->mode, 1) - (u8)c->gpr[RAX];
		return true;
	case KIND_STRING_MOVS:
	case KIND_STRING_STOS:
	case KIND_STRING_LODS:
	case KIND_STRING_CMPS:
	case KIND_STRING_SCAS:
		c->gpr[RSI] = random_target(r, (enum insn_mode)insn->mode, 8);
		c->gpr[RDI] = random_chance(r, 30) ? c->gpr[RSI] + random_below(r, 32) - 16
						   : random_target(r, (enum insn_mode)insn->mode, 8);
		c->gpr[RCX] = random_below(r, 60);
		if (random_chance(r, 40))
			c->rflags |= RFLAGS_DF;
		return insn->z.address_width != 16;
	default:
		return true;
	}
}

static bool fix_operands(struct random *r, struct test_case *c, struct insn *insn, unsigned start)
{
	const ZydisDecodedOperand *o = insn_memory(insn);
	bool implied = insn_class_of((enum insn_kind)insn->kind) == INSN_CLASS_LEGACY && insn->kind != KIND_BOUND;
	if (o && o->mem.type != ZYDIS_MEMOP_TYPE_AGEN && insn->kind != KIND_XLAT && !implied) {
		unsigned size =
			insn->kind == KIND_MASKED || insn->z.meta.category == ZYDIS_CATEGORY_EXPAND ? 64 : o->size / 8u;
		if (!aim(r, c, insn, start, &o->mem, random_target(r, (enum insn_mode)insn->mode, MAX(size, 1u))))
			return false;
	}
	return fix_implied(r, c, insn);
}

void generate_state(struct random *r, enum insn_mode mode, u64 xstate_mask, struct test_case *c)
{
	for (unsigned i = 0; i < 16; i++)
		c->gpr[i] = random_value(r);
	if (random_chance(r, 40))
		c->gpr[RDX] = random_chance(r, 50) ? 0 : random_below(r, 16);
	if (random_chance(r, 50))
		c->gpr[RCX] = random_below(r, 66);
	/* Stack instructions go to the data, too. */
	c->gpr[RSP] = DATA_ADDRESS + PAGE_SIZE + random_below(r, PAGE_SIZE);
	c->gpr[RBP] = DATA_ADDRESS + PAGE_SIZE + random_below(r, PAGE_SIZE);
	c->rflags = RFLAGS_FIXED1 | RFLAGS_IF | (random_next(r) & RFLAGS_STATUS);
	random_image(r, xstate_mask, c->image);
	if (mode != INSN_MODE_64)
		for (unsigned i = 0; i < 16; i++)
			c->gpr[i] = (u32)c->gpr[i];
}

static void append(struct test_case *c, const struct insn *insn)
{
	c->insn[c->count++] = *insn;
	memcpy(c->code + c->size, insn->bytes, insn->z.length);
	c->size += insn->z.length;
}

#define FOLLOWING_MAX 6

void generate_case(const struct insn_decoder *decoder, enum insn_mode mode, struct random *r, u64 xstate_mask,
		   struct test_case *c)
{
	struct insn insn;
	c->offset = 0;
	for (;;) {
		c->count = c->size = 0;
		pick_insn(decoder, mode, r, &insn);
		append(c, &insn);
		generate_state(r, mode, xstate_mask, c);
		if (!fix_operands(r, c, &c->insn[0], 0))
			continue;
		if (mode != INSN_MODE_64)
			for (unsigned i = 0; i < 16; i++)
				c->gpr[i] = (u32)c->gpr[i];
		break;
	}
	/* What follows must not see flags that the first leaves undefined and C computes. */
	bool legacy = insn_class_of((enum insn_kind)c->insn[0].kind) == INSN_CLASS_LEGACY;
	unsigned more = !legacy && random_chance(r, 25) ? (unsigned)random_below(r, FOLLOWING_MAX) : 0;
	while (c->count <= more) {
		pick_insn(decoder, mode, r, &insn);
		if (insn.memory < 0 && insn_class_of((enum insn_kind)insn.kind) == INSN_CLASS_INNOCUOUS)
			append(c, &insn);
		else if (random_chance(r, 10))
			break;
	}
}
