/* Frequent data movement in C, where a snippet would cost more than it does: MOV, MOVZX, MOVSX, LEA, PUSH, POP, and
 * what only moves flags. Intel SDM volume 2, the instruction's page. */
#include "engine/step/handlers.h"
#include "engine/step/memory.h"

/* ---- MOV: a function per size and direction, so that sizes are constants ---- */

#define MOV_HANDLERS(size)                                                                                             \
	static int op_mov_load##size(struct vcpu *vcpu, const struct op *op)                                           \
	{                                                                                                              \
		u64 value;                                                                                             \
		if (!op_read(vcpu, op, size, &value))                                                                  \
			return OP_FAULT;                                                                               \
		reg_set(vcpu, op->reg, size, value);                                                                   \
		return OP_DONE;                                                                                        \
	}                                                                                                              \
	static int op_mov_store##size(struct vcpu *vcpu, const struct op *op)                                          \
	{                                                                                                              \
		return op_write(vcpu, op, size, reg_get(vcpu, op->reg, size));                                         \
	}                                                                                                              \
	static int op_mov_store_imm##size(struct vcpu *vcpu, const struct op *op)                                      \
	{                                                                                                              \
		return op_write(vcpu, op, size, op->imm);                                                              \
	}
MOV_HANDLERS(1)
MOV_HANDLERS(2)
MOV_HANDLERS(4)
MOV_HANDLERS(8)

static unsigned size_index(unsigned size)
{
	return size == 8 ? 3 : size == 4 ? 2 : size == 2 ? 1 : 0;
}

op_fn op_mov_handler(const struct insn *insn, struct op *op)
{
	static const op_fn load[] = { op_mov_load1, op_mov_load2, op_mov_load4, op_mov_load8 };
	static const op_fn store[] = { op_mov_store1, op_mov_store2, op_mov_store4, op_mov_store8 };
	static const op_fn store_imm[] = { op_mov_store_imm1, op_mov_store_imm2, op_mov_store_imm4, op_mov_store_imm8 };
	unsigned i = size_index(op->size);
	if (insn->memory < 0)
		return op_native_register;
	if (insn->memory == 1)
		return load[i];
	return insn->operand[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? store_imm[i] : store[i];
}

/* ---- MOVZX and MOVSX from memory ---- */

#define EXTEND_HANDLERS(from)                                                                                          \
	static int op_zero_extend##from(struct vcpu *vcpu, const struct op *op)                                        \
	{                                                                                                              \
		u64 value;                                                                                             \
		if (!op_read(vcpu, op, from, &value))                                                                  \
			return OP_FAULT;                                                                               \
		reg_set(vcpu, op->reg, op->size, value);                                                               \
		return OP_DONE;                                                                                        \
	}                                                                                                              \
	static int op_sign_extend##from(struct vcpu *vcpu, const struct op *op)                                        \
	{                                                                                                              \
		u64 value;                                                                                             \
		if (!op_read(vcpu, op, from, &value))                                                                  \
			return OP_FAULT;                                                                               \
		reg_set(vcpu, op->reg, op->size, (u64)((s64)(value << (64 - (from)*8)) >> (64 - (from)*8)));           \
		return OP_DONE;                                                                                        \
	}
EXTEND_HANDLERS(1)
EXTEND_HANDLERS(2)
EXTEND_HANDLERS(4)

op_fn op_extend_handler(const struct insn *insn, struct op *op)
{
	static const op_fn zero[4] = { op_zero_extend1, op_zero_extend2, op_zero_extend4 };
	static const op_fn sign[4] = { op_sign_extend1, op_sign_extend2, op_sign_extend4 };
	if (insn->memory < 0)
		return op_native_register;
	unsigned i = size_index(op->source_size);
	return insn->kind == KIND_MOVZX ? zero[i] : sign[i];
}

int op_lea(struct vcpu *vcpu, const struct op *op)
{
	reg_set(vcpu, op->reg, op->size, op_address(vcpu, op));
	return OP_DONE;
}

int op_nop(struct vcpu *vcpu, const struct op *op)
{
	return OP_DONE;
}

/* CLFLUSH and its kin check their operand as a load of a byte does; there is no cache to write back. */
int op_clflush(struct vcpu *vcpu, const struct op *op)
{
	u64 value;
	return op_read(vcpu, op, 1, &value);
}

/* ---- stack ---- */

int op_push_reg(struct vcpu *vcpu, const struct op *op)
{
	return stack_push(vcpu, op, vcpu->gpr[op->number], op->size);
}

int op_push_imm(struct vcpu *vcpu, const struct op *op)
{
	return stack_push(vcpu, op, op->imm, op->size);
}

int op_push_mem(struct vcpu *vcpu, const struct op *op)
{
	u64 value;
	return op_read(vcpu, op, op->size, &value) && stack_push(vcpu, op, value, op->size);
}

int op_push_segment(struct vcpu *vcpu, const struct op *op)
{
	return stack_push(vcpu, op, vcpu->seg[op->number].selector, op->size);
}

int op_pop_reg(struct vcpu *vcpu, const struct op *op)
{
	u64 value;
	if (!stack_pop(vcpu, op, &value, op->size))
		return OP_FAULT;
	gpr_set(vcpu, op->number, op->size, value);
	return OP_DONE;
}

/* The address is computed after RSP has moved; RSP moves only if the store succeeds. */
int op_pop_mem(struct vcpu *vcpu, const struct op *op)
{
	u64 value, rsp = vcpu->gpr[RSP];
	if (!stack_pop(vcpu, op, &value, op->size))
		return OP_FAULT;
	if (op_write(vcpu, op, op->size, value))
		return OP_DONE;
	vcpu->gpr[RSP] = rsp;
	return OP_FAULT;
}

int op_pop_segment(struct vcpu *vcpu, const struct op *op)
{
	u64 value, rsp = vcpu->gpr[RSP];
	vector_sync(vcpu);
	if (!stack_pop(vcpu, op, &value, op->size))
		return OP_FAULT;
	if (!segment_load(vcpu, (enum segment_register)op->number, (u16)value)) {
		vcpu->gpr[RSP] = rsp;
		return OP_FAULT;
	}
	if (op->number == SEG_SS)
		vcpu->shadow |= SHADOW_MOV_SS;
	return OP_DONE;
}

/* PUSHA and POPA check the whole frame before moving anything. Intel SDM volume 2, PUSHA, POPA. */
int op_pusha(struct vcpu *vcpu, const struct op *op)
{
	u64 rsp = vcpu->gpr[RSP];
	vector_sync(vcpu);
	for (unsigned reg = 0; reg < 8; reg++) {
		if (memory_push(vcpu, reg == RSP ? rsp : vcpu->gpr[reg], op->size))
			continue;
		vcpu->gpr[RSP] = rsp;
		return OP_FAULT;
	}
	return OP_DONE;
}

int op_popa(struct vcpu *vcpu, const struct op *op)
{
	u64 rsp = vcpu->gpr[RSP], values[8];
	vector_sync(vcpu);
	for (unsigned reg = 8; reg-- > 0;) {
		values[reg] = 0;
		if (memory_pop(vcpu, &values[reg], op->size))
			continue;
		vcpu->gpr[RSP] = rsp;
		return OP_FAULT;
	}
	for (unsigned reg = 0; reg < 8; reg++)
		if (reg != RSP)
			gpr_set(vcpu, reg, op->size, values[reg]);
	return OP_DONE;
}

static void sp_add(struct vcpu *vcpu, u64 delta)
{
	u64 mask = size_mask(vcpu_stack_size(vcpu));
	cpu_set_sp(vcpu, (vcpu->gpr[RSP] + delta) & mask);
}

/* Copy the frame pointers of the enclosing levels, and push this one's. */
static bool enter_display(struct vcpu *vcpu, const struct op *op, unsigned level, u64 frame)
{
	u64 mask = size_mask(vcpu_stack_size(vcpu)), bp = vcpu->gpr[RBP];
	for (unsigned i = 1; i < level; i++) {
		u64 value = 0;
		bp -= op->size;
		if (!memory_read_slow(vcpu, SEG_SS, bp & mask, &value, op->size) || !memory_push(vcpu, value, op->size))
			return false;
	}
	return memory_push(vcpu, frame, op->size);
}

/* Intel SDM volume 2, ENTER. imm: the frame's bytes; number: the nesting level. */
int op_enter(struct vcpu *vcpu, const struct op *op)
{
	u64 rsp = vcpu->gpr[RSP];
	vector_sync(vcpu);
	if (!memory_push(vcpu, vcpu->gpr[RBP], op->size))
		return OP_FAULT;
	u64 frame = vcpu->gpr[RSP];
	bool ok = !op->number || enter_display(vcpu, op, op->number, frame);
	if (ok) {
		sp_add(vcpu, -op->imm);
		/* The new top must be writable, though nothing is written. */
		gla_t gla;
		ok = segment_linear(vcpu, SEG_SS, vcpu->gpr[RSP] & size_mask(vcpu_stack_size(vcpu)), op->size,
				    ACCESS_WRITE, &gla) &&
		     mmu_probe_write(vcpu, gla, op->size, ACCESS_WRITE);
	}
	if (!ok) {
		vcpu->gpr[RSP] = rsp;
		return OP_FAULT;
	}
	gpr_set(vcpu, RBP, op->size, frame);
	return OP_DONE;
}

int op_leave(struct vcpu *vcpu, const struct op *op)
{
	u64 value = 0, rsp = vcpu->gpr[RSP];
	if (likely(op->flags & OP_LONG))
		vcpu->gpr[RSP] = vcpu->gpr[RBP];
	else
		cpu_set_sp(vcpu, vcpu->gpr[RBP] & size_mask(vcpu_stack_size(vcpu)));
	if (!stack_pop(vcpu, op, &value, op->size)) {
		vcpu->gpr[RSP] = rsp;
		return OP_FAULT;
	}
	gpr_set(vcpu, RBP, op->size, value);
	return OP_DONE;
}

/* AL = [RBX + zero-extended AL]; base names RBX. */
int op_xlat(struct vcpu *vcpu, const struct op *op)
{
	u64 value;
	gva_t gva = (vcpu->gpr[RBX] + (u8)vcpu->gpr[RAX]) << op->address_shift >> op->address_shift;
	if (!op_read_at(vcpu, op, gva, 1, &value))
		return OP_FAULT;
	gpr_set(vcpu, RAX, 1, value);
	return OP_DONE;
}

/* ---- flags ---- */

#define FLAGS_SAHF (RFLAGS_SF | RFLAGS_ZF | RFLAGS_AF | RFLAGS_PF | RFLAGS_CF)

static bool lahf_allowed(struct vcpu *vcpu, const struct op *op)
{
	return !(op->flags & OP_LONG) || cpuid_has(vcpu->cpuid, FEATURE_LAHF_LM);
}

int op_lahf(struct vcpu *vcpu, const struct op *op)
{
	if (!lahf_allowed(vcpu, op))
		return vcpu_raise_ud(vcpu);
	reg_set(vcpu, 1, 1, (vcpu->rflags & FLAGS_SAHF) | RFLAGS_FIXED1);
	return OP_DONE;
}

int op_sahf(struct vcpu *vcpu, const struct op *op)
{
	if (!lahf_allowed(vcpu, op))
		return vcpu_raise_ud(vcpu);
	vcpu->rflags = (vcpu->rflags & ~FLAGS_SAHF) | (reg_get(vcpu, 1, 1) & FLAGS_SAHF);
	return OP_DONE;
}

int op_clc(struct vcpu *vcpu, const struct op *op)
{
	vcpu->rflags &= ~RFLAGS_CF;
	return OP_DONE;
}

int op_stc(struct vcpu *vcpu, const struct op *op)
{
	vcpu->rflags |= RFLAGS_CF;
	return OP_DONE;
}

int op_cmc(struct vcpu *vcpu, const struct op *op)
{
	vcpu->rflags ^= RFLAGS_CF;
	return OP_DONE;
}

int op_cld(struct vcpu *vcpu, const struct op *op)
{
	vcpu->rflags &= ~RFLAGS_DF;
	return OP_DONE;
}

int op_std(struct vcpu *vcpu, const struct op *op)
{
	vcpu->rflags |= RFLAGS_DF;
	return OP_DONE;
}
