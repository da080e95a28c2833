/* x87 instruction and data pointers, and the instructions that show or load them: FNSTENV, FNSAVE, FLDENV, FRSTOR,
 * FNINIT. Intel SDM volume 1, "Saving the x87 FPU's State with FSTENV/FNSTENV and FSAVE/FNSAVE", with the formats of
 * the environment. */
#include "engine/step/x87.h"

#include "engine/step/handlers.h"
#include "engine/step/image.h"
#include "engine/step/memory.h"
#include "lib/string.h"

/* Offsets in the legacy region of an XSAVE image. */
#define IMAGE_FOP 6
#define IMAGE_FIP 8
#define IMAGE_FDP 16

void x87_note(struct vcpu *vcpu, struct step *step, const struct op *op, gva_t gva)
{
	struct x87_pointers *x = &vcpu->x87;
	if (!(op->flags & OP_X87))
		return;
	x->ip = vcpu->rip;
	x->cs = vcpu->seg[SEG_CS].selector;
	x->op = (u16)op->imm;
	if (op->flags & OP_X87_MEMORY) {
		x->dp = gva;
		x->ds = vcpu->seg[op->segment].selector;
	}
}

/* CPUs that save the pointers only while an exception is pending (AMD) saved zeros or what the guest had loaded: that
 * stays. */
void x87_patch_image(struct vcpu *vcpu, struct step *step)
{
	u64 ip;
	memcpy(&ip, vcpu->xsave + IMAGE_FIP, sizeof(ip));
	if (ip - (u64)(uintptr_t)step->code.rx >= step->code.size &&
	    ip - (u64)(uintptr_t)step->translated.rx >= step->translated.size)
		return;
	memcpy(vcpu->xsave + IMAGE_FOP, &vcpu->x87.op, sizeof(u16));
	memcpy(vcpu->xsave + IMAGE_FIP, &vcpu->x87.ip, sizeof(u64));
	memcpy(vcpu->xsave + IMAGE_FDP, &vcpu->x87.dp, sizeof(u64));
}

void x87_reload(struct vcpu *vcpu, struct step *step)
{
	struct x87_pointers *x = &vcpu->x87;
	memcpy(&x->op, vcpu->xsave + IMAGE_FOP, sizeof(u16));
	memcpy(&x->ip, vcpu->xsave + IMAGE_FIP, sizeof(u64));
	memcpy(&x->dp, vcpu->xsave + IMAGE_FDP, sizeof(u64));
	x->cs = x->ds = 0;
}

/* ---- the environment in memory ---- */

static u32 real_linear(u16 selector, u64 offset)
{
	return ((u32)selector << 4) + (u32)offset;
}

static void put16(u8 *p, u64 value)
{
	u16 v = (u16)value;
	memcpy(p, &v, sizeof(v));
}

static void put32(u8 *p, u64 value)
{
	u32 v = (u32)value;
	memcpy(p, &v, sizeof(v));
}

/* Fill in the pointers: 16- or 32-bit operand size, protected or real-address format. */
static void put_pointers(struct vcpu *vcpu, const struct x87_pointers *x, unsigned size, u8 *env)
{
	if (vcpu_real_or_v86(vcpu)) {
		u32 ip = real_linear(x->cs, x->ip), dp = real_linear(x->ds, x->dp);
		if (size == 2) {
			put16(env + 6, ip);
			put16(env + 8, (ip >> 16 & 0xf) << 12 | (x->op & 0x7ff));
			put16(env + 10, dp);
			put16(env + 12, (dp >> 16 & 0xf) << 12);
		} else {
			put32(env + 12, 0xffff0000 | (ip & 0xffff));
			put32(env + 16, (ip >> 16) << 12 | (x->op & 0x7ff));
			put32(env + 20, 0xffff0000 | (dp & 0xffff));
			put32(env + 24, (dp >> 16) << 12);
		}
	} else if (size == 2) {
		put16(env + 6, x->ip);
		put16(env + 8, x->cs);
		put16(env + 10, x->dp);
		put16(env + 12, x->ds);
	} else {
		put32(env + 12, x->ip);
		put32(env + 16, (u64)(x->op & 0x7ff) << 16 | x->cs);
		put32(env + 20, x->dp);
		put32(env + 24, 0xffff0000 | x->ds);
	}
}

static void take_pointers(struct vcpu *vcpu, struct x87_pointers *x, unsigned size, const u8 *env)
{
	*x = (struct x87_pointers){ 0 };
	if (vcpu_real_or_v86(vcpu))
		return; /* linear addresses: what they belonged to is not known */
	if (size == 2) {
		x->ip = load_sized(env + 6, 2);
		x->cs = (u16)load_sized(env + 8, 2);
		x->dp = load_sized(env + 10, 2);
		x->ds = (u16)load_sized(env + 12, 2);
	} else {
		x->ip = load_sized(env + 12, 4);
		x->cs = (u16)load_sized(env + 16, 2);
		x->op = (u16)load_sized(env + 18, 2) & 0x7ff;
		x->dp = load_sized(env + 20, 4);
		x->ds = (u16)load_sized(env + 24, 2);
	}
}

/* FNSTENV and FNSAVE write to a buffer, where the pointers are corrected. */
int op_x87_store(struct vcpu *vcpu, const struct op *op)
{
	struct step *step = step_of(vcpu);
	gva_t gva = op_address(vcpu, op);
	u8 *buffer = step->bounce;
	gla_t gla;
	if (!vector_ready(vcpu, step, op->xstate) ||
	    !memory_linear(vcpu, op->segment, gva, op->mem_size, ACCESS_WRITE, &gla) ||
	    !mmu_probe_write(vcpu, gla, op->mem_size, ACCESS_WRITE) || !vector_ready(vcpu, step, op->xstate))
		return OP_FAULT;
	int result = snippet_call(vcpu, step, op, buffer);
	if (result != OP_DONE)
		return result;
	put_pointers(vcpu, &vcpu->x87, op->size == 2 ? 2 : 4, buffer);
	if (op->imm)
		vcpu->x87 = (struct x87_pointers){ 0 };
	return memory_write_slow(vcpu, op->segment, gva, buffer, op->mem_size);
}

int op_x87_load(struct vcpu *vcpu, const struct op *op)
{
	struct step *step = step_of(vcpu);
	u8 *buffer = step->bounce;
	if (!vector_ready(vcpu, step, op->xstate))
		return OP_FAULT;
	vector_sync(vcpu);
	if (image_x87_pending(vcpu))
		return vcpu_raise(vcpu, VEC_MF);
	if (!memory_read_slow(vcpu, op->segment, op_address(vcpu, op), buffer, op->mem_size) ||
	    !vector_ready(vcpu, step, op->xstate))
		return OP_FAULT;
	int result = snippet_call(vcpu, step, op, buffer);
	if (result == OP_DONE)
		take_pointers(vcpu, &vcpu->x87, op->size == 2 ? 2 : 4, buffer);
	return result;
}

int op_x87_init(struct vcpu *vcpu, const struct op *op)
{
	int result = op_native_vector(vcpu, op);
	if (result == OP_DONE)
		vcpu->x87 = (struct x87_pointers){ 0 };
	return result;
}
