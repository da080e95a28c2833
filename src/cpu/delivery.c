/* Delivery in real-address mode and, by the redirection bitmap, in virtual-8086 mode; the choice between the modes.
 * Intel SDM volume 2, INT n, "REAL-ADDRESS-MODE"; volume 3, "8086 Emulation", "Class 3: Software Interrupt Handling in Virtual-8086 Mode". */
#include "cpu/delivery.h"
#include "cpu/descriptor.h"
#include "cpu/segment.h"
#include "cpu/stack.h"

bool delivery(struct vcpu *vcpu, const struct event *e, u64 *target)
{
	if (likely(vcpu_long_mode(vcpu)))
		return delivery_long(vcpu, e, target);
	if (!vcpu_protected(vcpu))
		return delivery_real(vcpu, e, target);
	if (vcpu_v86(vcpu) && e->kind == EVENT_SOFTWARE)
		return delivery_v86_interrupt(vcpu, e, target);
	return delivery_protected(vcpu, e, target);
}

/* Push FLAGS, CS and IP and go to an IVT entry. */
static bool enter_8086(struct vcpu *vcpu, const struct event *e, u16 flags, u32 entry, u64 *target)
{
	const u64 frame[] = { flags, vcpu->seg[SEG_CS].selector, e->return_rip };
	struct stack st = stack_current(vcpu, e->ext);
	if (!stack_push(vcpu, &st, frame, 3, 2))
		return false;
	stack_commit(vcpu, &st);
	segment_set_real(vcpu, SEG_CS, entry >> 16);
	*target = entry & 0xffff;
	return true;
}

bool delivery_real(struct vcpu *vcpu, const struct event *e, u64 *target)
{
	unsigned offset = e->vector * 4;
	u32 entry;
	if (offset + 3 > vcpu->idtr.limit)
		return vcpu_raise_gp(vcpu, (e->vector << 3) | ERR_IDT | e->ext);
	if (!system_read(vcpu, vcpu->idtr.base + offset, &entry, 4) || !enter_8086(vcpu, e, e->rflags, entry, target))
		return false;
	cpu_set_rflags(vcpu, vcpu->rflags & ~(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF));
	return true;
}

/* The redirection bitmap is the 32 bytes below the I/O permission bitmap: a clear bit sends the interrupt to the 8086 program. */
static bool redirected(struct vcpu *vcpu, u8 vector, bool *to_8086)
{
	u16 io_map;
	u8 byte;
	*to_8086 = false;
	if (!(vcpu->tr.attr & (SYS_TSS ^ SYS_TSS16)) || vcpu->tr.limit < 0x67)
		return vcpu_raise_gp(vcpu, 0);
	if (!system_read(vcpu, vcpu->tr.base + 0x66, &io_map, 2))
		return false;
	u32 offset = io_map - 32u + vector / 8;
	if (io_map < 32 || offset > vcpu->tr.limit)
		return vcpu_raise_gp(vcpu, 0);
	if (!system_read(vcpu, vcpu->tr.base + offset, &byte, 1))
		return false;
	*to_8086 = !(byte & (1 << vector % 8));
	return true;
}

/* Through the IVT at linear address 0, by the program's own rights. Below IOPL 3 the program's IF is VIF. */
static bool enter_redirected(struct vcpu *vcpu, const struct event *e, u64 *target)
{
	u64 flags = e->rflags, clear = RFLAGS_TF | RFLAGS_RF | RFLAGS_NT;
	u32 entry;
	if (vcpu_iopl(vcpu) == 3) {
		clear |= RFLAGS_IF;
	} else {
		bool vif = flags & RFLAGS_VIF;
		flags = (flags & ~RFLAGS_IF) | RFLAGS_IOPL | (vif ? RFLAGS_IF : 0);
		clear |= RFLAGS_VIF;
	}
	if (!mmu_read(vcpu, e->vector * 4, &entry, 4, ACCESS_READ) || !enter_8086(vcpu, e, flags, entry, target))
		return false;
	cpu_set_rflags(vcpu, vcpu->rflags & ~clear);
	return true;
}

/* INT n in virtual-8086 mode. */
bool delivery_v86_interrupt(struct vcpu *vcpu, const struct event *e, u64 *target)
{
	bool to_8086 = false;
	if ((vcpu->cr4 & CR4_VME) && !redirected(vcpu, e->vector, &to_8086))
		return false;
	if (to_8086)
		return enter_redirected(vcpu, e, target);
	if (vcpu_iopl(vcpu) < 3)
		return vcpu_raise_gp(vcpu, 0);
	return delivery_protected(vcpu, e, target);
}
