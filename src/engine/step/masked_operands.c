/* From decoded masked instructions to the description their handlers work from. */
#include "engine/step/handlers.h"
#include "engine/step/masked.h"

static u8 vector_number(ZydisRegister reg)
{
	return (u8)MAX(ZydisRegisterGetId(reg), 0);
}

/* Exception classes whose name ends in NF access their whole operand, whatever the mask says. */
static bool suppresses_faults(const struct insn *insn)
{
	switch (insn->z.mnemonic) { /* each element of the result depends on several of memory */
	case ZYDIS_MNEMONIC_VDBPSADBW:
	case ZYDIS_MNEMONIC_VCVTNE2PS2BF16:
	case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
	case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
		return false;
	default:
		break;
	}
	switch (insn->z.meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_E1NF:
	case ZYDIS_EXCEPTION_CLASS_E2NF:
	case ZYDIS_EXCEPTION_CLASS_E3NF:
	case ZYDIS_EXCEPTION_CLASS_E4NF:
	case ZYDIS_EXCEPTION_CLASS_E5NF:
	case ZYDIS_EXCEPTION_CLASS_E6NF:
	case ZYDIS_EXCEPTION_CLASS_E9NF:
	case ZYDIS_EXCEPTION_CLASS_E10NF:
		return false;
	default:
		return true;
	}
}

static void pack(struct op *op, const struct masked *m)
{
	__builtin_memcpy(&op->imm, m, sizeof(*m));
}

op_fn masked_handler(const struct insn *insn, struct op *op)
{
	const ZydisDecodedOperand *memory = insn_memory(insn);
	bool write = op->flags & OP_WRITES;
	if (!write && !suppresses_faults(insn))
		return op_native_vector_memory;
	struct masked m = { .source = MASK_OPMASK, .mask_register = vector_number(insn->z.avx.mask.reg) };
	m.element = (u8)(memory->element_size / 8);
	m.elements = (u8)(memory->size / memory->element_size);
	m.mask_bits = m.elements;
	if (insn->z.avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID)
		m.mask_bits = (u8)(insn->z.avx.vector_length / memory->element_size);
	m.packed = insn->z.meta.category == ZYDIS_CATEGORY_COMPRESS || insn->z.meta.category == ZYDIS_CATEGORY_EXPAND;
	pack(op, &m);
	return op_masked;
}

op_fn vmaskmov_handler(const struct insn *insn, struct op *op)
{
	const ZydisDecodedOperand *memory = insn_memory(insn);
	bool wide = insn->z.mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD || insn->z.mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ;
	struct masked m = { .source = MASK_VECTOR_SIGNS,
			    .mask_register = vector_number(insn->operand[1].reg.value),
			    .element = wide ? 8 : 4 };
	m.elements = m.mask_bits = (u8)(memory->size / 8 / m.element);
	pack(op, &m);
	return op_masked;
}

/* MASKMOVQ, MASKMOVDQU: the destination is DS:[rDI], which the snippet gets as its argument in RDI. */
op_fn maskmov_handler(const struct insn *insn, struct op *op)
{
	bool mmx = insn->z.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ;
	struct masked m = { .source = mmx ? MASK_MMX_SIGNS : MASK_VECTOR_SIGNS,
			    .element = 1,
			    .mask_register = vector_number(insn->operand[1].reg.value) };
	m.elements = m.mask_bits = mmx ? 8 : 16;
	op->mem_size = m.elements;
	op->flags |= OP_WRITES;
	op->base = RDI * sizeof(u64);
	pack(op, &m);
	return op_masked;
}

static u8 data_size(ZydisMnemonic mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_VGATHERDPD:
	case ZYDIS_MNEMONIC_VGATHERQPD:
	case ZYDIS_MNEMONIC_VPGATHERDQ:
	case ZYDIS_MNEMONIC_VPGATHERQQ:
	case ZYDIS_MNEMONIC_VSCATTERDPD:
	case ZYDIS_MNEMONIC_VSCATTERQPD:
	case ZYDIS_MNEMONIC_VPSCATTERDQ:
	case ZYDIS_MNEMONIC_VPSCATTERQQ:
		return 8;
	default:
		return 4;
	}
}

static u8 index_size(ZydisMnemonic mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_VGATHERQPD:
	case ZYDIS_MNEMONIC_VGATHERQPS:
	case ZYDIS_MNEMONIC_VPGATHERQD:
	case ZYDIS_MNEMONIC_VPGATHERQQ:
	case ZYDIS_MNEMONIC_VSCATTERQPD:
	case ZYDIS_MNEMONIC_VSCATTERQPS:
	case ZYDIS_MNEMONIC_VPSCATTERQD:
	case ZYDIS_MNEMONIC_VPSCATTERQQ:
		return 8;
	default:
		return 4;
	}
}

/* Destination, index and mask of a VEX gather must differ, destination and index of an EVEX one. */
static bool registers_clash(const struct gather *g, bool scatter)
{
	if (scatter)
		return false;
	if (g->data == g->index)
		return true;
	return !g->opmask && (g->mask == g->data || g->mask == g->index);
}

op_fn gather_handler(const struct insn *insn, struct op *op)
{
	const ZydisDecodedOperand *memory = insn_memory(insn);
	bool scatter = insn->kind == KIND_SCATTER;
	struct gather g = { .opmask = insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX };
	g.element = data_size(insn->z.mnemonic);
	g.index_size = index_size(insn->z.mnemonic);
	g.count = (u8)(insn->z.avx.vector_length / 8 / MAX(g.element, g.index_size));
	g.index = vector_number(memory->mem.index);
	const ZydisDecodedOperand *data = NULL;
	for (unsigned i = 0; i < insn->z.operand_count_visible; i++) {
		const ZydisDecodedOperand *o = &insn->operand[i];
		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || o->encoding == ZYDIS_OPERAND_ENCODING_MASK)
			continue;
		if (!data)
			data = o;
		else
			g.mask = vector_number(o->reg.value);
	}
	if (!data)
		return op_run_ud;
	g.data = vector_number(data->reg.value);
	if (g.opmask)
		g.mask = vector_number(insn->z.avx.mask.reg);
	if (registers_clash(&g, scatter) || (g.opmask && !g.mask))
		return op_run_ud;
	__builtin_memcpy(&op->imm, &g, sizeof(g));
	return scatter ? op_scatter : op_gather;
}
