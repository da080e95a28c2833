/* A debugger's points in the debug registers of the processor, while KVM runs the guest (KVM_SET_GUEST_DEBUG). Four fit, of the sizes that the
 * registers know, and only while the guest has none of its own armed; else step runs the guest, which knows all of them. So it is with a KVM that
 * failed the trial: Linux' PVM takes the points and keeps to none.
 * Intel SDM volume 3, "Debug Registers". */
#include "engine/kvm/kvm.h"

#include "cpu/control.h"

#define DR7_ENABLE(n) BIT(2 * (n) + 1)
#define DR7_FIELD(n, type, length) ((u64)((type) | (length) << 2) << (16 + 4 * (n)))

/* DR7's LENn for a size; -1: there is none. */
static int length_field(u32 size)
{
	static const s8 field[9] = { -1, 0, 1, -1, 3, -1, -1, -1, 2 };
	return size < ARRAY_SIZE(field) ? field[size] : -1;
}

static bool fits(const struct debug_point *p)
{
	return length_field(p->size) >= 0 && !(p->gla & (p->size - 1));
}

bool kvm_points_fit(struct vcpu *v)
{
	const struct debug_points *d = &v->debug;
	if (kvm_of(v)->no_points || !kvm_of(v)->machine->points || d->points > 4)
		return false;
	for (unsigned i = 0; i < d->points; i++)
		if (!fits(&d->point[i]))
			return false;
	return kvm_fetch(v, GROUP_DEBUG) && !(v->dr7 & 0xff);
}

/* Make it so that KVM knows the points, or that there are none. What it does not take is step's. */
bool kvm_tell_points(struct vcpu *v)
{
	struct kvm_vcpu *k = kvm_of(v);
	const struct debug_points *d = &v->debug;
	struct kvm_guest_debug debug = { 0 };
	if (!d->points && !k->debugging)
		return true;
	if (d->points)
		debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
	debug.arch.debugreg[7] = DR7_FIXED1;
	for (unsigned i = 0; i < d->points; i++) {
		debug.arch.debugreg[i] = d->point[i].gla;
		debug.arch.debugreg[7] |= DR7_ENABLE(i) | DR7_FIELD(i, (u32)d->point[i].kind, (u32)length_field(d->point[i].size));
	}
	k->no_points = kvm_call(k, KVM_SET_GUEST_DEBUG, &debug) < 0;
	k->debugging = d->points;
	return !k->no_points;
}

static gla_t linear_rip(const struct vcpu *v)
{
	return vcpu_64bit(v) ? v->rip : (u32)(v->seg[SEG_CS].base + v->rip);
}

/* What is behind KVM_EXIT_DEBUG: an access that was watched, or an instruction with a break point. */
bool kvm_point_met(struct vcpu *v, struct exit *exit)
{
	struct debug_points *d = &v->debug;
	u64 dr6 = kvm_of(v)->run->debug.arch.dr6;
	bool met = false;
	for (unsigned i = 0; i < d->points && !met; i++) {
		met = (dr6 >> i & 1) && d->point[i].kind != DEBUG_EXECUTE;
		if (met)
			d->hit = d->point[i];
	}
	if (!met && !debug_stop(v, linear_rip(v)))
		return false;
	exit->reason = EXIT_DEBUG;
	exit->debug.step = false;
	exit->debug.kind = (u8)d->hit.kind;
	exit->debug.gla = d->hit.gla;
	return true;
}
