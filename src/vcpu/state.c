/* What of a vCPU is state, at an instruction boundary with its engine not running. Pending events are saved by the owner (vm/state.c): most bits of
 * `pending` say that somebody must look, not what there is. A debugger's points are the debugger's. */
#include "vcpu/vcpu.h"

static const struct state_table segment_state = STATE_TABLE(struct segment, NULL,
	STATE(struct segment, selector), STATE(struct segment, attr), STATE(struct segment, limit), STATE(struct segment, base));

static const struct state_table x87_state = STATE_TABLE(struct x87_pointers, NULL,
	STATE(struct x87_pointers, ip), STATE(struct x87_pointers, dp), STATE(struct x87_pointers, op), STATE(struct x87_pointers, cs),
	STATE(struct x87_pointers, ds));

static const struct state_table table_register_state = STATE_TABLE(struct table_register, NULL,
	STATE(struct table_register, base), STATE(struct table_register, limit));

static const struct state_table fault_state = STATE_TABLE(struct guest_fault, NULL,
	STATE_MAX(struct guest_fault, vector, 31), STATE(struct guest_fault, has_error), STATE(struct guest_fault, error),
	STATE(struct guest_fault, payload));

static const struct state_table msr_fields = STATE_TABLE(struct msr_state, NULL,
	STATE(struct msr_state, star), STATE(struct msr_state, lstar), STATE(struct msr_state, cstar), STATE(struct msr_state, fmask),
	STATE(struct msr_state, kernel_gs_base), STATE(struct msr_state, sysenter_cs), STATE(struct msr_state, sysenter_esp),
	STATE(struct msr_state, sysenter_eip), STATE(struct msr_state, tsc_aux), STATE(struct msr_state, pat),
	STATE(struct msr_state, mtrr_def_type), STATE(struct msr_state, mtrr_physbase), STATE(struct msr_state, mtrr_physmask),
	STATE(struct msr_state, mtrr_fixed), STATE(struct msr_state, misc_enable), STATE(struct msr_state, debugctl),
	STATE(struct msr_state, spec_ctrl), STATE(struct msr_state, xss), STATE(struct msr_state, mcg_status),
	STATE(struct msr_state, kvm_wall_clock), STATE(struct msr_state, kvm_system_time),
	STATE(struct msr_state, kvm_steal_time), STATE(struct msr_state, kvm_pv_eoi));

const struct state_table vcpu_state = STATE_TABLE(struct vcpu, NULL,
	STATE(struct vcpu, gpr), STATE(struct vcpu, rip), STATE(struct vcpu, rflags), STATE_NONE(struct vcpu, next_rip),
	STATE_NONE(struct vcpu, pending), STATE_NONE(struct vcpu, code_number), STATE_NONE(struct vcpu, jump_salt),
	STATE_MAX(struct vcpu, cpl, 3), STATE_MAX(struct vcpu, shadow, SHADOW_STI | SHADOW_MOV_SS), STATE(struct vcpu, nmi_blocked),
	STATE_MAX(struct vcpu, activity, ACTIVITY_WAIT_SIPI), STATE_NONE(struct vcpu, host_rsp), STATE_NONE(struct vcpu, scratch),
	STATE_NONE(struct vcpu, tlb), STATE_NONE(struct vcpu, code_base), STATE_NONE(struct vcpu, jump_cache),
	STATE_NONE(struct vcpu, return_base), STATE_NONE(struct vcpu, return_limit), STATE_NONE(struct vcpu, self),
	STATE_NONE(struct vcpu, deferred), STATE_NONE(struct vcpu, segment_end), STATE_NONE(struct vcpu, flags_image), STATE_NONE(struct vcpu, flags_operand),
	STATE_IN(struct vcpu, x87, x87_state), STATE_NONE(struct vcpu, vector_ready), STATE_IN(struct vcpu, seg, segment_state),
	STATE_IN(struct vcpu, ldtr, segment_state), STATE_IN(struct vcpu, tr, segment_state),
	STATE_IN(struct vcpu, gdtr, table_register_state), STATE_IN(struct vcpu, idtr, table_register_state), STATE(struct vcpu, cr0),
	STATE(struct vcpu, cr2), STATE(struct vcpu, cr3), STATE(struct vcpu, cr4), STATE(struct vcpu, efer), STATE(struct vcpu, xcr0),
	STATE(struct vcpu, dr), STATE(struct vcpu, dr6), STATE(struct vcpu, dr7), STATE(struct vcpu, pdpte),
	STATE(struct vcpu, tsc_offset), STATE(struct vcpu, tsc_adjust), STATE_IN(struct vcpu, msr, msr_fields),
	STATE_NONE(struct vcpu, fault), STATE_IN(struct vcpu, trap, fault_state), STATE_NONE(struct vcpu, delivery),
	STATE_NONE(struct vcpu, debug), STATE_SAME(struct vcpu, cr0_valid), STATE_SAME(struct vcpu, cr4_valid),
	STATE_SAME(struct vcpu, efer_valid), STATE_SAME(struct vcpu, xcr0_valid), STATE_SAME(struct vcpu, linear_bits),
	STATE_SAME(struct vcpu, physical_bits), STATE_SAME(struct vcpu, pages_1g), STATE_NONE(struct vcpu, cpuid), STATE_NONE(struct vcpu, cpuid_word),
	STATE_NONE(struct vcpu, ops), STATE_NONE(struct vcpu, engine), STATE_NONE(struct vcpu, engine_state),
	STATE_NONE(struct vcpu, mmu), STATE_NONE(struct vcpu, ram), STATE_NONE(struct vcpu, lapic), STATE_NONE(struct vcpu, posted), STATE_NONE(struct vcpu, vm), STATE_SAME(struct vcpu, index),
	STATE_NONE(struct vcpu, direct), STATE_NONE(struct vcpu, mmu_mode), STATE_NONE(struct vcpu, without), STATE_NONE(struct vcpu, trace), STATE_NONE(struct vcpu, stop), STATE_NONE(struct vcpu, kvm), STATE(struct vcpu, xsave));
