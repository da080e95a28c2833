/* Moves to and from control and debug registers, and what else leaves with those: CLTS, LMSW, INVLPG. What they mean is written in cpu/control.c; what changes modes is
 * step's. A load of CR3 without nested paging writes nothing but struct vcpu: the shadow of the new address space follows before the next entry. */
#include "engine/hw/hw.h"

#include "arch/regs.h"
#include "cpu/control.h"

#define CR0_MODES (CR0_PG | CR0_PE | CR0_CD | CR0_NW)
#define CR4_MODES (CR4_PAE | CR4_PCIDE | CR4_LA57)

static unsigned width(struct vcpu *v)
{
	if (!vcpu_long_mode(v))
		return 4;
	hw_fetch(v, HW_CODE);
	return vcpu_64bit(v) ? 8 : 4;
}

/* Whether the opcodes are right, if they must be looked at. */
static bool is_simple(struct vcpu *v, u16 opcode, unsigned gpr, unsigned number)
{
	struct hw_vcpu *hw = hw_of(v);
	struct hw_insn i;
	if (hw->next_rip)
		return hw_simple(v, opcode);
	return hw_read_insn(v, &i) && i.opcode == opcode && hw_insn_rm(&i) == gpr && hw_insn_reg(&i) == number;
}

/* ---- control registers ---- */

static bool changes_modes(const struct vcpu *v, unsigned number, u64 value)
{
	return (number == 0 && ((value ^ v->cr0) & CR0_MODES)) || (number == 4 && ((value ^ v->cr4) & CR4_MODES));
}

static enum hw_next write_cr(struct vcpu *v, struct exit *exit, unsigned number, u64 value)
{
	struct hw_vcpu *hw = hw_of(v);
	bool written = number < 8 && (number != 3 || hw->memory->ops->nested); /* to the processor */
	if (changes_modes(v, number, value))
		return hw_step(v, exit);
	if (written)
		hw_fetch(v, HW_CONTROL);
	if (!control_write_cr(v, number, value))
		return hw_fault(v);
	if (written)
		hw->changed |= HW_CONTROL;
	return hw_done(v);
}

static enum hw_next mov_cr(struct vcpu *v, struct exit *exit, unsigned number, unsigned gpr, bool write)
{
	unsigned size = width(v);
	u64 value;
	if (write)
		return write_cr(v, exit, number, v->gpr[gpr] & size_mask(size));
	if (!control_read_cr(v, number, &value))
		return hw_fault(v);
	v->gpr[gpr] = value & size_mask(size);
	return hw_done(v);
}

enum hw_next hw_mov_cr(struct vcpu *v, struct exit *exit, unsigned number, unsigned gpr, bool write)
{
	if (!is_simple(v, write ? HW_OPCODE_MOV_TO_CR : HW_OPCODE_MOV_FROM_CR, gpr, number))
		return hw_step(v, exit);
	return mov_cr(v, exit, number, gpr, write);
}

static enum hw_next clts(struct vcpu *v)
{
	hw_fetch(v, HW_CONTROL);
	if (!control_clts(v))
		return hw_fault(v);
	hw_of(v)->changed |= HW_CONTROL;
	return hw_done(v);
}

enum hw_next hw_clts(struct vcpu *v, struct exit *exit)
{
	return hw_simple(v, HW_OPCODE_CLTS) ? clts(v) : hw_step(v, exit);
}

static enum hw_next lmsw(struct vcpu *v, struct exit *exit, u16 value)
{
	if ((value & CR0_PE) && !(v->cr0 & CR0_PE))
		return hw_step(v, exit);
	hw_fetch(v, HW_CONTROL);
	if (!control_lmsw(v, value))
		return hw_fault(v);
	hw_of(v)->changed |= HW_CONTROL;
	return hw_done(v);
}

enum hw_next hw_lmsw(struct vcpu *v, struct exit *exit, u16 value)
{
	return hw_of(v)->next_rip && hw_simple(v, HW_OPCODE_GROUP7) ? lmsw(v, exit, value) : hw_step(v, exit);
}

/* ---- debug registers ---- */

/* #DB of general detect is step's. */
static enum hw_next mov_dr(struct vcpu *v, struct exit *exit, unsigned number, unsigned gpr, bool write)
{
	unsigned size = width(v);
	u64 value;
	hw_fetch(v, HW_DEBUG);
	if (v->dr7 & DR7_GD)
		return hw_step(v, exit);
	if (write ? !control_write_dr(v, number, v->gpr[gpr] & size_mask(size)) : !control_read_dr(v, number, &value))
		return hw_fault(v);
	if (write)
		hw_of(v)->changed |= HW_DEBUG;
	else
		v->gpr[gpr] = value & size_mask(size);
	return hw_done(v);
}

enum hw_next hw_mov_dr(struct vcpu *v, struct exit *exit, unsigned number, unsigned gpr, bool write)
{
	if (!is_simple(v, write ? HW_OPCODE_MOV_TO_DR : HW_OPCODE_MOV_FROM_DR, gpr, number))
		return hw_step(v, exit);
	return mov_dr(v, exit, number, gpr, write);
}

/* ---- INVLPG ---- */

static enum hw_next invlpg(struct vcpu *v, gla_t gla)
{
	mmu_flush_page(v, gla);
	return hw_done(v);
}

enum hw_next hw_invlpg(struct vcpu *v, struct exit *exit, gla_t gla)
{
	return hw_of(v)->next_rip && !v->cpl && hw_simple(v, HW_OPCODE_GROUP7) ? invlpg(v, gla) : hw_step(v, exit);
}

/* ---- by their bytes ---- */

static enum hw_next group7(struct vcpu *v, struct exit *exit, const struct hw_insn *i)
{
	gla_t gla;
	unsigned which = i->modrm >> 3 & 7;
	if (which == 6 && !hw_insn_is_memory(i))
		return lmsw(v, exit, (u16)v->gpr[hw_insn_rm(i)]);
	if (which == 7 && hw_insn_is_memory(i) && !v->cpl && hw_insn_address(v, i, &gla))
		return invlpg(v, gla);
	return hw_step(v, exit);
}

enum hw_next hw_move(struct vcpu *v, struct exit *exit)
{
	struct hw_insn i;
	if (!hw_read_insn(v, &i))
		return hw_step(v, exit);
	switch (i.opcode) {
	case HW_OPCODE_MOV_FROM_CR:
	case HW_OPCODE_MOV_TO_CR:
		return mov_cr(v, exit, hw_insn_reg(&i), hw_insn_rm(&i), i.opcode == HW_OPCODE_MOV_TO_CR);
	case HW_OPCODE_MOV_FROM_DR:
	case HW_OPCODE_MOV_TO_DR:
		return mov_dr(v, exit, hw_insn_reg(&i), hw_insn_rm(&i), i.opcode == HW_OPCODE_MOV_TO_DR);
	case HW_OPCODE_CLTS:
		return clts(v);
	case HW_OPCODE_GROUP7:
		return group7(v, exit, &i);
	default:
		return hw_step(v, exit);
	}
}
