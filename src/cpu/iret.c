/* IRET in all its forms. Intel SDM volume 2, IRET/IRETD/IRETQ; volume 3, "Virtual-8086 Mode", "Handling Multiple NMIs". */
#include "cpu/descriptor.h"
#include "cpu/event.h"
#include "cpu/return.h"
#include "cpu/segment.h"
#include "cpu/task.h"

/* What every IRET may change; the mode and CPL add to it. */
#define FLAGS_ALWAYS (RFLAGS_STATUS | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT)
#define FLAGS_WIDE (RFLAGS_RF | RFLAGS_AC | RFLAGS_ID) /* operand sizes of 4 and 8 bytes */

static void set_flags(struct vcpu *vcpu, u64 value, u64 mask)
{
	cpu_set_rflags(vcpu, (vcpu->rflags & ~mask) | (value & mask));
}

static u64 flags_mask(unsigned size)
{
	return size == 2 ? FLAGS_ALWAYS : FLAGS_ALWAYS | FLAGS_WIDE;
}

/* Real mode, and virtual-8086 mode with IOPL 3. frame: IP, CS, FLAGS. */
static bool commit_8086(struct vcpu *vcpu, const struct stack *st, const u64 *frame)
{
	if (!segment_check_target(vcpu, &vcpu->seg[SEG_CS], frame[0], 0))
		return false;
	stack_commit(vcpu, st);
	segment_set_real(vcpu, SEG_CS, frame[1]);
	vcpu->next_rip = frame[0];
	return true;
}

static bool iret_8086(struct vcpu *vcpu, unsigned size)
{
	struct stack st = stack_current(vcpu, 0);
	u64 frame[3];
	if (!stack_pop(vcpu, &st, frame, 3, size) || !commit_8086(vcpu, &st, frame))
		return false;
	u64 mask = flags_mask(size) | RFLAGS_IF;
	set_flags(vcpu, frame[2], vcpu_v86(vcpu) ? mask : mask | RFLAGS_IOPL);
	return true;
}

/* Below IOPL 3 with the virtual-mode extensions, a 16-bit IRET sets VIF in place of IF.
 * Volume 3, "Virtual Interrupt Support in Protected Mode / Virtual-8086 Mode". */
static bool iret_vme(struct vcpu *vcpu, unsigned size)
{
	struct stack st = stack_current(vcpu, 0);
	u64 frame[3];
	if (!(vcpu->cr4 & CR4_VME) || size != 2)
		return vcpu_raise_gp(vcpu, 0);
	if (!stack_pop(vcpu, &st, frame, 3, size))
		return false;
	bool enable = frame[2] & RFLAGS_IF;
	if ((frame[2] & RFLAGS_TF) || (enable && (vcpu->rflags & RFLAGS_VIP)))
		return vcpu_raise_gp(vcpu, 0);
	if (!commit_8086(vcpu, &st, frame))
		return false;
	set_flags(vcpu, frame[2] | (enable ? RFLAGS_VIF : 0), FLAGS_ALWAYS | RFLAGS_VIF);
	return true;
}

/* From level 0 to virtual-8086 mode. frame: EIP, CS, EFLAGS, then ESP, SS, ES, DS, FS, GS. */
static bool iret_to_v86(struct vcpu *vcpu, struct stack *st, const u64 *frame)
{
	static const u8 order[] = { SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	u64 outer[6];
	if (!stack_pop(vcpu, st, outer, 6, 4))
		return false;
	if (frame[0] > 0xffff)
		return vcpu_raise_gp(vcpu, 0);
	set_flags(vcpu, frame[2], FLAGS_ALWAYS | FLAGS_WIDE | RFLAGS_IF | RFLAGS_IOPL | RFLAGS_VM | RFLAGS_VIF | RFLAGS_VIP);
	segment_set_real(vcpu, SEG_CS, frame[1]);
	for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
		segment_set_real(vcpu, order[i], outer[1 + i]);
	vcpu->gpr[RSP] = outer[0];
	vcpu->next_rip = frame[0];
	cpu_set_cpl(vcpu, 3);
	return true;
}

/* The privilege of the flags is that of the code that returns, before CPL changes. */
static u64 protected_flags_mask(const struct vcpu *vcpu, unsigned size)
{
	u64 mask = flags_mask(size);
	if (vcpu->cpl <= vcpu_iopl(vcpu))
		mask |= RFLAGS_IF;
	if (vcpu->cpl == 0)
		mask |= size == 2 ? RFLAGS_IOPL : RFLAGS_IOPL | RFLAGS_VIF | RFLAGS_VIP;
	return mask;
}

/* In 64-bit mode SS:RSP is always popped, elsewhere on an outward return only. */
static bool iret_protected(struct vcpu *vcpu, unsigned size)
{
	const bool from_64bit = vcpu_64bit(vcpu);
	struct stack st = stack_current(vcpu, 0);
	struct segment cs, ss = vcpu->seg[SEG_SS];
	u64 frame[5]; /* RIP, CS, RFLAGS, RSP, SS */
	if (!stack_pop(vcpu, &st, frame, from_64bit ? 5 : 3, size))
		return false;
	if ((frame[2] & RFLAGS_VM) && vcpu->cpl == 0 && !vcpu_long_mode(vcpu))
		return iret_to_v86(vcpu, &st, frame);
	if (!return_fetch_code(vcpu, frame[1], &cs))
		return false;
	bool outward = (cs.selector & SELECTOR_RPL) > vcpu->cpl;
	if (outward && !from_64bit && !stack_pop(vcpu, &st, frame + 3, 2, size))
		return false;
	if ((outward || from_64bit) && !return_fetch_stack(vcpu, frame[4], &cs, &ss))
		return false;
	if (!segment_check_target(vcpu, &cs, frame[0], 0))
		return false;
	set_flags(vcpu, frame[2], protected_flags_mask(vcpu, size));
	return_commit(vcpu, &cs, &ss, outward || from_64bit ? frame[3] : st.sp);
	vcpu->next_rip = frame[0];
	return true;
}

bool event_iret(struct vcpu *vcpu, unsigned size)
{
	/* Even an IRET that faults unblocks NMIs. */
	vcpu->nmi_blocked = false;
	if (!vcpu_protected(vcpu))
		return iret_8086(vcpu, size);
	if (vcpu_v86(vcpu))
		return vcpu_iopl(vcpu) == 3 ? iret_8086(vcpu, size) : iret_vme(vcpu, size);
	if (likely(!(vcpu->rflags & RFLAGS_NT)))
		return iret_protected(vcpu, size);
	return vcpu_long_mode(vcpu) ? vcpu_raise_gp(vcpu, 0) : task_return(vcpu);
}
