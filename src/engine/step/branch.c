/* Near control transfers. Targets are checked before anything is pushed or popped. Intel SDM volume 2, CALL, RET, JMP,
 * Jcc, LOOP. */
#include "cpu/transfer.h"
#include "engine/step/handlers.h"
#include "engine/step/memory.h"

/* Set next_rip to a target cut to the operand size; #GP(0) outside the code segment or not canonical. */
static inline bool jump_to(struct vcpu *vcpu, const struct op *op, u64 target)
{
	if (likely(op->size == 8)) {
		if (unlikely(!is_canonical(target, vcpu_linear_bits(vcpu))))
			return vcpu_raise_gp(vcpu, 0);
	} else {
		target &= size_mask(op->size);
		if (unlikely(target > vcpu->seg[SEG_CS].limit) && !(op->flags & OP_LONG))
			return vcpu_raise_gp(vcpu, 0);
	}
	vcpu->next_rip = target;
	return true;
}

int op_jmp_rel(struct vcpu *vcpu, const struct op *op)
{
	return jump_to(vcpu, op, vcpu->next_rip + op->imm);
}

static inline int take(struct vcpu *vcpu, const struct op *op)
{
	return likely(jump_to(vcpu, op, vcpu->next_rip + op->imm)) ? OP_JUMP : OP_FAULT;
}

#define CONDITION_PAIR(number, test)                                                                                   \
	static int op_jcc##number##_set(struct vcpu *vcpu, const struct op *op)                                        \
	{                                                                                                              \
		u64 f = vcpu->rflags;                                                                                  \
		return (test) ? take(vcpu, op) : OP_DONE;                                                              \
	}                                                                                                              \
	static int op_jcc##number##_clear(struct vcpu *vcpu, const struct op *op)                                      \
	{                                                                                                              \
		u64 f = vcpu->rflags;                                                                                  \
		return !(test) ? take(vcpu, op) : OP_DONE;                                                             \
	}
#define FLAG_LESS(f) (((f) >> 7 ^ (f) >> 11) & 1)
CONDITION_PAIR(0, f &RFLAGS_OF)
CONDITION_PAIR(1, f &RFLAGS_CF)
CONDITION_PAIR(2, f &RFLAGS_ZF)
CONDITION_PAIR(3, f &(RFLAGS_CF | RFLAGS_ZF))
CONDITION_PAIR(4, f &RFLAGS_SF)
CONDITION_PAIR(5, f &RFLAGS_PF)
CONDITION_PAIR(6, FLAG_LESS(f))
CONDITION_PAIR(7, FLAG_LESS(f) || (f & RFLAGS_ZF))

/* Conditions in encoding order: O NO B NB Z NZ BE NBE S NS P NP L NL LE NLE. */
op_fn op_jcc_handler(unsigned condition)
{
#define PAIR(number) op_jcc##number##_set, op_jcc##number##_clear
	static const op_fn handlers[16] = { PAIR(0), PAIR(1), PAIR(2), PAIR(3), PAIR(4), PAIR(5), PAIR(6), PAIR(7) };
	return handlers[condition & 15];
}

/* JCXZ, JECXZ, JRCXZ and LOOP count in the register of the address size. */
static u64 count_get(struct vcpu *vcpu, const struct op *op)
{
	return vcpu->gpr[RCX] << op->address_shift >> op->address_shift;
}

int op_jcxz(struct vcpu *vcpu, const struct op *op)
{
	return count_get(vcpu, op) ? OP_DONE : jump_to(vcpu, op, vcpu->next_rip + op->imm);
}

/* number: the opcode, E0 LOOPNE, E1 LOOPE, E2 LOOP. */
int op_loop(struct vcpu *vcpu, const struct op *op)
{
	u64 old = vcpu->gpr[RCX];
	gpr_set(vcpu, RCX, 8 - op->address_shift / 8, old - 1);
	bool again = count_get(vcpu, op) != 0;
	if (op->number != 0xe2)
		again = again && !!(vcpu->rflags & RFLAGS_ZF) == (op->number == 0xe1);
	if (!again || jump_to(vcpu, op, vcpu->next_rip + op->imm))
		return OP_DONE;
	vcpu->gpr[RCX] = old;
	return OP_FAULT;
}

static inline int call_to(struct vcpu *vcpu, const struct op *op, u64 target)
{
	u64 back = vcpu->next_rip;
	return jump_to(vcpu, op, target) && stack_push(vcpu, op, back, op->size);
}

int op_call_rel(struct vcpu *vcpu, const struct op *op)
{
	return call_to(vcpu, op, vcpu->next_rip + op->imm);
}

int op_call_near(struct vcpu *vcpu, const struct op *op)
{
	u64 target;
	return rm_read(vcpu, op, op->size, &target) && call_to(vcpu, op, target);
}

int op_jmp_near(struct vcpu *vcpu, const struct op *op)
{
	u64 target;
	return rm_read(vcpu, op, op->size, &target) && jump_to(vcpu, op, target);
}

/* imm: bytes to release. */
int op_ret_near(struct vcpu *vcpu, const struct op *op)
{
	u64 target, rsp = vcpu->gpr[RSP];
	if (!stack_pop(vcpu, op, &target, op->size))
		return OP_FAULT;
	if (!jump_to(vcpu, op, target)) {
		vcpu->gpr[RSP] = rsp;
		return OP_FAULT;
	}
	if (op->imm) {
		u64 mask = size_mask(vcpu_stack_size(vcpu));
		cpu_set_sp(vcpu, (vcpu->gpr[RSP] + op->imm) & mask);
	}
	return OP_DONE;
}

/* ---- far transfers: the rules are in cpu/transfer.c ---- */

static bool read_far_pointer(struct vcpu *vcpu, const struct op *op, u64 *offset, u16 *selector)
{
	u64 high = 0;
	gva_t gva = op_address(vcpu, op);
	*offset = 0;
	if (!op_read_at(vcpu, op, gva, op->size, offset))
		return false;
	gva += op->size;
	if (!op_read_at(vcpu, op, gva << op->address_shift >> op->address_shift, 2, &high))
		return false;
	*selector = (u16)high;
	return true;
}

int op_call_far(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return transfer_far_call(vcpu, op->mem_size, op->imm, op->size);
}

int op_jmp_far(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return transfer_far_jump(vcpu, op->mem_size, op->imm, op->size);
}

int op_call_far_mem(struct vcpu *vcpu, const struct op *op)
{
	u64 offset;
	u16 selector;
	vector_sync(vcpu);
	return read_far_pointer(vcpu, op, &offset, &selector) && transfer_far_call(vcpu, selector, offset, op->size);
}

int op_jmp_far_mem(struct vcpu *vcpu, const struct op *op)
{
	u64 offset;
	u16 selector;
	vector_sync(vcpu);
	return read_far_pointer(vcpu, op, &offset, &selector) && transfer_far_jump(vcpu, selector, offset, op->size);
}

int op_ret_far(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return transfer_far_return(vcpu, op->size, (u16)op->imm);
}

/* LES, LDS, LFS, LGS, LSS: number is the segment register. */
int op_load_far(struct vcpu *vcpu, const struct op *op)
{
	u64 offset;
	u16 selector;
	vector_sync(vcpu);
	if (!read_far_pointer(vcpu, op, &offset, &selector) ||
	    !segment_load(vcpu, (enum segment_register)op->number, selector))
		return OP_FAULT;
	reg_set(vcpu, op->reg, op->size, offset);
	return OP_DONE;
}
