/* The rewriter. Intel SDM volume 2, "Instruction Format", "Intel Advanced Vector Extensions" (VEX), "EVEX Prefix"; AMD
 * APM volume 3, "Instruction Encoding" (XOP).
 *
 *   legacy  [F2|F3|66|F0] [REX] [0F [38|3A]] opcode ModRM tail      segment and 67 prefixes dropped, 66 by operand
 * width VEX     C5 P0 | C4 P0 P1  opcode ModRM tail                     X, B set (inverted) with a memory operand EVEX
 * 62 P0 P1 P2       opcode ModRM tail                     likewise XOP     8F P0 P1          opcode ModRM tail likewise
 *
 * tail: what follows ModRM, SIB and displacement: immediates. Outside 64-bit mode the register-extension bits are
 * ignored by the CPU or fixed to "none"; they are set to "none" here, and VEX.W is cleared where it would widen a
 * general register. */
#include "engine/insn/rewrite.h"

#include "lib/string.h"

static void put(struct rewritten *out, u8 byte)
{
	out->bytes[out->length++] = byte;
}

enum gpr insn_scratch(const struct insn *insn)
{
	static const u8 choice[] = { RDI, RSI, RDX, RCX, RBX, RAX };
	u16 used = insn->gpr_read | insn->gpr_written;
	for (unsigned i = 0; i < ARRAY_SIZE(choice); i++)
		if (!(used & (1u << choice[i])))
			return choice[i];
	return RDI;
}

static bool has_memory(const struct insn *insn)
{
	return insn->memory >= 0;
}

/* Where the immediates start: after ModRM, SIB and displacement. */
static unsigned tail_offset(const struct insn *insn)
{
	const ZydisDecodedInstructionRaw *raw = &insn->z.raw;
	if (raw->disp.size)
		return raw->disp.offset + raw->disp.size / 8u;
	if (insn->z.attributes & ZYDIS_ATTRIB_HAS_SIB)
		return raw->sib.offset + 1u;
	return raw->modrm.offset + 1u;
}

static void put_from(const struct insn *insn, unsigned offset, struct rewritten *out)
{
	while (offset < insn->z.length)
		put(out, insn->bytes[offset++]);
}

/* A register in the upper half of the immediate has three bits outside 64-bit mode, where the fourth is ignored. */
static void mend_is4(const struct insn *insn, struct rewritten *out)
{
	for (unsigned i = 0; insn->mode != INSN_MODE_64 && i < insn->z.operand_count; i++)
		if (insn->operand[i].encoding == ZYDIS_OPERAND_ENCODING_IS4)
			out->bytes[out->length - 1] &= 0x7f;
}

/* Host registers by the field that encodes them; -1 where the field does not name a general register. */
struct fields {
	int reg, rm, opcode, vvvv;
	struct place memory;
};

static void put_displacement(s32 disp, unsigned bytes, struct rewritten *out)
{
	for (unsigned i = 0; i < bytes; i++)
		put(out, (u8)((u32)disp >> i * 8));
}

/* ModRM, SIB and displacement. A displacement of one byte would be scaled under EVEX. */
static void put_place(const struct place *p, u8 reg, bool byte_scaled, struct rewritten *out)
{
	if (p->base == NO_REGISTER) {
		put(out, (u8)(reg << 3 | RSP));
		put(out, RSP << 3 | RBP);
		put_displacement(p->disp, 4, out);
		return;
	}
	bool sib = p->index != NO_REGISTER || (p->base & 7) == RSP;
	u8 mod = !p->disp && (p->base & 7) != RBP ? 0 : p->disp == (s8)p->disp && !(byte_scaled && p->disp) ? 1 : 2;
	put(out, (u8)(mod << 6 | reg << 3 | (sib ? RSP : p->base & 7)));
	if (sib)
		put(out, (u8)(p->scale << 6 | (p->index == NO_REGISTER ? RSP : p->index & 7) << 3 | (p->base & 7)));
	put_displacement(p->disp, mod == 1 ? 1 : mod == 2 ? 4 : 0, out);
}

static u8 base_high(const struct place *p)
{
	return p->base == NO_REGISTER ? 0 : p->base >> 3;
}

static u8 index_high(const struct place *p)
{
	return p->index == NO_REGISTER ? 0 : p->index >> 3;
}

static struct fields rename_fields(const struct insn *insn, const struct register_map *map)
{
	struct fields f = { -1, -1, -1, -1, map->memory };
	for (unsigned i = 0; i < insn->z.operand_count; i++) {
		const ZydisDecodedOperand *o = &insn->operand[i];
		int gpr = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? insn_gpr(o->reg.value) : -1;
		if (gpr < 0)
			continue;
		/* AH to BH are encoded as numbers 4 to 7 and cannot be renamed. */
		int number = insn_is_high_byte(o->reg.value) ? gpr + 4 : map->gpr[gpr];
		if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
			f.reg = number;
		else if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
			f.rm = number;
		else if (o->encoding == ZYDIS_OPERAND_ENCODING_OPCODE)
			f.opcode = number;
		else if (o->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD)
			f.vvvv = number;
	}
	return f;
}

static void put_modrm_and_tail(const struct insn *insn, const struct fields *f, struct rewritten *out)
{
	const ZydisDecodedInstructionRaw *raw = &insn->z.raw;
	u8 reg = f->reg < 0 ? raw->modrm.reg : f->reg & 7;
	if (has_memory(insn)) {
		put_place(&f->memory, reg, insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX, out);
		put_from(insn, tail_offset(insn), out);
	} else {
		u8 rm = f->rm < 0 ? raw->modrm.rm : f->rm & 7;
		put(out, (u8)(raw->modrm.mod << 6 | reg << 3 | rm));
		put_from(insn, raw->modrm.offset + 1u, out);
	}
	mend_is4(insn, out);
}

/* Whether 66 selects the operand width of this opcode, rather than being part of it or ignored. */
static bool width_by_66(const struct insn *insn)
{
	u8 op = insn->z.opcode;
	switch (insn->z.opcode_map) {
	case ZYDIS_OPCODE_MAP_DEFAULT:
		return true;
	case ZYDIS_OPCODE_MAP_0F:
		if (op == 0xc7)
			return insn->z.raw.modrm.mod == 3;
		return (op >= 0x40 && op <= 0x4f) || (op >= 0xa3 && op <= 0xad) || (op >= 0xaf && op <= 0xc1) ||
		       (op >= 0xc8 && op <= 0xcf);
	case ZYDIS_OPCODE_MAP_0F38:
		return op == 0xf0 || op == 0xf1;
	default:
		return false;
	}
}

static void put_legacy_prefixes(const struct insn *insn, struct rewritten *out)
{
	const ZydisDecodedInstructionRaw *raw = &insn->z.raw;
	bool mandatory66 = false;
	for (unsigned i = 0; i < raw->prefix_count; i++) {
		u8 value = raw->prefixes[i].value;
		bool mandatory = raw->prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY;
		if (value == 0x66 && mandatory)
			mandatory66 = true;
		else if (value == 0xf0 && has_memory(insn))
			put(out, 0xf0);
		else if ((value == 0xf2 || value == 0xf3) && mandatory)
			put(out, value);
	}
	if (mandatory66 || (width_by_66(insn) && insn->z.operand_width == 16))
		put(out, 0x66);
}

static void put_opcode_map(const struct insn *insn, struct rewritten *out)
{
	switch (insn->z.opcode_map) {
	case ZYDIS_OPCODE_MAP_0F:
		put(out, 0x0f);
		break;
	case ZYDIS_OPCODE_MAP_0F38:
		put(out, 0x0f);
		put(out, 0x38);
		break;
	case ZYDIS_OPCODE_MAP_0F3A:
		put(out, 0x0f);
		put(out, 0x3a);
		break;
	default:
		break;
	}
}

static unsigned legacy_opcode_end(const struct insn *insn)
{
	unsigned offset = insn->z.raw.prefix_count;
	switch (insn->z.opcode_map) {
	case ZYDIS_OPCODE_MAP_0F:
		return offset + 2;
	case ZYDIS_OPCODE_MAP_0F38:
	case ZYDIS_OPCODE_MAP_0F3A:
		return offset + 3;
	default:
		return offset + 1;
	}
}

static bool put_rex(const struct insn *insn, const struct fields *f, struct rewritten *out)
{
	const ZydisDecodedInstructionRawRex *rex = &insn->z.raw.rex;
	bool present = insn->z.attributes & ZYDIS_ATTRIB_HAS_REX;
	u8 r = f->reg < 0 ? (present ? rex->R : 0) : (u8)(f->reg >> 3);
	u8 b = present ? rex->B : 0, x = has_memory(insn) ? index_high(&f->memory) : 0;
	if (has_memory(insn))
		b = base_high(&f->memory);
	else if (f->rm >= 0)
		b = (u8)(f->rm >> 3);
	else if (f->opcode >= 0)
		b = (u8)(f->opcode >> 3);
	if (!present && !r && !b && !x)
		return true;
	put(out, (u8)(0x40 | (present ? rex->W << 3 : 0) | r << 2 | x << 1 | b));
	return !insn_names_high_byte(insn);
}

static bool rewrite_legacy(const struct insn *insn, const struct fields *f, struct rewritten *out)
{
	bool bits64 = insn->mode == INSN_MODE_64;
	u8 op = insn->z.opcode;
	put_legacy_prefixes(insn, out);
	if (!put_rex(insn, f, out))
		return false;
	if (!bits64 && insn->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT) {
		if (op >= 0x40 && op <= 0x4f) { /* INC and DEC: a REX prefix in 64-bit mode */
			put(out, 0xff);
			put(out, (u8)(0xc0 | (op & 8) | (f->opcode & 7)));
			return true;
		}
		if (op == 0x82) /* alias of 80 */
			op = 0x80;
	}
	put_opcode_map(insn, out);
	if (insn->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && op >= 0xa0 && op <= 0xa3) {
		put(out, (u8)(0x88 | (op & 1) | ((op & 2) ^ 2)));
		put_place(&f->memory, 0, false, out);
		return true;
	}
	put(out, f->opcode < 0 ? op : (u8)((op & ~7) | (f->opcode & 7)));
	if (insn->z.attributes & ZYDIS_ATTRIB_HAS_MODRM)
		put_modrm_and_tail(insn, f, out);
	else if (has_memory(insn))
		return false;
	else
		put_from(insn, legacy_opcode_end(insn), out);
	return true;
}

/* Outside 64-bit mode W does not widen general registers, nor the memory operand of a move to or from one. */
static bool clears_w(const struct insn *insn)
{
	if (insn->mode == INSN_MODE_64)
		return false;
	for (unsigned i = 0; i < insn->z.operand_count; i++)
		if (insn->operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER && insn_gpr(insn->operand[i].reg.value) >= 0)
			return true;
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_VMOVD:
	case ZYDIS_MNEMONIC_VPEXTRD:
	case ZYDIS_MNEMONIC_VPINSRD:
	case ZYDIS_MNEMONIC_VCVTSI2SD:
	case ZYDIS_MNEMONIC_VCVTSI2SS:
	case ZYDIS_MNEMONIC_VCVTSI2SH:
	case ZYDIS_MNEMONIC_VCVTUSI2SD:
	case ZYDIS_MNEMONIC_VCVTUSI2SS:
	case ZYDIS_MNEMONIC_VCVTUSI2SH:
		return true;
	default:
		return false;
	}
}

/* R, X and B of VEX, XOP and EVEX are stored inverted, in bits 7, 6 and 5. */
static u8 put_inverted(u8 byte, unsigned bit, bool value)
{
	return (u8)((byte & ~(1u << bit)) | (!value) << bit);
}

static u8 first_vex_byte(const struct insn *insn, const struct fields *f, u8 byte)
{
	if (insn->mode != INSN_MODE_64)
		byte |= 0xe0;
	if (f->reg >= 0)
		byte = put_inverted(byte, 7, f->reg >> 3);
	if (has_memory(insn))
		return put_inverted(put_inverted(byte, 6, index_high(&f->memory)), 5, base_high(&f->memory));
	return f->rm < 0 ? byte : put_inverted(byte, 5, f->rm >> 3);
}

static u8 second_vex_byte(const struct insn *insn, const struct fields *f, u8 byte)
{
	if (insn->mode != INSN_MODE_64)
		byte |= 0x40; /* register 8 to 15 of vvvv: none */
	if (f->vvvv >= 0)
		byte = (u8)((byte & 0x87) | (~f->vvvv & 15) << 3);
	return clears_w(insn) ? byte & 0x7f : byte;
}

/* Always the three-byte form, which has room for every bit. */
static void rewrite_vex(const struct insn *insn, const struct fields *f, struct rewritten *out)
{
	const u8 *p = &insn->bytes[insn->z.raw.vex.offset];
	bool two = insn->z.raw.vex.size == 2;
	put(out, 0xc4);
	put(out, first_vex_byte(insn, f, two ? (u8)((p[1] & 0x80) | 0x61) : p[1]));
	put(out, second_vex_byte(insn, f, two ? p[1] & 0x7f : p[2]));
	put(out, insn->z.opcode);
	if (insn->z.attributes & ZYDIS_ATTRIB_HAS_MODRM)
		put_modrm_and_tail(insn, f, out);
}

static void rewrite_xop(const struct insn *insn, const struct fields *f, struct rewritten *out)
{
	const u8 *p = &insn->bytes[insn->z.raw.xop.offset];
	put(out, p[0]);
	put(out, first_vex_byte(insn, f, p[1]));
	put(out, second_vex_byte(insn, f, p[2]));
	put(out, insn->z.opcode);
	put_modrm_and_tail(insn, f, out);
}

static void rewrite_evex(const struct insn *insn, const struct fields *f, struct rewritten *out)
{
	const u8 *p = &insn->bytes[insn->z.raw.evex.offset];
	bool bits64 = insn->mode == INSN_MODE_64;
	u8 first = first_vex_byte(insn, f, bits64 ? p[1] : p[1] | 0x10);
	if (f->reg >= 0)
		first |= 0x10;
	if (f->rm >= 0 && !has_memory(insn))
		first |= 0x40;
	put(out, p[0]);
	put(out, first);
	put(out, second_vex_byte(insn, f, p[2]));
	put(out, bits64 && f->vvvv < 0 ? p[3] : p[3] | 0x08);
	put(out, insn->z.opcode);
	put_modrm_and_tail(insn, f, out);
}

bool insn_rewrite_renamed(const struct insn *insn, const struct register_map *map, struct rewritten *out)
{
	struct fields f = rename_fields(insn, map);
	out->length = 0;
	switch (insn->z.encoding) {
	case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
		return rewrite_legacy(insn, &f, out);
	case ZYDIS_INSTRUCTION_ENCODING_VEX:
		rewrite_vex(insn, &f, out);
		return true;
	case ZYDIS_INSTRUCTION_ENCODING_XOP:
		rewrite_xop(insn, &f, out);
		return true;
	case ZYDIS_INSTRUCTION_ENCODING_EVEX:
		rewrite_evex(insn, &f, out);
		return true;
	default:
		return false;
	}
}

bool insn_rewrite(const struct insn *insn, enum gpr scratch, struct rewritten *out)
{
	struct register_map same = { .memory = { .base = (u8)scratch, .index = NO_REGISTER } };
	for (unsigned i = 0; i < GPR_COUNT; i++)
		same.gpr[i] = (u8)i;
	return insn_rewrite_renamed(insn, &same, out);
}

bool insn_rewrite_lea(const struct insn *insn, struct rewritten *out)
{
	const ZydisDecodedOperandMem *mem = &insn->operand[insn->memory].mem;
	if (insn->z.address_width == 16 || mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP)
		return false;
	if (insn->mode != INSN_MODE_64 && mem->base == ZYDIS_REGISTER_NONE && mem->index == ZYDIS_REGISTER_NONE)
		return false; /* a bare displacement would be RIP-relative */
	out->length = 0;
	if (insn->z.address_width == 32)
		put(out, 0x67);
	if (insn->z.operand_width == 16)
		put(out, 0x66);
	if (insn->z.attributes & ZYDIS_ATTRIB_HAS_REX)
		put(out, 0x40 | insn->z.raw.rex.W << 3 | insn->z.raw.rex.R << 2 | insn->z.raw.rex.X << 1 |
				 insn->z.raw.rex.B);
	put(out, insn->z.opcode);
	put_from(insn, insn->z.raw.modrm.offset, out);
	return true;
}
