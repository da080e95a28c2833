/* Snippets: the host code around innocuous instructions. See state.h for their shape. */
#include "engine/insn/rewrite.h"
#include "engine/step/handlers.h"
#include "lib/string.h"

#define SNIPPET_MAX 1024

struct emitter {
	u8 *at; /* in the writable mapping */
};

static void emit8(struct emitter *e, u8 byte)
{
	*e->at++ = byte;
}

static void emit(struct emitter *e, const u8 *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		emit8(e, bytes[i]);
}

static void emit32(struct emitter *e, u32 value)
{
	emit(e, (const u8 *)&value, sizeof(value));
}

#define EMIT(e, ...) emit(e, (const u8[]){ __VA_ARGS__ }, sizeof((const u8[]){ __VA_ARGS__ }))

/* MOV between a 64-bit register and GS:[offset]; opcode 8B loads, 89 stores. */
static void emit_mov_gs(struct emitter *e, u8 opcode, unsigned reg, u32 offset)
{
	EMIT(e, 0x65, (u8)(0x48 | (reg >> 3) << 2), opcode, (u8)(0x04 | (reg & 7) << 3), 0x25);
	emit32(e, offset);
}

static void emit_load(struct emitter *e, unsigned reg, u32 offset)
{
	emit_mov_gs(e, 0x8b, reg, offset);
}

static void emit_store(struct emitter *e, unsigned reg, u32 offset)
{
	emit_mov_gs(e, 0x89, reg, offset);
}

#define CALLEE_SAVED (1u << RBX | 1u << RBP | 1u << R12 | 1u << R13 | 1u << R14 | 1u << R15)

static void emit_push(struct emitter *e, unsigned reg)
{
	if (reg >= R8)
		emit8(e, 0x41);
	emit8(e, (u8)(0x50 | (reg & 7)));
}

static void emit_pop(struct emitter *e, unsigned reg)
{
	if (reg >= R8)
		emit8(e, 0x41);
	emit8(e, (u8)(0x58 | (reg & 7)));
}

static void emit_pushes(struct emitter *e, u16 saved)
{
	for (unsigned reg = 0; reg < GPR_COUNT; reg++)
		if (saved & (1u << reg))
			emit_push(e, reg);
}

static void emit_pops(struct emitter *e, u16 saved)
{
	for (unsigned reg = GPR_COUNT; reg-- > 0;)
		if (saved & (1u << reg))
			emit_pop(e, reg);
}

#define FLAGS_OFFSET ((u32)offsetof(struct vcpu, rflags))

/* Status flags from vcpu->rflags without POPF: AH takes the low byte for SAHF, and an addition to AL makes OF. */
static void emit_load_flags(struct emitter *e)
{
	EMIT(e, 0x65, 0x8a, 0x24, 0x25); /* mov ah, gs:[rflags] */
	emit32(e, FLAGS_OFFSET);
	EMIT(e, 0x65, 0x8a, 0x04, 0x25); /* mov al, gs:[rflags + 1] */
	emit32(e, FLAGS_OFFSET + 1);
	EMIT(e, 0x24, 0x08); /* and al, 8 */
	EMIT(e, 0x04, 0x78); /* add al, 0x78: overflows if the bit was set */
	EMIT(e, 0x9e);       /* sahf */
}

/* Merge the host's status flags into vcpu->rflags; clobbers EAX and ECX. */
static void emit_store_flags(struct emitter *e)
{
	EMIT(e, 0x9f);                   /* lahf */
	EMIT(e, 0x0f, 0x90, 0xc0);       /* seto al */
	EMIT(e, 0x0f, 0xb6, 0xcc);       /* movzx ecx, ah */
	EMIT(e, 0x0f, 0xb6, 0xc0);       /* movzx eax, al */
	EMIT(e, 0xc1, 0xe0, 0x0b);       /* shl eax, 11 */
	EMIT(e, 0x09, 0xc8);             /* or eax, ecx */
	EMIT(e, 0x65, 0x8b, 0x0c, 0x25); /* mov ecx, gs:[rflags] */
	emit32(e, FLAGS_OFFSET);
	EMIT(e, 0x81, 0xe1); /* and ecx, ~status */
	emit32(e, ~(u32)RFLAGS_STATUS);
	EMIT(e, 0x09, 0xc8);             /* or eax, ecx */
	EMIT(e, 0x65, 0x89, 0x04, 0x25); /* mov gs:[rflags], eax */
	emit32(e, FLAGS_OFFSET);
}

/* What a run of instructions needs from the vCPU and changes in it. */
struct summary {
	u16 load, store, used;
	u16 flags_load, flags_store;
};

static struct summary summarize(const struct insn *insns, unsigned count)
{
	struct summary s = { 0 };
	for (unsigned i = 0; i < count; i++) {
		const struct insn *n = &insns[i];
		s.load |= n->gpr_read & ~s.store;
		s.store |= n->gpr_written;
		s.flags_load |= n->flags_read & ~s.flags_store;
		s.flags_store |= n->flags_written;
	}
	/* A run that writes some flags only conditionally or partly leaves the others as they were: they are merged
	 * from the host's, so they must have been loaded. */
	if (s.flags_store && s.flags_store != RFLAGS_STATUS)
		s.flags_load |= RFLAGS_STATUS;
	s.used = s.load | s.store;
	return s;
}

static bool rewrite_any(const struct insn *insn, enum gpr scratch, struct rewritten *out)
{
	if (insn->kind == KIND_LEA)
		return insn_rewrite_lea(insn, out);
	return insn_rewrite(insn, scratch, out);
}

/* bit_index: the one register read is the bit offset of BT and its family, already reduced by the handler. */
static void emit_prologue(struct emitter *e, const struct summary *s, u16 saved, enum gpr scratch, bool memory,
			  bool bit_index)
{
	emit_pushes(e, saved);
	if (s->flags_load)
		emit_load_flags(e);
	if (memory && scratch != RDI)
		EMIT(e, 0x48, 0x89, (u8)(0xf8 | scratch)); /* mov scratch, rdi */
	for (unsigned reg = 0; reg < GPR_COUNT; reg++)
		if (reg != RSP && (s->load & (1u << reg)))
			emit_load(e, reg, bit_index ? BIT_INDEX_SLOT : reg * 8);
	if (s->used & (1u << RSP)) {
		emit_store(e, RSP, offsetof(struct vcpu, host_rsp));
		emit_load(e, RSP, bit_index ? BIT_INDEX_SLOT : RSP * 8);
	}
}

static void emit_epilogue(struct emitter *e, const struct summary *s, u16 saved)
{
	if (s->used & (1u << RSP)) {
		if (s->store & (1u << RSP))
			emit_store(e, RSP, RSP * 8);
		emit_load(e, RSP, offsetof(struct vcpu, host_rsp));
	}
	for (unsigned reg = 0; reg < GPR_COUNT; reg++)
		if (reg != RSP && (s->store & (1u << reg)))
			emit_store(e, reg, reg * 8);
	if (s->flags_store)
		emit_store_flags(e);
	EMIT(e, 0x31, 0xc0); /* xor eax, eax */
	emit_pops(e, saved);
	emit8(e, 0xc3);
}

static void emit_fault_tail(struct emitter *e, const struct summary *s, u16 saved)
{
	if (s->used & (1u << RSP))
		emit_load(e, RSP, offsetof(struct vcpu, host_rsp));
	EMIT(e, 0xb8, 1, 0, 0, 0); /* mov eax, 1 */
	emit_pops(e, saved);
	emit8(e, 0xc3);
}

bool snippet_emit(struct step *step, const struct insn *insns, unsigned count, struct op *op)
{
	if (step->code_used + SNIPPET_MAX > step->code.size)
		return false;
	struct emitter e = { .at = step->code.rw + step->code_used };
	const u8 *start = e.at;
	struct summary s = summarize(insns, count);
	bool memory = insns[0].memory >= 0 && insns[0].kind != KIND_LEA;
	bool implied = insns[0].kind == KIND_MASKMOV; /* DS:[rDI]: the address is in RDI, where the argument is */
	enum gpr scratch = implied ? RDI : insn_scratch(&insns[0]);
	if (implied)
		s.load = s.used = s.store = 0;
	u16 saved = (u16)((s.used | (memory ? 1u << scratch : 0)) & CALLEE_SAVED);
	emit_prologue(&e, &s, saved, scratch, memory, op->run == op_bit_memory);
	for (unsigned i = 0; i < count; i++) {
		struct rewritten host;
		if (!rewrite_any(&insns[i], scratch, &host))
			host_panic("step: no 64-bit form for %s", ZydisMnemonicGetString(insns[i].z.mnemonic));
		emit(&e, host.bytes, host.length);
	}
	emit_epilogue(&e, &s, saved);
	op->fault_tail = (u16)(e.at - start);
	emit_fault_tail(&e, &s, saved);
	op->snippet = step->code.rx + step->code_used;
	step->code_used += ((size_t)(e.at - start) + 15) & ~15ull;
	return true;
}

bool snippet_trap(struct host_trap *trap)
{
	struct vcpu *vcpu = host_gs_base();
	if (!vcpu || !vcpu->engine_state)
		return false;
	struct step *step = step_of(vcpu);
	if (trap->pc - (u64)(uintptr_t)step->code.rx >= step->code.size || !step->current)
		return false;
	if (trap->vector == VEC_PF || trap->vector == VEC_DB)
		return false; /* operands were translated before, and TF is never set */
	step->trap_vector = (u8)trap->vector;
	step->trap_error = trap->error_code;
	trap->pc = (u64)(uintptr_t)step->current->snippet + step->current->fault_tail;
	return true;
}

int snippet_fault(struct vcpu *vcpu, struct step *step)
{
	switch (step->trap_vector) {
	case VEC_GP:
	case VEC_SS:
	case VEC_AC:
		return vcpu_raise_error(vcpu, step->trap_vector, 0);
	case VEC_XM:
		return vcpu_raise(vcpu, vcpu->cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
	default:
		return vcpu_raise(vcpu, step->trap_vector);
	}
}
