/* Writing host instructions. Registers are host numbers; displacements are signed 32 bits. Intel SDM volume 2, "Instruction Format". */
#ifndef NADIR_ENGINE_BT_EMIT_H
#define NADIR_ENGINE_BT_EMIT_H

#include "engine/insn/rewrite.h"
#include "mmu/mmu.h"
#include "vcpu/vcpu.h"

struct emitter {
	u8 *at; /* in the writable mapping */
};

#define VCPU(field) ((u32)offsetof(struct vcpu, field))
#define VCPU_GPR(reg) ((u32)(offsetof(struct vcpu, gpr) + (reg) * sizeof(u64)))

static inline void emit8(struct emitter *e, u8 byte)
{
	*e->at++ = byte;
}

static inline void emit_bytes(struct emitter *e, const u8 *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		emit8(e, bytes[i]);
}

static inline void emit16(struct emitter *e, u16 value)
{
	emit_bytes(e, (const u8 *)&value, sizeof(value));
}

static inline void emit32(struct emitter *e, u32 value)
{
	emit_bytes(e, (const u8 *)&value, sizeof(value));
}

#define EMIT(e, ...) emit_bytes(e, (const u8[]){ __VA_ARGS__ }, sizeof((const u8[]){ __VA_ARGS__ }))

/* REX with W, and the high bits of the register and of base and index (NO_REGISTER: none). */
static inline void emit_rex(struct emitter *e, bool w, unsigned reg, unsigned index, unsigned base)
{
	u8 x = index == NO_REGISTER ? 0 : (u8)(index >> 3), b = base == NO_REGISTER ? 0 : (u8)(base >> 3);
	u8 rex = (u8)(0x40 | w << 3 | (reg >> 3) << 2 | x << 1 | b);
	if (rex != 0x40)
		emit8(e, rex);
}

/* An instruction with a register and GS:[offset]. */
static inline void emit_gs(struct emitter *e, bool w, u8 opcode, unsigned reg, u32 offset)
{
	emit8(e, 0x65);
	emit_rex(e, w, reg, NO_REGISTER, NO_REGISTER);
	EMIT(e, opcode, (u8)(0x04 | (reg & 7) << 3), 0x25);
	emit32(e, offset);
}

static inline void emit_load_gs(struct emitter *e, unsigned reg, u32 offset)
{
	emit_gs(e, true, 0x8b, reg, offset);
}

static inline void emit_store_gs(struct emitter *e, unsigned reg, u32 offset)
{
	emit_gs(e, true, 0x89, reg, offset);
}

/* A register-to-register instruction; rm is the destination of opcodes like 89 (MOV) and 01 (ADD). */
static inline void emit_rr(struct emitter *e, bool w, u8 opcode, unsigned reg, unsigned rm)
{
	emit_rex(e, w, reg, NO_REGISTER, rm);
	EMIT(e, opcode, (u8)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

static inline void emit_mov(struct emitter *e, unsigned to, unsigned from)
{
	emit_rr(e, true, 0x89, from, to);
}

/* ModRM, SIB and displacement of [base + index << scale + disp]. */
static inline void emit_address(struct emitter *e, unsigned reg, unsigned base, unsigned index, unsigned scale, s32 disp)
{
	u8 r = (u8)((reg & 7) << 3);
	u8 i = index == NO_REGISTER ? 4 : (u8)(index & 7);
	if (base == NO_REGISTER) {
		EMIT(e, r | 4, (u8)(scale << 6 | i << 3 | 5));
		emit32(e, (u32)disp);
		return;
	}
	u8 b = base & 7;
	bool sib = index != NO_REGISTER || b == 4;
	u8 mod = !disp && b != 5 ? 0 : disp >= -128 && disp <= 127 ? 1 : 2;
	emit8(e, (u8)(mod << 6 | r | (sib ? 4 : b)));
	if (sib)
		emit8(e, (u8)(scale << 6 | i << 3 | b));
	if (mod == 1)
		emit8(e, (u8)disp);
	else if (mod == 2)
		emit32(e, (u32)disp);
}

/* An instruction with a register and [base + disp]. */
static inline void emit_rm(struct emitter *e, bool w, u8 opcode, unsigned reg, unsigned base, s32 disp)
{
	emit_rex(e, w, reg, NO_REGISTER, base);
	emit8(e, opcode);
	emit_address(e, reg, base, NO_REGISTER, 0, disp);
}

/* An instruction with a register and a place in memory. */
static inline void emit_at(struct emitter *e, bool w, u8 opcode, unsigned reg, const struct place *p)
{
	emit_rex(e, w, reg, p->index, p->base);
	emit8(e, opcode);
	emit_address(e, reg, p->base, p->index, p->scale, p->disp);
}

static inline void emit_lea(struct emitter *e, bool w, unsigned reg, unsigned base, unsigned index, unsigned scale, s32 disp)
{
	emit_rex(e, w, reg, index, base);
	emit8(e, 0x8d);
	emit_address(e, reg, base, index, scale, disp);
}

/* The last four bytes written become the distance from behind them to target. */
static inline void emit_fix32(u8 *field, const u8 *target)
{
	s32 distance = (s32)(target - (field + 4));
	__builtin_memcpy(field, &distance, sizeof(distance));
}

/* JMP (E9) or CALL (E8) to an address of the writable mapping; returns the rel32 field. */
static inline u8 *emit_jump(struct emitter *e, u8 opcode, const u8 *target)
{
	emit8(e, opcode);
	e->at += 4;
	emit_fix32(e->at - 4, target);
	return e->at - 4;
}

/* Jcc near, to be fixed later. */
static inline u8 *emit_jcc(struct emitter *e, u8 condition)
{
	EMIT(e, 0x0f, 0x80 | condition);
	emit32(e, 0);
	return e->at - 4;
}

/* T0, a RIP, becomes its index in the jump cache: that of JUMP_INDEX (mmu/mmu.h). Destroys the flags. */
static inline void emit_jump_index(struct emitter *e)
{
	EMIT(e, 0x45, 0x69, 0xd2); /* imul r10d, r10d, imm32 */
	emit32(e, JUMP_MULTIPLIER);
	EMIT(e, 0x41, 0xc1, 0xea, 32 - JUMP_CACHE_BITS); /* shr r10d, imm8 */
}

/* Status flags of the host into flags_image; clobbers RAX. */
static inline void emit_flags_image(struct emitter *e)
{
	EMIT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
	emit_gs(e, false, 0x89, RAX, VCPU(flags_image));
}

/* Status flags of the host into flags_image; clobbers `temp`, but no flags. */
static inline void emit_save_flags_by(struct emitter *e, unsigned temp)
{
	emit_mov(e, temp, RAX);
	emit_flags_image(e);
	emit_mov(e, RAX, temp);
}

/* And back: adding 127 to AL makes OF of its lowest bit. Clobbers `temp`. */
static inline void emit_restore_flags_by(struct emitter *e, unsigned temp)
{
	emit_mov(e, temp, RAX);
	emit_gs(e, false, 0x8b, RAX, VCPU(flags_image));
	EMIT(e, 0x04, 0x7f, 0x9e); /* add al, 127; sahf */
	emit_mov(e, RAX, temp);
}

/* The same. Clobbers T1. */
static inline void emit_restore_flags(struct emitter *e)
{
	emit_restore_flags_by(e, R11);
}

#endif
