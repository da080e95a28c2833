/* What the scratch registers know of the page that a base register points into (struct known): how long that stays true, where the first
 * check had best be made, and checks made early, in front of an instruction whose flags are still needed where the operand is accessed.
 *
 *   cmp rax, rbx; mov rcx, [rdx + 8]; jb ...      the check of [rdx + 8] would destroy what CMP has compared
 *
 * If a check made early cannot be satisfied, the instruction that it stands in front of is stepped, and other code goes on behind that. */
#include "engine/bt/work.h"

#define LOOK_AHEAD 16

/* How far an instruction moves RSP, if by a constant; not in narrow code, where ESP may wrap. */
static bool moves_stack(const struct insn *insn, s32 *by)
{
	const ZydisDecodedOperand *o = insn->operand;
	bool constant = o[0].type == ZYDIS_OPERAND_TYPE_REGISTER && o[0].reg.value == ZYDIS_REGISTER_RSP &&
			o[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && o[1].imm.value.s == (s16)o[1].imm.value.s;
	if (insn->kind == KIND_PUSH || insn->kind == KIND_POP) {
		*by = insn->kind == KIND_PUSH ? -8 : 8;
		return insn->z.operand_width == 64 && (insn->kind == KIND_PUSH || o[0].type == ZYDIS_OPERAND_TYPE_REGISTER) &&
		       o[0].reg.value != ZYDIS_REGISTER_RSP;
	}
	*by = constant ? (s32)o[1].imm.value.s * (insn->z.mnemonic == ZYDIS_MNEMONIC_SUB ? -1 : 1) : 0;
	return constant && (insn->z.mnemonic == ZYDIS_MNEMONIC_ADD || insn->z.mnemonic == ZYDIS_MNEMONIC_SUB);
}

static enum gpr guest_register(unsigned host)
{
	return host == HOST_SP ? RSP : (enum gpr)host;
}

/* The displacement of an instruction's operand from a base register, if it has such a one, and whether it is stored to. */
static bool base_operand(const struct translation_work *w, const struct insn *insn, unsigned base, s32 *disp, bool *write)
{
	if (base == HOST_SP && (insn->kind == KIND_PUSH || insn->kind == KIND_CALL || insn->kind == KIND_POP || insn->kind == KIND_RET)) {
		*write = insn->kind == KIND_PUSH || insn->kind == KIND_CALL;
		*disp = *write ? -(s32)(insn->z.operand_width / 8) : 0;
		return true;
	}
	if (insn->memory < 0)
		return false;
	const ZydisDecodedOperand *o = insn_memory(insn);
	const struct operand a = operand_plan(w, insn, o);
	*disp = a.linear.disp;
	*write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	return a.plain && a.linear.index == NO_REGISTER && a.linear.base == base;
}

s32 known_lowest(const struct translation_work *w, unsigned base, s32 disp, bool *write)
{
	s32 moved = 0, lowest = disp;
	for (unsigned i = w->current; i < w->count && i < w->current + LOOK_AHEAD; i++) {
		const struct insn *insn = &w->insn[i];
		s32 at, by;
		bool stored;
		if (base_operand(w, insn, base, &at, &stored) && __builtin_abs(at + moved - disp) <= KNOWN_DISTANCE_MAX) {
			lowest = MIN(lowest, at + moved);
			*write |= stored;
		}
		if (!(insn->gpr_written & (1u << guest_register(base))))
			continue;
		if (base != HOST_SP || !moves_stack(insn, &by))
			break;
		moved += by;
	}
	return lowest;
}

void known_follow(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	s32 by;
	w->known.valid &= w->kept;
	if (!w->known.valid || !(insn->gpr_written & (1u << guest_register(w->known.base))))
		return;
	if (w->known.base == HOST_SP && moves_stack(insn, &by))
		w->known.low -= by;
	else
		w->known.valid = false;
}

/* ---- checks ahead of flags ---- */

#define AHEAD_MAX 4

/* Runs as itself, without memory, the scratch registers and faults. */
static bool is_simple(const struct insn *insn)
{
	if (insn->z.mnemonic == ZYDIS_MNEMONIC_DIV || insn->z.mnemonic == ZYDIS_MNEMONIC_IDIV)
		return false;
	const u16 in_memory = 1u << R8 | 1u << R9 | 1u << R10 | 1u << R11;
	bool lea = insn->kind == KIND_LEA && insn->operand[1].mem.base != ZYDIS_REGISTER_RIP;
	bool native = insn->kind == KIND_NATIVE || insn->kind == KIND_MOV || insn->kind == KIND_MOVZX || insn->kind == KIND_MOVSX;
	return (lea || (native && insn->memory < 0)) && insn->xstate == INSN_NO_XSTATE && !((insn->gpr_read | insn->gpr_written) & in_memory);
}

/* An access that may be checked early. */
static bool is_access(const struct translation_work *w, const struct insn *insn, struct operand *a)
{
	bool native = insn->kind == KIND_NATIVE || insn->kind == KIND_MOV || insn->kind == KIND_MOVZX || insn->kind == KIND_MOVSX;
	if (!native || insn->memory < 0 || insn_names_high_byte(insn) || insn->xstate != INSN_NO_XSTATE || insn_memory(insn)->size > 64)
		return false;
	*a = operand_plan(w, insn, insn_memory(insn));
	return a->plain && a->linear.index == NO_REGISTER && a->linear.base != NO_REGISTER;
}

void known_look_ahead(struct translation_work *w)
{
	struct operand a;
	unsigned i = w->current;
	u16 written = 0;
	if (!w->insn[i].flags_written || w->needed[i])
		return;
	for (; i < w->count && i < w->current + AHEAD_MAX && is_simple(&w->insn[i]) && (i == w->current || w->needed[i]); i++)
		written |= w->insn[i].gpr_written;
	if (i == w->current || i == w->count || !w->needed[i] || !is_access(w, &w->insn[i], &a) ||
	    (written & (1u << guest_register(a.linear.base))))
		return;
	const ZydisDecodedOperand *o = insn_memory(&w->insn[i]);
	w->ahead_of_flags = true;
	emit_access(w, &a, o, o->size / 8, o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
	w->ahead_of_flags = false;
	w->proven = (u8)i;
}

bool known_proven(const struct translation_work *w)
{
	return w->proven == w->current && w->current && w->known.valid;
}
