/* x87, SSE and extended state. The image in vcpu->xsave is in XSAVE's standard format, complete (XSTATE_BV may have bits clear:
 * init state), in the layout of the host's CPUID leaf 0xd, which is also the guest's. Guest XSAVE-family instructions work on the image,
 * so that they need no real register contents. Intel SDM volume 1, "Managing State Using the XSAVE Feature Set"; FXSAVE, FXRSTOR. */
#ifndef NADIR_CPU_XSTATE_H
#define NADIR_CPU_XSTATE_H

#include "vcpu/vcpu.h"

/* Components the host has that nadir gives to guests (x87, SSE, AVX, AVX-512), read once from the host's CPUID. */
u64 xstate_host_mask(void);
/* Offset and size of component `index` (2...) in the standard format. */
void xstate_component(unsigned index, u32 *offset, u32 *size);
/* Whether two vCPUs of one policy have the same state in their images. */
bool xstate_same(struct vcpu *a, struct vcpu *b);
/* Whether the host's XRSTOR takes the image. */
bool xstate_possible(const struct vcpu *vcpu);
void xstate_reset(struct vcpu *vcpu);

/* For a debugger, of a vCPU that does not run. */
struct fxsave_area;
/* The bytes of component `index` (1 or higher) in the image, initial values written out; and before the engine goes on, if they were changed: it is in
 * use. */
u8 *xstate_data(struct vcpu *vcpu, unsigned index);
void xstate_use(struct vcpu *vcpu, unsigned index);
/* What belongs to the x87: all but mxcsr and xmm. Writing drops what the hardware would not keep. */
void xstate_read_x87(struct vcpu *vcpu, struct fxsave_area *area);
void xstate_write_x87(struct vcpu *vcpu, const struct fxsave_area *area);
u32 xstate_mxcsr(const struct vcpu *vcpu);
bool xstate_set_mxcsr(struct vcpu *vcpu, u32 value); /* false: reserved bits */

enum xsave_kind { XSAVE_PLAIN, XSAVE_OPT, XSAVE_COMPACT, XSAVE_SUPERVISOR };
/* XSAVE, XSAVEOPT, XSAVEC, XSAVES to, and XRSTOR, XRSTORS from, linear address gla; mask is EDX:EAX. Every check (CR4.OSXSAVE, CR0.TS,
 * alignment, header) and fault is here; CPL for the supervisor forms too. */
bool xstate_save(struct vcpu *vcpu, enum xsave_kind kind, gla_t gla, u64 mask, bool rex_w);
bool xstate_restore(struct vcpu *vcpu, bool supervisor, gla_t gla, u64 mask, bool rex_w);
bool xstate_fxsave(struct vcpu *vcpu, gla_t gla, bool rex_w);
bool xstate_fxrstor(struct vcpu *vcpu, gla_t gla, bool rex_w);
bool xstate_ldmxcsr(struct vcpu *vcpu, u32 value);
bool xstate_stmxcsr(struct vcpu *vcpu, u32 *value);

/* Whether x87/MMX, SSE or AVX instructions may run now: CR0.EM/TS/MP, CR4.OSFXSR, CR4.OSXSAVE and XCR0.
 * False: #UD or #NM in vcpu->fault. */
enum xstate_class { XSTATE_X87, XSTATE_MMX, XSTATE_SSE, XSTATE_AVX, XSTATE_AVX512, XSTATE_FWAIT };
bool xstate_check(struct vcpu *vcpu, enum xstate_class class);

#endif
