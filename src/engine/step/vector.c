/* The guest's extended state in and out of the real registers. Intel SDM volume 1, "Managing State Using the XSAVE
 * Feature Set". */
#include "cpu/xstate.h"
#include "engine/step/x87.h"

static void xsave(void *image, u64 mask)
{
	__asm__ volatile("xsave64 (%0)" ::"r"(image), "a"((u32)mask), "d"((u32)(mask >> 32)) : "memory");
}

static void xrstor(const void *image, u64 mask)
{
	__asm__ volatile("xrstor64 (%0)" ::"r"(image), "a"((u32)mask), "d"((u32)(mask >> 32)) : "memory");
}

void vector_save(struct vcpu *vcpu, struct step *step)
{
	xsave(vcpu->xsave, step->xstate_mask);
	x87_patch_image(vcpu, step);
	xrstor(step->init_image, step->xstate_mask);
	step->vector_live = false;
	vcpu->vector_ready = 0;
}

bool vector_load(struct vcpu *vcpu, struct step *step, u8 class)
{
	if (!xstate_check(vcpu, (enum xstate_class) class))
		return false;
	if (!step->vector_live)
		xrstor(vcpu->xsave, step->xstate_mask);
	step->vector_live = true;
	vcpu->vector_ready |= (u8)(1u << class);
	return true;
}
