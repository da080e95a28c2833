/* The registers after RESET and INIT. Intel SDM volume 3, "IA-32 and Intel 64 Processor States Following Power-up,
 * Reset, or INIT". */
#include "cpu/control.h"
#include "cpu/cpuid.h"
#include "cpu/xstate.h"
#include "mmu/mmu.h"

#define ATTR_DATA (SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_WRITABLE | SEG_ATTR_ACCESSED)
#define ATTR_CODE (ATTR_DATA | SEG_ATTR_CODE)

static const struct segment reset_data = { .attr = ATTR_DATA, .limit = 0xffff };
static const struct segment reset_code = { .selector = 0xf000, .attr = ATTR_CODE, .limit = 0xffff, .base = 0xffff0000 };
static const struct segment reset_ldtr = { .attr = SEG_ATTR_P | SYS_LDT, .limit = 0xffff };
static const struct segment reset_tr = { .attr = SEG_ATTR_P | SYS_TSS_BUSY, .limit = 0xffff };
static const struct table_register reset_table = { .limit = 0xffff };

/* What RESET sets and INIT leaves alone: MSRs, XCR0 and the extended state. MSRs not named here are zero. Intel SDM
 * volume 4 has the values of PAT and MISC_ENABLE (fast strings). */
static const struct msr_state reset_msr = {
	.pat = 0x0007040600070406,
	.misc_enable = BIT(0),
};

static void reset_only(struct vcpu *vcpu)
{
	vcpu->msr = reset_msr;
	/* The TSCs of all vCPUs must agree, so that the counter itself is the VM's affair; what the guest added goes.
	 */
	vcpu->tsc_offset -= vcpu->tsc_adjust;
	vcpu->tsc_adjust = 0;
	vcpu->xcr0 = XCR0_X87;
	xstate_reset(vcpu);
}

static void reset_segments(struct vcpu *vcpu)
{
	for (unsigned i = 0; i < SEG_COUNT; i++)
		vcpu->seg[i] = i == SEG_CS ? reset_code : reset_data;
	vcpu->ldtr = reset_ldtr;
	vcpu->tr = reset_tr;
	vcpu->gdtr = vcpu->idtr = reset_table;
}

/* EDX says what the processor is, as CPUID leaf 1 does in EAX. */
static void reset_general(struct vcpu *vcpu)
{
	u32 eax, ebx, ecx, edx;
	cpuid_answer(vcpu, 1, 0, &eax, &ebx, &ecx, &edx);
	__builtin_memset(vcpu->gpr, 0, sizeof(vcpu->gpr));
	vcpu->gpr[RDX] = eax;
	vcpu->rip = vcpu->next_rip = 0xfff0;
	vcpu->rflags = RFLAGS_FIXED1;
	vcpu->cpl = 0;
}

static void reset_control(struct vcpu *vcpu, bool init)
{
	u64 cache = init ? vcpu->cr0 & (CR0_CD | CR0_NW) : CR0_CD | CR0_NW;
	vcpu->cr0 = CR0_ET | cache;
	vcpu->cr2 = vcpu->cr3 = vcpu->cr4 = vcpu->efer = 0;
	__builtin_memset(vcpu->pdpte, 0, sizeof(vcpu->pdpte));
	__builtin_memset(vcpu->dr, 0, sizeof(vcpu->dr));
	vcpu->dr6 = DR6_FIXED1;
	vcpu->dr7 = DR7_FIXED1;
}

static void reset_events(struct vcpu *vcpu)
{
	vcpu->shadow = 0;
	vcpu->nmi_blocked = false;
	vcpu->activity = ACTIVITY_ACTIVE;
	vcpu->delivery.delivering = false;
	vcpu_clear_pending(vcpu, PENDING_NMI | PENDING_TRAP);
}

void cpu_reset(struct vcpu *vcpu, bool init)
{
	if (!init)
		reset_only(vcpu);
	reset_control(vcpu, init);
	reset_segments(vcpu);
	reset_general(vcpu);
	reset_events(vcpu);
	mmu_update_view(vcpu);
	mmu_flush_all(vcpu);
	mmu_load_cr3(vcpu, false);
	debug_update(vcpu);
}
