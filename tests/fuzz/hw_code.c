/* The small decoder of hardware engines on any bytes, in every mode: what it takes for an instruction is what Zydis takes it for. */
#include "engine/hw/code.h"

#include "arch/regs.h"
#include "arch/segment.h"
#include "input.h"

#include <Zydis/Zydis.h>

#define BYTES 15

static struct vcpu *make(unsigned bits)
{
	static struct vcpu vcpu;
	vcpu = (struct vcpu){ .cr0 = CR0_PE, .seg[SEG_CS].attr = SEG_ATTR_P | SEG_ATTR_S | 0xb | (bits == 64 ? SEG_ATTR_L : bits == 32 ? SEG_ATTR_DB : 0) };
	vcpu.efer = bits == 64 ? EFER_LME | EFER_LMA : 0;
	return &vcpu;
}

static bool decode(unsigned bits, const u8 *bytes, unsigned count, ZydisDecodedInstruction *z)
{
	static const ZydisMachineMode modes[] = { ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64 };
	ZydisDecoder decoder;
	ZydisDecoderInit(&decoder, modes[bits / 32], (ZydisStackWidth)(bits / 32));
	return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, bytes, count, z));
}

static void compare_memory(const struct hw_insn *i, const ZydisDecodedInstruction *z)
{
	CHECK(i->address_size * 8 == z->address_width);
	if (i->odd_address || i->relative || !(z->attributes & ZYDIS_ATTRIB_HAS_MODRM))
		return;
	CHECK(i->displacement == z->raw.disp.value);
	bool sib = z->attributes & ZYDIS_ATTRIB_HAS_SIB;
	unsigned base = sib ? z->raw.sib.base : z->raw.modrm.rm;
	CHECK(i->base == (z->raw.modrm.mod || base != 5 ? base | z->raw.rex.B << 3 : GPR_COUNT) || !z->raw.modrm.mod);
	if (sib && (z->raw.sib.index != 4 || z->raw.rex.X))
		CHECK(i->index == (z->raw.sib.index | z->raw.rex.X << 3) && i->scale == z->raw.sib.scale);
	else
		CHECK(i->index == GPR_COUNT);
}

static void compare(const struct hw_insn *i, const ZydisDecodedInstruction *z)
{
	CHECK(i->length == z->length);
	CHECK((u8)i->opcode == z->opcode && (i->opcode > 0xff) == (z->opcode_map == ZYDIS_OPCODE_MAP_0F));
	if (z->attributes & ZYDIS_ATTRIB_HAS_MODRM)
		CHECK(i->modrm == (z->raw.modrm.mod << 6 | z->raw.modrm.reg << 3 | z->raw.modrm.rm));
	if (z->attributes & ZYDIS_ATTRIB_HAS_REX)
		CHECK((i->rex & 0xf) == (z->raw.rex.W << 3 | z->raw.rex.R << 2 | z->raw.rex.X << 1 | z->raw.rex.B));
	if (i->mov)
		CHECK(i->size * 8 == z->operand_width || (i->size == 1 && i->source == 1));
	if (i->has_immediate)
		CHECK((i->immediate & size_mask(i->size)) == (z->raw.imm[0].value.u & size_mask(i->size)));
	if (i->mov && hw_insn_is_memory(i))
		compare_memory(i, z);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	static struct hw_code code;
	struct input in = { bytes, size };
	u8 copy[BYTES];
	unsigned bits = 16u << input_u8(&in) % 3, count = 1 + input_u8(&in) % BYTES;
	struct hw_insn insn;
	ZydisDecodedInstruction z;
	for (unsigned i = 0; i < BYTES; i++)
		copy[i] = input_u8(&in);
	if (hw_decode(make(bits), &code, copy, count, &insn) && decode(bits, copy, count, &z))
		compare(&insn, &z);
	return 0;
}
