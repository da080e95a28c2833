/* Sensitive instructions. What they mean is written in cpu/; here their operands are fetched and their privilege
 * checked where the rule is the instruction's own. Descriptor tables and segments are in selector.c, extended state in
 * extended.c. Intel SDM volume 2, the instruction's page. */
#include "engine/step/system.h"
#include "cpu/control.h"
#include "cpu/event.h"
#include "cpu/transfer.h"
#include "engine/step/handlers.h"

/* ---- events ---- */

int op_int(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return event_software_interrupt(vcpu, (u8)op->imm, EVENT_SOFTWARE);
}

int op_int3(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return event_software_interrupt(vcpu, VEC_BP, EVENT_SOFTWARE_EXCEPTION);
}

int op_int1(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return event_software_interrupt(vcpu, VEC_DB, EVENT_PRIVILEGED_SOFTWARE);
}

int op_into(struct vcpu *vcpu, const struct op *op)
{
	if (!(vcpu->rflags & RFLAGS_OF))
		return OP_DONE;
	vector_sync(vcpu);
	return event_software_interrupt(vcpu, VEC_OF, EVENT_SOFTWARE_EXCEPTION);
}

int op_iret(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return event_iret(vcpu, op->size);
}

int op_syscall(struct vcpu *vcpu, const struct op *op)
{
	return transfer_syscall(vcpu);
}

int op_sysret(struct vcpu *vcpu, const struct op *op)
{
	/* Unlike IRET's, the TF that it loads traps at once, before the first instruction: as if SYSCALL had been stepped. That of before does
	 * not count. */
	bool done = transfer_sysret(vcpu, op->flags & OP_REX_W);
	if (done && unlikely(vcpu->rflags & RFLAGS_TF))
		step_raise_single_step(vcpu);
	return done;
}

int op_sysenter(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return transfer_sysenter(vcpu);
}

int op_sysexit(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return transfer_sysexit(vcpu, op->flags & OP_REX_W);
}

/* ---- flags ---- */

int op_pushf(struct vcpu *vcpu, const struct op *op)
{
	u64 value;
	return control_pushf(vcpu, op->size, &value) && stack_push(vcpu, op, value, op->size);
}

int op_popf(struct vcpu *vcpu, const struct op *op)
{
	u64 value, rsp = vcpu->gpr[RSP];
	if (vcpu_v86(vcpu) && vcpu_iopl(vcpu) < 3 && (op->size != 2 || !(vcpu->cr4 & CR4_VME)))
		return vcpu_raise_gp(vcpu, 0);
	if (!stack_pop(vcpu, op, &value, op->size))
		return OP_FAULT;
	if (control_popf(vcpu, value, op->size))
		return OP_DONE;
	vcpu->gpr[RSP] = rsp;
	return OP_FAULT;
}

int op_cli(struct vcpu *vcpu, const struct op *op)
{
	return control_cli(vcpu);
}

int op_sti(struct vcpu *vcpu, const struct op *op)
{
	return control_sti(vcpu);
}

static int set_ac(struct vcpu *vcpu, bool ac)
{
	if (vcpu->cpl)
		return vcpu_raise_ud(vcpu);
	vcpu->rflags = ac ? vcpu->rflags | RFLAGS_AC : vcpu->rflags & ~RFLAGS_AC;
	mmu_update_view(vcpu);
	return OP_DONE;
}

int op_clac(struct vcpu *vcpu, const struct op *op)
{
	return set_ac(vcpu, false);
}

int op_stac(struct vcpu *vcpu, const struct op *op)
{
	return set_ac(vcpu, true);
}

/* ---- the vCPU's own time and identity ---- */

int op_hlt(struct vcpu *vcpu, const struct op *op)
{
	if (!require_cpl0(vcpu))
		return OP_FAULT;
	vcpu->activity = ACTIVITY_HLT;
	step_of(vcpu)->exit->reason = EXIT_HLT;
	return OP_LEAVE;
}

#define PAUSES_BEFORE_YIELD 64

int op_pause(struct vcpu *vcpu, const struct op *op)
{
	struct step *step = step_of(vcpu);
	if (++step->pause_count % PAUSES_BEFORE_YIELD == 0) {
		vector_sync(vcpu);
		host_yield();
	}
	return OP_DONE;
}

int op_cpuid(struct vcpu *vcpu, const struct op *op)
{
	struct exit exit = { .reason = EXIT_CPUID,
			     .cpuid = { .leaf = (u32)vcpu->gpr[RAX], .subleaf = (u32)vcpu->gpr[RCX] } };
	vector_sync(vcpu);
	vcpu->ops->exit(vcpu, &exit);
	vcpu->gpr[RAX] = exit.cpuid.eax;
	vcpu->gpr[RBX] = exit.cpuid.ebx;
	vcpu->gpr[RCX] = exit.cpuid.ecx;
	vcpu->gpr[RDX] = exit.cpuid.edx;
	return OP_DONE;
}

static bool read_tsc(struct vcpu *vcpu, u64 *tsc)
{
	if ((vcpu->cr4 & CR4_TSD) && vcpu->cpl)
		return vcpu_raise_gp(vcpu, 0);
	*tsc = __builtin_ia32_rdtsc() + vcpu->tsc_offset;
	return true;
}

int op_rdtsc(struct vcpu *vcpu, const struct op *op)
{
	u64 tsc;
	if (!read_tsc(vcpu, &tsc))
		return OP_FAULT;
	set_edx_eax(vcpu, tsc);
	return OP_DONE;
}

int op_rdtscp(struct vcpu *vcpu, const struct op *op)
{
	if (!op_rdtsc(vcpu, op))
		return OP_FAULT;
	vcpu->gpr[RCX] = (u32)vcpu->msr.tsc_aux;
	return OP_DONE;
}

/* No performance counters are shown, so that every index is beyond the last. */
int op_rdpmc(struct vcpu *vcpu, const struct op *op)
{
	return vcpu_raise_gp(vcpu, 0);
}

int op_rdpid(struct vcpu *vcpu, const struct op *op)
{
	reg_set(vcpu, op->base, op->flags & OP_LONG ? 8 : 4, vcpu->msr.tsc_aux);
	return OP_DONE;
}

static int access_msr(struct vcpu *vcpu, enum exit_reason reason, u64 *value)
{
	struct exit exit = { .reason = reason, .msr = { .index = (u32)vcpu->gpr[RCX], .value = *value } };
	if (!require_cpl0(vcpu))
		return OP_FAULT;
	vector_sync(vcpu);
	vcpu->ops->exit(vcpu, &exit);
	if (exit.msr.fault)
		return vcpu_raise_gp(vcpu, 0);
	*value = exit.msr.value;
	return OP_DONE;
}

int op_rdmsr(struct vcpu *vcpu, const struct op *op)
{
	u64 value = 0;
	if (!access_msr(vcpu, EXIT_RDMSR, &value))
		return OP_FAULT;
	set_edx_eax(vcpu, value);
	return OP_DONE;
}

int op_wrmsr(struct vcpu *vcpu, const struct op *op)
{
	u64 value = get_edx_eax(vcpu);
	return access_msr(vcpu, EXIT_WRMSR, &value);
}

/* VMCALL and VMMCALL: a guest under a hypervisor may use either vendor's. */
int op_hypercall(struct vcpu *vcpu, const struct op *op)
{
	if (!cpuid_has(vcpu->cpuid, FEATURE_HYPERVISOR))
		return vcpu_raise_ud(vcpu);
	u64 mask = size_mask(op->flags & OP_LONG ? 8 : 4);
	struct exit exit = { .reason = EXIT_HYPERCALL,
			     .hypercall = { .number = vcpu->gpr[RAX] & mask,
					    .args = { vcpu->gpr[RBX] & mask, vcpu->gpr[RCX] & mask,
						      vcpu->gpr[RDX] & mask, vcpu->gpr[RSI] & mask } } };
	vector_sync(vcpu);
	vcpu->ops->exit(vcpu, &exit);
	gpr_set(vcpu, RAX, op->flags & OP_LONG ? 8 : 4, exit.hypercall.result);
	return OP_DONE;
}

/* ---- control and debug registers ---- */

/* The task priority is asked of the VM. */
int op_mov_from_cr(struct vcpu *vcpu, const struct op *op)
{
	u64 value;
	if (op->number == 8)
		vector_sync(vcpu);
	if (!control_read_cr(vcpu, op->number, &value))
		return OP_FAULT;
	gpr_set(vcpu, op->rm, word_size(op), value);
	return OP_DONE;
}

int op_mov_to_cr(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return control_write_cr(vcpu, op->number, gpr_get(vcpu, op->rm, word_size(op)));
}

int op_mov_from_dr(struct vcpu *vcpu, const struct op *op)
{
	u64 value;
	if (!control_read_dr(vcpu, op->number, &value))
		return OP_FAULT;
	gpr_set(vcpu, op->rm, word_size(op), value);
	return OP_DONE;
}

int op_mov_to_dr(struct vcpu *vcpu, const struct op *op)
{
	return control_write_dr(vcpu, op->number, gpr_get(vcpu, op->rm, word_size(op)));
}

int op_lmsw(struct vcpu *vcpu, const struct op *op)
{
	u64 value;
	vector_sync(vcpu);
	return require_cpl0(vcpu) && rm_read(vcpu, op, 2, &value) && control_lmsw(vcpu, (u16)value);
}

int op_smsw(struct vcpu *vcpu, const struct op *op)
{
	u64 value;
	return control_smsw(vcpu, &value) && rm_write(vcpu, op, op->flags & OP_REGISTER ? op->size : 2, value);
}

int op_clts(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return control_clts(vcpu);
}

int op_xgetbv(struct vcpu *vcpu, const struct op *op)
{
	u64 value;
	vector_sync(vcpu);
	if (!control_xgetbv(vcpu, (u32)vcpu->gpr[RCX], &value))
		return OP_FAULT;
	set_edx_eax(vcpu, value);
	return OP_DONE;
}

int op_xsetbv(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return control_xsetbv(vcpu, (u32)vcpu->gpr[RCX], get_edx_eax(vcpu));
}

/* ---- TLB and caches ---- */

int op_invlpg(struct vcpu *vcpu, const struct op *op)
{
	if (!require_cpl0(vcpu))
		return OP_FAULT;
	gla_t gla = op_address(vcpu, op);
	gla += op->flags & OP_LONG ? *vcpu_u64(vcpu, op->segment_base) : vcpu->seg[op->segment].base;
	mmu_flush_page(vcpu, op->flags & OP_LONG ? gla : (u32)gla);
	return OP_DONE;
}

int op_invpcid(struct vcpu *vcpu, const struct op *op)
{
	u64 descriptor[2];
	u64 type = reg_get(vcpu, op->reg, word_size(op));
	if (vcpu_v86(vcpu) || !require_cpl0(vcpu))
		return vcpu_raise_gp(vcpu, 0);
	if (!memory_read_slow(vcpu, op->segment, op_address(vcpu, op), descriptor, sizeof(descriptor)))
		return OP_FAULT;
	bool no_pcid = !(vcpu->cr4 & CR4_PCIDE);
	if (type > 3 || descriptor[0] > CR3_PCID_MASK || (type < 2 && no_pcid && descriptor[0]) ||
	    (type == 0 && !is_canonical(descriptor[1], vcpu_linear_bits(vcpu))))
		return vcpu_raise_gp(vcpu, 0);
	mmu_invpcid(vcpu, (unsigned)type, (u16)descriptor[0], descriptor[1]);
	return OP_DONE;
}

int op_wbinvd(struct vcpu *vcpu, const struct op *op)
{
	return require_cpl0(vcpu);
}
