/* The slow path of operand accesses. Intel SDM volume 3, "Alignment Check Exception", "Breakpoint Field Recognition".
 */
#include "engine/step/memory.h"

#include "cpu/control.h"

/* #AC: with CR0.AM and EFLAGS.AC at CPL 3, for operands of 2, 4, 8 (and 10: 8) bytes; larger ones have their own rules.
 */
static bool alignment_ok(struct vcpu *vcpu, gla_t gla, unsigned size)
{
	if (!(vcpu->cr0 & CR0_AM) || !(vcpu->rflags & RFLAGS_AC) || vcpu->cpl != 3 || size < 2 || size > 10)
		return true;
	unsigned align = size >= 8 ? 8 : size >= 4 ? 4 : 2;
	if (!(gla & (align - 1)))
		return true;
	return vcpu_raise_error(vcpu, VEC_AC, 0);
}

bool memory_linear(struct vcpu *vcpu, unsigned segment, gva_t gva, unsigned size, unsigned kind, gla_t *gla)
{
	vector_sync(vcpu);
	return segment_linear(vcpu, (enum segment_register)segment, gva, size, kind, gla) &&
	       alignment_ok(vcpu, *gla, size);
}

void memory_watch(struct vcpu *vcpu, gla_t gla, unsigned size, unsigned kind)
{
	if (likely(!control_debug_armed(vcpu)))
		return;
	enum debug_kind debug = kind == ACCESS_WRITE ? DEBUG_WRITE : DEBUG_ACCESS;
	debug_watch(vcpu, debug, gla, size);
	u64 hit = control_debug_match(vcpu, debug, gla, size);
	if (!hit)
		return;
	if (!(vcpu_pending(vcpu) & PENDING_TRAP))
		vcpu->trap = (struct guest_fault){ .vector = VEC_DB };
	vcpu->trap.payload |= hit;
	vcpu_set_pending(vcpu, PENDING_TRAP);
}

bool memory_read_slow(struct vcpu *vcpu, unsigned segment, gva_t gva, void *buf, unsigned size)
{
	gla_t gla;
	if (!memory_linear(vcpu, segment, gva, size, ACCESS_READ, &gla) || !mmu_read(vcpu, gla, buf, size, ACCESS_READ))
		return false;
	memory_watch(vcpu, gla, size, ACCESS_READ);
	return true;
}

bool memory_write_slow(struct vcpu *vcpu, unsigned segment, gva_t gva, const void *buf, unsigned size)
{
	gla_t gla;
	if (!memory_linear(vcpu, segment, gva, size, ACCESS_WRITE, &gla) ||
	    !mmu_write(vcpu, gla, buf, size, ACCESS_WRITE))
		return false;
	memory_watch(vcpu, gla, size, ACCESS_WRITE);
	return true;
}

bool memory_push(struct vcpu *vcpu, u64 value, unsigned size)
{
	gla_t gla;
	u64 sp = (vcpu->gpr[RSP] - size) & size_mask(vcpu_stack_size(vcpu));
	if (!memory_linear(vcpu, SEG_SS, sp, size, ACCESS_WRITE, &gla) || !cpu_push(vcpu, value, size))
		return false;
	memory_watch(vcpu, gla, size, ACCESS_WRITE);
	return true;
}

bool memory_pop(struct vcpu *vcpu, u64 *value, unsigned size)
{
	gla_t gla;
	u64 sp = vcpu->gpr[RSP] & size_mask(vcpu_stack_size(vcpu));
	if (!memory_linear(vcpu, SEG_SS, sp, size, ACCESS_READ, &gla) || !cpu_pop(vcpu, value, size))
		return false;
	memory_watch(vcpu, gla, size, ACCESS_READ);
	return true;
}
