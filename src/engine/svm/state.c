/* Groups of registers between struct vcpu and the VMCB. Between entries the VMCB holds all that VMRUN, VMLOAD and VMSAVE know.
 * AMD APM volume 2, "VMCB Layout", "Segment State in the VMCB". */
#include "engine/svm/svm.h"

#include "arch/regs.h"

/* ---- segments ---- */

#define ATTR_HIGH 0xf000u /* AVL, L, D/B, G: four bits further down in the VMCB */

static struct segment segment_in(const struct vmcb_segment *s)
{
	u32 attr = (s->attr & 0xffu) | ((u32)s->attr << 4 & ATTR_HIGH);
	return (struct segment){ .selector = s->selector, .attr = attr & SEG_ATTR_P ? attr : attr | SEG_ATTR_UNUSABLE, .limit = s->limit, .base = s->base };
}

static struct vmcb_segment segment_out(const struct segment *s)
{
	u32 attr = s->attr & SEG_ATTR_UNUSABLE ? 0 : (s->attr & 0xffu) | (s->attr & ATTR_HIGH) >> 4;
	return (struct vmcb_segment){ .selector = s->selector, .attr = (u16)attr, .limit = s->limit, .base = s->base };
}

static struct vmcb_segment *segment_of(struct vmcb *b, unsigned number)
{
	struct vmcb_segment *const order[SEG_COUNT] = { &b->es, &b->cs, &b->ss, &b->ds, &b->fs, &b->gs };
	return order[number];
}

static void fetch_segments(struct vcpu *v, struct vmcb *b)
{
	for (unsigned i = 0; i < SEG_COUNT; i++)
		if (i != SEG_CS)
			v->seg[i] = segment_in(segment_of(b, i));
	v->ldtr = segment_in(&b->ldtr);
	v->tr = segment_in(&b->tr);
	v->gdtr = (struct table_register){ b->gdtr.base, (u16)b->gdtr.limit };
	v->idtr = (struct table_register){ b->idtr.base, (u16)b->idtr.limit };
}

static void fetch_code(struct vcpu *v, struct vmcb *b)
{
	v->seg[SEG_CS] = segment_in(&b->cs);
}

static void write_code(struct vcpu *v, struct vmcb *b)
{
	b->cs = segment_out(&v->seg[SEG_CS]);
}

/* CPL is in a field of its own, and in SS.DPL, from where some processors take it. */
static void write_segments(struct vcpu *v, struct vmcb *b)
{
	for (unsigned i = 0; i < SEG_COUNT; i++)
		if (i != SEG_CS)
			*segment_of(b, i) = segment_out(&v->seg[i]);
	b->cpl = v->cpl;
	b->ss.attr = (u16)((b->ss.attr & ~SEG_ATTR_DPL) | (u32)v->cpl << SEG_ATTR_DPL_SHIFT);
	b->ldtr = segment_out(&v->ldtr);
	b->tr = segment_out(&v->tr);
	b->gdtr = (struct vmcb_segment){ .base = v->gdtr.base, .limit = v->gdtr.limit };
	b->idtr = (struct vmcb_segment){ .base = v->idtr.base, .limit = v->idtr.limit };
}

/* ---- control registers ---- */

static struct hw_control control_of(struct vcpu *v)
{
	struct hw_memory *m = hw_of(v)->memory;
	struct hw_control c;
	m->ops->control(m, &c);
	return c;
}

/* Caches work whatever the guest says, and machine checks are the host's. Without nested paging real mode is paged, too: AMD APM volume 2, "Paged Real Mode". */
static u64 real_cr0(const struct vcpu *v, const struct hw_control *c)
{
	return (v->cr0 & ~(CR0_CD | CR0_NW | c->cr0.own)) | c->cr0.value;
}

static u64 real_cr4(const struct vcpu *v, const struct hw_control *c)
{
	return (v->cr4 & ~c->cr4.own) | c->cr4.value | CR4_MCE;
}

static u64 real_efer(const struct vcpu *v, const struct hw_control *c)
{
	return (v->efer & ~c->efer.own) | c->efer.value | EFER_SVME;
}

static bool uses_pdptes(const struct vcpu *v)
{
	return (v->cr0 & CR0_PG) && (v->cr4 & CR4_PAE) && !(v->efer & EFER_LMA);
}

/* With nested paging PDPTEs are read from memory whenever they are needed. Without, CR3 is not the guest's. */
static void fetch_control(struct vcpu *v, struct vmcb *b)
{
	v->cr2 = b->cr2;
	if (!hw_of(v)->memory->ops->nested)
		return;
	v->cr3 = b->cr3;
	if (uses_pdptes(v))
		mmu_load_pdptes(v, v->cr3);
}

static void write_control(struct vcpu *v, struct vmcb *b)
{
	struct hw_control c = control_of(v);
	b->cr0 = real_cr0(v, &c);
	b->cr2 = v->cr2;
	if (hw_of(v)->memory->ops->nested)
		b->cr3 = v->cr3;
	b->cr4 = real_cr4(v, &c);
	b->efer = real_efer(v, &c);
	b->pat = v->msr.pat;
	svm_intercept_reads(b, b->cr0 != v->cr0, b->cr4 != v->cr4);
}

/* ---- MSRs ---- */

static const struct {
	u16 vcpu, vmcb;
} msrs[] = {
#define MSR(mine, its) { offsetof(struct vcpu, msr.mine), offsetof(struct vmcb, its) }
	MSR(star, star), MSR(lstar, lstar), MSR(cstar, cstar), MSR(fmask, sfmask), MSR(kernel_gs_base, kernel_gs_base),
	MSR(sysenter_cs, sysenter_cs), MSR(sysenter_esp, sysenter_esp), MSR(sysenter_eip, sysenter_eip),
#undef MSR
};

static u64 *at(void *p, u16 offset)
{
	return (u64 *)((u8 *)p + offset);
}

static void fetch_msrs(struct vcpu *v, struct vmcb *b)
{
	for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++)
		*at(v, msrs[i].vcpu) = *at(b, msrs[i].vmcb);
}

static void write_msrs(struct vcpu *v, struct vmcb *b)
{
	for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++)
		*at(b, msrs[i].vmcb) = *at(v, msrs[i].vcpu);
}

/* ---- debug registers ---- */

static void fetch_debug(struct vcpu *v, struct vmcb *b)
{
	v->dr6 = b->dr6;
	v->dr7 = b->dr7;
}

static void write_debug(struct vcpu *v, struct vmcb *b)
{
	b->dr6 = v->dr6;
	b->dr7 = v->dr7;
}

/* ---- all ---- */

static const struct {
	u32 clean;
	void (*fetch)(struct vcpu *v, struct vmcb *b);
	void (*write)(struct vcpu *v, struct vmcb *b);
} groups[HW_GROUPS] = {
	/* by the bits of HW_SEGMENTS, HW_CONTROL, HW_MSRS, HW_DEBUG and HW_CODE */
	[0] = { CLEAN_SEGMENTS | CLEAN_TABLES, fetch_segments, write_segments },
	[1] = { CLEAN_CONTROL | CLEAN_CR2 | CLEAN_NESTED, fetch_control, write_control },
	[2] = { 0, fetch_msrs, write_msrs },
	[3] = { CLEAN_DEBUG, fetch_debug, write_debug },
	[5] = { CLEAN_SEGMENTS, fetch_code, write_code },
};

void svm_fetch(struct vcpu *v, u32 wanted)
{
	for (; wanted; wanted &= wanted - 1)
		groups[__builtin_ctz(wanted)].fetch(v, svm_of(v)->vmcb);
}

void svm_write(struct vcpu *v, u32 wanted)
{
	struct vmcb *b = svm_of(v)->vmcb;
	for (; wanted; wanted &= wanted - 1) {
		groups[__builtin_ctz(wanted)].write(v, b);
		b->clean &= ~groups[__builtin_ctz(wanted)].clean;
	}
}
