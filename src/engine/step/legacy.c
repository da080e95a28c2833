/* Instructions without a 64-bit form: decimal arithmetic, SALC, BOUND, ARPL. Flags that the manual leaves undefined are
 * left as AMD's and Intel's CPUs are known to compute them: from the result, or cleared. Intel SDM volume 2, AAA, AAS,
 * AAD, AAM, DAA, DAS, BOUND, ARPL. */
#include "engine/step/handlers.h"
#include "engine/step/memory.h"

static u64 flags_of_byte(u8 value)
{
	u64 parity = __builtin_parity(value) ? 0 : RFLAGS_PF;
	return parity | (value ? 0 : RFLAGS_ZF) | (value & 0x80 ? RFLAGS_SF : 0);
}

static void set_status(struct vcpu *vcpu, u64 flags)
{
	vcpu->rflags = (vcpu->rflags & ~RFLAGS_STATUS) | flags;
}

/* AAA adds 0x106 to AX when the low digit overflows, AAS takes it away. */
static int ascii_adjust(struct vcpu *vcpu, s32 correction)
{
	u64 ax = gpr_get(vcpu, RAX, 2);
	bool adjust = (ax & 0xf) > 9 || (vcpu->rflags & RFLAGS_AF);
	if (adjust)
		ax += (u64)(s64)correction;
	u64 flags = flags_of_byte((u8)ax) | (adjust ? RFLAGS_AF | RFLAGS_CF : 0);
	gpr_set(vcpu, RAX, 2, ax & 0xff0f);
	set_status(vcpu, flags);
	return OP_DONE;
}

int op_aaa(struct vcpu *vcpu, const struct op *op)
{
	return ascii_adjust(vcpu, 0x106);
}

int op_aas(struct vcpu *vcpu, const struct op *op)
{
	return ascii_adjust(vcpu, -0x106);
}

int op_aad(struct vcpu *vcpu, const struct op *op)
{
	u8 al = (u8)(vcpu->gpr[RAX] + (vcpu->gpr[RAX] >> 8) * op->imm);
	gpr_set(vcpu, RAX, 2, al);
	set_status(vcpu, flags_of_byte(al));
	return OP_DONE;
}

int op_aam(struct vcpu *vcpu, const struct op *op)
{
	u8 base = (u8)op->imm, al = (u8)vcpu->gpr[RAX];
	if (!base)
		return vcpu_raise(vcpu, VEC_DE);
	gpr_set(vcpu, RAX, 2, (u64)(al / base) << 8 | al % base);
	set_status(vcpu, flags_of_byte(al % base));
	return OP_DONE;
}

static int decimal_adjust(struct vcpu *vcpu, int sign)
{
	u8 old = (u8)vcpu->gpr[RAX], al = old;
	bool carry = vcpu->rflags & RFLAGS_CF, auxiliary = vcpu->rflags & RFLAGS_AF;
	u64 flags = 0;
	if ((old & 0xf) > 9 || auxiliary) {
		if (carry || (sign < 0 ? old < 6 : old > 0xf9))
			flags |= RFLAGS_CF;
		al = (u8)(al + sign * 6);
		flags |= RFLAGS_AF;
	}
	if (old > 0x99 || carry) {
		al = (u8)(al + sign * 0x60);
		flags |= RFLAGS_CF;
	}
	gpr_set(vcpu, RAX, 1, al);
	set_status(vcpu, flags | flags_of_byte(al));
	return OP_DONE;
}

int op_daa(struct vcpu *vcpu, const struct op *op)
{
	return decimal_adjust(vcpu, 1);
}

int op_das(struct vcpu *vcpu, const struct op *op)
{
	return decimal_adjust(vcpu, -1);
}

int op_salc(struct vcpu *vcpu, const struct op *op)
{
	gpr_set(vcpu, RAX, 1, vcpu->rflags & RFLAGS_CF ? 0xff : 0);
	return OP_DONE;
}

static s64 sign_extend(u64 value, unsigned size)
{
	return (s64)(value << (64 - size * 8)) >> (64 - size * 8);
}

int op_bound(struct vcpu *vcpu, const struct op *op)
{
	u64 lower, upper;
	gva_t gva = op_address(vcpu, op);
	if (!op_read_at(vcpu, op, gva, op->size, &lower) ||
	    !op_read_at(vcpu, op, (gva + op->size) << op->address_shift >> op->address_shift, op->size, &upper))
		return OP_FAULT;
	s64 index = sign_extend(reg_get(vcpu, op->reg, op->size), op->size);
	if (index < sign_extend(lower, op->size) || index > sign_extend(upper, op->size))
		return vcpu_raise(vcpu, VEC_BR);
	return OP_DONE;
}

/* Raise the RPL of the first operand to that of the second. */
int op_arpl(struct vcpu *vcpu, const struct op *op)
{
	u64 to, from = reg_get(vcpu, op->reg, 2);
	if (vcpu_real_or_v86(vcpu))
		return vcpu_raise_ud(vcpu);
	if (!rm_read(vcpu, op, 2, &to))
		return OP_FAULT;
	bool raise = (to & SELECTOR_RPL) < (from & SELECTOR_RPL);
	if (raise)
		to = (to & ~(u64)SELECTOR_RPL) | (from & SELECTOR_RPL);
	if (raise && !rm_write(vcpu, op, 2, to))
		return OP_FAULT;
	vcpu->rflags = raise ? vcpu->rflags | RFLAGS_ZF : vcpu->rflags & ~RFLAGS_ZF;
	return OP_DONE;
}
