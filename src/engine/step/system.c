/* Sensitive instructions. What they mean is written in cpu/; here their operands are fetched and their privilege checked where the rule is the
 * instruction's own. Intel SDM volume 2, the instruction's page. */
#include "cpu/control.h"
#include "cpu/event.h"
#include "cpu/transfer.h"
#include "cpu/xstate.h"
#include "engine/step/handlers.h"
#include "engine/step/memory.h"
#include "engine/step/x87.h"

static bool require_cpl0(struct vcpu *vcpu)
{
	return vcpu->cpl == 0 || vcpu_raise_gp(vcpu, 0);
}

/* Instructions on selectors do not exist in real and V86 mode. */
static bool require_protected(struct vcpu *vcpu)
{
	return !vcpu_real_or_v86(vcpu) || vcpu_raise_ud(vcpu);
}

static bool umip_allows(struct vcpu *vcpu)
{
	return !(vcpu->cr4 & CR4_UMIP) || vcpu->cpl == 0 || vcpu_raise_gp(vcpu, 0);
}

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
	vector_sync(vcpu);
	return transfer_syscall(vcpu);
}

int op_sysret(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return transfer_sysret(vcpu, op->flags & OP_REX_W);
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

static void set_edx_eax(struct vcpu *vcpu, u64 value)
{
	vcpu->gpr[RAX] = (u32)value;
	vcpu->gpr[RDX] = value >> 32;
}

static u64 get_edx_eax(const struct vcpu *vcpu)
{
	return vcpu->gpr[RDX] << 32 | (u32)vcpu->gpr[RAX];
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

static unsigned word_size(const struct op *op)
{
	return op->flags & OP_LONG ? 8 : 4;
}

int op_mov_from_cr(struct vcpu *vcpu, const struct op *op)
{
	u64 value;
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

/* ---- descriptor tables ---- */

static int load_table(struct vcpu *vcpu, const struct op *op, struct table_register *table)
{
	u8 bytes[10] = { 0 };
	unsigned base_size = word_size(op);
	struct table_register loaded = { 0 };
	if (!require_cpl0(vcpu) ||
	    !memory_read_slow(vcpu, op->segment, op_address(vcpu, op), bytes, 2 + base_size))
		return OP_FAULT;
	__builtin_memcpy(&loaded.limit, bytes, 2);
	loaded.base = load_sized(bytes + 2, base_size);
	if (op->size == 2)
		loaded.base &= 0xffffff;
	if (base_size == 8 && !is_canonical(loaded.base, vcpu_linear_bits(vcpu)))
		return vcpu_raise_gp(vcpu, 0);
	*table = loaded;
	return OP_DONE;
}

static int store_table(struct vcpu *vcpu, const struct op *op, const struct table_register *table)
{
	u8 bytes[10];
	if (!umip_allows(vcpu))
		return OP_FAULT;
	__builtin_memcpy(bytes, &table->limit, 2);
	__builtin_memcpy(bytes + 2, &table->base, 8);
	return memory_write_slow(vcpu, op->segment, op_address(vcpu, op), bytes, 2 + word_size(op));
}

int op_lgdt(struct vcpu *vcpu, const struct op *op)
{
	return load_table(vcpu, op, &vcpu->gdtr);
}

int op_lidt(struct vcpu *vcpu, const struct op *op)
{
	return load_table(vcpu, op, &vcpu->idtr);
}

int op_sgdt(struct vcpu *vcpu, const struct op *op)
{
	return store_table(vcpu, op, &vcpu->gdtr);
}

int op_sidt(struct vcpu *vcpu, const struct op *op)
{
	return store_table(vcpu, op, &vcpu->idtr);
}

int op_lldt(struct vcpu *vcpu, const struct op *op)
{
	u64 selector;
	vector_sync(vcpu);
	return require_protected(vcpu) && require_cpl0(vcpu) && rm_read(vcpu, op, 2, &selector) &&
	       segment_load_ldt(vcpu, (u16)selector);
}

int op_ltr(struct vcpu *vcpu, const struct op *op)
{
	u64 selector;
	vector_sync(vcpu);
	return require_protected(vcpu) && require_cpl0(vcpu) && rm_read(vcpu, op, 2, &selector) &&
	       segment_load_tr(vcpu, (u16)selector);
}

static int store_selector(struct vcpu *vcpu, const struct op *op, u16 selector)
{
	return rm_write(vcpu, op, op->flags & OP_REGISTER ? op->size : 2, selector);
}

int op_sldt(struct vcpu *vcpu, const struct op *op)
{
	return require_protected(vcpu) && umip_allows(vcpu) && store_selector(vcpu, op, vcpu->ldtr.selector);
}

int op_str(struct vcpu *vcpu, const struct op *op)
{
	return require_protected(vcpu) && umip_allows(vcpu) && store_selector(vcpu, op, vcpu->tr.selector);
}

static void set_zf(struct vcpu *vcpu, bool zf)
{
	vcpu->rflags = zf ? vcpu->rflags | RFLAGS_ZF : vcpu->rflags & ~RFLAGS_ZF;
}

typedef bool (*selector_query)(struct vcpu *vcpu, u16 selector, u32 *value, bool *ok);

static int query(struct vcpu *vcpu, const struct op *op, selector_query ask)
{
	u64 selector;
	u32 value;
	bool ok;
	vector_sync(vcpu);
	if (!require_protected(vcpu) || !rm_read(vcpu, op, 2, &selector) || !ask(vcpu, (u16)selector, &value, &ok))
		return OP_FAULT;
	set_zf(vcpu, ok);
	if (ok)
		reg_set(vcpu, op->reg, op->size, value);
	return OP_DONE;
}

int op_lar(struct vcpu *vcpu, const struct op *op)
{
	return query(vcpu, op, segment_lar);
}

int op_lsl(struct vcpu *vcpu, const struct op *op)
{
	return query(vcpu, op, segment_lsl);
}

static int verify(struct vcpu *vcpu, const struct op *op, bool write)
{
	u64 selector;
	bool ok;
	vector_sync(vcpu);
	if (!require_protected(vcpu) || !rm_read(vcpu, op, 2, &selector) ||
	    !segment_verify(vcpu, (u16)selector, write, &ok))
		return OP_FAULT;
	set_zf(vcpu, ok);
	return OP_DONE;
}

int op_verr(struct vcpu *vcpu, const struct op *op)
{
	return verify(vcpu, op, false);
}

int op_verw(struct vcpu *vcpu, const struct op *op)
{
	return verify(vcpu, op, true);
}

/* ---- segment registers and bases ---- */

int op_mov_from_segment(struct vcpu *vcpu, const struct op *op)
{
	return store_selector(vcpu, op, vcpu->seg[op->number].selector);
}

int op_mov_to_segment(struct vcpu *vcpu, const struct op *op)
{
	u64 selector;
	vector_sync(vcpu);
	if (op->number == SEG_CS || op->number >= SEG_COUNT)
		return vcpu_raise_ud(vcpu);
	if (!rm_read(vcpu, op, 2, &selector) ||
	    !segment_load(vcpu, (enum segment_register)op->number, (u16)selector))
		return OP_FAULT;
	if (op->number == SEG_SS)
		vcpu->shadow |= SHADOW_MOV_SS;
	return OP_DONE;
}

int op_swapgs(struct vcpu *vcpu, const struct op *op)
{
	if (!(op->flags & OP_LONG))
		return vcpu_raise_ud(vcpu);
	if (!require_cpl0(vcpu))
		return OP_FAULT;
	u64 base = vcpu->seg[SEG_GS].base;
	vcpu->seg[SEG_GS].base = vcpu->msr.kernel_gs_base;
	vcpu->msr.kernel_gs_base = base;
	return OP_DONE;
}

static bool fsgsbase_allowed(struct vcpu *vcpu, const struct op *op)
{
	return ((op->flags & OP_LONG) && (vcpu->cr4 & CR4_FSGSBASE)) || vcpu_raise_ud(vcpu);
}

int op_rdsegbase(struct vcpu *vcpu, const struct op *op)
{
	if (!fsgsbase_allowed(vcpu, op))
		return OP_FAULT;
	reg_set(vcpu, op->base, op->size, vcpu->seg[op->number].base);
	return OP_DONE;
}

int op_wrsegbase(struct vcpu *vcpu, const struct op *op)
{
	if (!fsgsbase_allowed(vcpu, op))
		return OP_FAULT;
	u64 base = reg_get(vcpu, op->base, op->size);
	if (!is_canonical(base, vcpu_linear_bits(vcpu)))
		return vcpu_raise_gp(vcpu, 0);
	vcpu->seg[op->number].base = base;
	return OP_DONE;
}

/* ---- extended state ---- */

static bool state_address(struct vcpu *vcpu, const struct op *op, unsigned kind, gla_t *gla)
{
	vector_sync(vcpu);
	return segment_linear(vcpu, (enum segment_register)op->segment, op_address(vcpu, op), 1, kind, gla);
}

/* number: enum xsave_kind. */
int op_xsave(struct vcpu *vcpu, const struct op *op)
{
	gla_t gla;
	return state_address(vcpu, op, ACCESS_WRITE, &gla) &&
	       xstate_save(vcpu, (enum xsave_kind)op->number, gla, get_edx_eax(vcpu), op->flags & OP_REX_W);
}

int op_xrstor(struct vcpu *vcpu, const struct op *op)
{
	gla_t gla;
	if (!state_address(vcpu, op, ACCESS_READ, &gla) ||
	    !xstate_restore(vcpu, op->number == XSAVE_SUPERVISOR, gla, get_edx_eax(vcpu), op->flags & OP_REX_W))
		return OP_FAULT;
	x87_reload(vcpu, step_of(vcpu));
	return OP_DONE;
}

int op_fxsave(struct vcpu *vcpu, const struct op *op)
{
	gla_t gla;
	return state_address(vcpu, op, ACCESS_WRITE, &gla) && xstate_fxsave(vcpu, gla, op->flags & OP_REX_W);
}

int op_fxrstor(struct vcpu *vcpu, const struct op *op)
{
	gla_t gla;
	if (!state_address(vcpu, op, ACCESS_READ, &gla) || !xstate_fxrstor(vcpu, gla, op->flags & OP_REX_W))
		return OP_FAULT;
	x87_reload(vcpu, step_of(vcpu));
	return OP_DONE;
}

static bool mxcsr_allowed(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return xstate_check(vcpu, op->xstate == XSTATE_AVX ? XSTATE_AVX : XSTATE_SSE);
}

int op_ldmxcsr(struct vcpu *vcpu, const struct op *op)
{
	u64 value;
	return mxcsr_allowed(vcpu, op) && op_read(vcpu, op, 4, &value) && xstate_ldmxcsr(vcpu, (u32)value);
}

int op_stmxcsr(struct vcpu *vcpu, const struct op *op)
{
	u32 value;
	return mxcsr_allowed(vcpu, op) && xstate_stmxcsr(vcpu, &value) && op_write(vcpu, op, 4, value);
}
