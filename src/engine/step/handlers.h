/* The handlers of operations, by file. Each is an op_fn (state.h). */
#ifndef NADIR_ENGINE_STEP_HANDLERS_H
#define NADIR_ENGINE_STEP_HANDLERS_H

#include "engine/step/state.h"

/* native.c: innocuous instructions by snippet. Chosen by operand form. */
int op_native_register(struct vcpu *vcpu, const struct op *op);
int op_native_read(struct vcpu *vcpu, const struct op *op);
int op_native_write(struct vcpu *vcpu, const struct op *op);
int op_native_vector(struct vcpu *vcpu, const struct op *op); /* registers only */
int op_native_vector_memory(struct vcpu *vcpu, const struct op *op);
int op_bit_memory(struct vcpu *vcpu, const struct op *op);
/* The common path of an operand at `gva`: native execution on RAM or on a bounce buffer. */
int native_memory_at(struct vcpu *vcpu, const struct op *op, gva_t gva);

/* move.c. The MOV family comes in one function a size. */
op_fn op_mov_handler(const struct insn *insn, struct op *op);
op_fn op_extend_handler(const struct insn *insn, struct op *op);

/* branch.c */
op_fn op_jcc_handler(unsigned condition);

/* clang-format off */
#define OP_HANDLERS(X) \
	X(lea) X(nop) X(push_reg) X(push_imm) X(push_mem) X(push_segment) X(pop_reg) X(pop_mem) \
	X(pop_segment) X(enter) X(xlat) X(lahf) X(sahf) X(clc) X(stc) X(cmc) X(cld) X(std) X(clflush) \
	X(pusha) X(popa) X(call_rel) X(call_near) X(call_far) X(call_far_mem) X(ret_near) X(ret_far) \
	X(jmp_rel) X(jmp_near) X(jmp_far_mem) X(jcxz) X(loop) X(int) X(int3) X(int1) X(into) X(iret) \
	X(syscall) X(sysret) X(sysenter) X(sysexit) X(pushf) X(popf) X(cli) X(sti) X(clac) X(stac) X(movs) \
	X(lods) X(cmps) X(scas) X(ins) X(outs) X(in) X(out) X(aaa) X(aas) X(aad) X(aam) X(daa) X(das) \
	X(salc) X(bound) X(arpl) X(load_far) X(hlt) X(pause) X(cpuid) X(rdtscp) X(rdpmc) X(rdpid) X(rdmsr) \
	X(wrmsr) X(xgetbv) X(xsetbv) X(lgdt) X(lidt) X(sgdt) X(sidt) X(lldt) X(sldt) X(ltr) X(lmsw) X(smsw) \
	X(lar) X(lsl) X(verr) X(verw) X(clts) X(invlpg) X(invpcid) X(wbinvd) X(swapgs) X(rdsegbase) \
	X(wrsegbase) X(hypercall) X(xsave) X(xrstor) X(fxsave) X(fxrstor) X(ldmxcsr) X(stmxcsr) \
	X(mov_from_cr) X(mov_to_cr) X(mov_to_dr) X(mov_from_segment) X(mov_to_segment) \
	X(movdir64b) X(clzero) X(masked) X(scatter) X(vzero) X(x87_store) X(x87_load) \
	X(gather) X(jmp_far) X(leave) X(mov_from_dr) X(rdtsc) X(stos) X(str) X(x87_init)
/* clang-format on */

#define X(name) int op_##name(struct vcpu *vcpu, const struct op *op);
OP_HANDLERS(X)
#undef X

#endif
