/* The guest's extended state in and out of the real registers. Intel SDM volume 1, "Managing State Using the XSAVE Feature Set". */
#include "cpu/xstate.h"
#include "engine/step/state.h"

/* Offsets in the legacy region of an XSAVE image; Intel SDM volume 1, "Legacy Region of an XSAVE Area". */
#define IMAGE_FOP 6
#define IMAGE_FIP 8
#define IMAGE_FDP 16

static void xsave(void *image, u64 mask)
{
	__asm__ volatile("xsave64 (%0)" ::"r"(image), "a"((u32)mask), "d"((u32)(mask >> 32)) : "memory");
}

static void xrstor(const void *image, u64 mask)
{
	__asm__ volatile("xrstor64 (%0)" ::"r"(image), "a"((u32)mask), "d"((u32)(mask >> 32)) : "memory");
}

static u64 image_u64(const u8 *image, unsigned offset)
{
	u64 value;
	__builtin_memcpy(&value, image + offset, sizeof(value));
	return value;
}

/* The real CPU recorded where the snippet is; the guest must see where its instruction is. CPUs that save the pointers only while
 * an exception is pending (AMD) saved zeros or what the guest had loaded: that stays. */
static void patch_x87_pointers(struct vcpu *vcpu, struct step *step)
{
	bool ours = image_u64(vcpu->xsave, IMAGE_FIP) - (u64)(uintptr_t)step->code.rx < step->code.size;
	if (ours && step->x87_ip_known) {
		__builtin_memcpy(vcpu->xsave + IMAGE_FOP, &step->x87_op, sizeof(u16));
		__builtin_memcpy(vcpu->xsave + IMAGE_FIP, &step->x87_ip, sizeof(u64));
	}
	if (ours && step->x87_dp_known)
		__builtin_memcpy(vcpu->xsave + IMAGE_FDP, &step->x87_dp, sizeof(u64));
	step->x87_ip_known = step->x87_dp_known = false;
}

void vector_save(struct vcpu *vcpu, struct step *step)
{
	xsave(vcpu->xsave, step->xstate_mask);
	patch_x87_pointers(vcpu, step);
	xrstor(step->init_image, step->xstate_mask);
	step->vector_live = false;
	step->vector_checked = 0;
}

bool vector_load(struct vcpu *vcpu, struct step *step, u8 class)
{
	if (!xstate_check(vcpu, (enum xstate_class)class))
		return false;
	if (!step->vector_live)
		xrstor(vcpu->xsave, step->xstate_mask);
	step->vector_live = true;
	step->vector_checked |= (u8)(1u << class);
	return true;
}
