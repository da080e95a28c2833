/* Filling KVM's clock structures. */
#include "cpu/pvclock.h"

#include "cpu/msr.h"
#include "host/port.h"
#include "mmu/ram.h"

#define NS_PER_S 1000000000ull
#define SYSTEM_TIME_ENABLE BIT(0)
#define PVCLOCK_TSC_STABLE 1 /* the time of all vCPUs is the same function of the TSC */

struct system_time {
	u32 version; /* odd while it is being written */
	u32 pad;
	u64 tsc_timestamp;
	u64 system_time;
	u32 tsc_to_system_mul;
	s8 tsc_shift;
	u8 flags;
	u8 pad2[2];
};
_Static_assert(sizeof(struct system_time) == 32, "pvclock ABI");

struct wall_clock {
	u32 version;
	u32 sec, nsec; /* UTC at system time 0 */
};
_Static_assert(sizeof(struct wall_clock) == 12, "pvclock ABI");

void pvclock_init(struct pvclock *clock, u64 tsc_hz)
{
	u64 hz = tsc_hz ? tsc_hz : 1;
	*clock = (struct pvclock){ .origin = host_now(), .wallclock = host_wallclock() };
	clock->host_tsc = __builtin_ia32_rdtsc();
	/* Bring the frequency into (1, 2] GHz, so that mul has 32 significant bits. */
	for (; hz > 2 * NS_PER_S; clock->shift--)
		hz >>= 1;
	for (; hz <= NS_PER_S; clock->shift++)
		hz <<= 1;
	clock->mul = (u32)((NS_PER_S << 32) / hz);
}

u64 pvclock_ns(const struct pvclock *clock, u64 host_tsc)
{
	u64 ticks = host_tsc - clock->host_tsc;
	ticks = clock->shift < 0 ? ticks >> -clock->shift : ticks << clock->shift;
	return (u64)((unsigned __int128)ticks * clock->mul >> 32);
}

/* Writers make the version odd, write, and make it even again; readers retry. */
static void write_system_time(const struct pvclock *clock, struct vcpu *vcpu)
{
	gpa_t gpa = vcpu->msr.kvm_system_time & ~SYSTEM_TIME_ENABLE;
	struct system_time *t = (void *)ram_pointer(vcpu->ram, gpa, sizeof(*t));
	if (!(vcpu->msr.kvm_system_time & SYSTEM_TIME_ENABLE) || !t)
		return;
	u32 version = (__atomic_load_n(&t->version, __ATOMIC_RELAXED) | 1) + 2;
	__atomic_store_n(&t->version, version, __ATOMIC_SEQ_CST);
	t->tsc_timestamp = clock->host_tsc + vcpu->tsc_offset;
	t->system_time = 0;
	t->tsc_to_system_mul = clock->mul;
	t->tsc_shift = clock->shift;
	t->flags = PVCLOCK_TSC_STABLE;
	__atomic_store_n(&t->version, version + 1, __ATOMIC_SEQ_CST);
	ram_written(vcpu->ram, gpa, sizeof(*t));
}

static void write_wall_clock(const struct pvclock *clock, struct vcpu *vcpu)
{
	gpa_t gpa = vcpu->msr.kvm_wall_clock;
	struct wall_clock *w = (void *)ram_pointer(vcpu->ram, gpa, sizeof(*w));
	if (!w)
		return;
	u32 version = (__atomic_load_n(&w->version, __ATOMIC_RELAXED) | 1) + 2;
	__atomic_store_n(&w->version, version, __ATOMIC_SEQ_CST);
	w->sec = (u32)(clock->wallclock / NS_PER_S);
	w->nsec = (u32)(clock->wallclock % NS_PER_S);
	__atomic_store_n(&w->version, version + 1, __ATOMIC_SEQ_CST);
	ram_written(vcpu->ram, gpa, sizeof(*w));
}

void pvclock_update(const struct pvclock *clock, struct vcpu *vcpu, u32 msr)
{
	if (msr == MSR_KVM_WALL_CLOCK)
		write_wall_clock(clock, vcpu);
	else if (msr == MSR_KVM_SYSTEM_TIME || msr == MSR_TSC || msr == MSR_TSC_ADJUST)
		write_system_time(clock, vcpu);
}
