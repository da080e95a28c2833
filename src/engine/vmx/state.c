/* Groups of registers between struct vcpu and the VMCS. Intel SDM volume 3, "Guest-State Area". */
#include "engine/vmx/vmx.h"

#include "arch/regs.h"
#include "arch/segment.h"

/* ---- segments ---- */

/* The processor demands accessed segments, and a G that fits the limit. Only SS.DPL counts in an unusable one: it is CPL. */
static u32 rights_out(const struct segment *s)
{
	if (s->attr & SEG_ATTR_UNUSABLE)
		return SEG_ATTR_UNUSABLE;
	u32 rights = s->attr & 0xf0ff;
	if (rights & SEG_ATTR_S)
		rights |= SEG_ATTR_ACCESSED;
	if (s->limit >> 20)
		return rights | SEG_ATTR_G;
	return (s->limit & 0xfff) == 0xfff ? rights : rights & ~SEG_ATTR_G;
}

static void write_segment(unsigned n, const struct segment *s, u32 rights)
{
	vmwrite(VMCS_SEGMENT(VMCS_GUEST_ES, n), s->selector);
	vmwrite(VMCS_SEGMENT(VMCS_GUEST_ES_BASE, n), s->base);
	vmwrite(VMCS_SEGMENT(VMCS_GUEST_ES_LIMIT, n), s->limit);
	vmwrite(VMCS_SEGMENT(VMCS_GUEST_ES_RIGHTS, n), rights);
}

static struct segment fetch_segment(unsigned n)
{
	u32 rights = (u32)vmread(VMCS_SEGMENT(VMCS_GUEST_ES_RIGHTS, n));
	return (struct segment){ .selector = (u16)vmread(VMCS_SEGMENT(VMCS_GUEST_ES, n)),
				 .attr = rights & (0xf0ff | SEG_ATTR_UNUSABLE),
				 .limit = (u32)vmread(VMCS_SEGMENT(VMCS_GUEST_ES_LIMIT, n)),
				 .base = vmread(VMCS_SEGMENT(VMCS_GUEST_ES_BASE, n)) };
}

/* TR must be a busy TSS, which a guest that has just been reset or loaded need not have. */
static void write_tr(struct vcpu *v, struct vmx_vcpu *x)
{
	unsigned type = v->tr.attr & SEG_ATTR_TYPE;
	bool busy = type == SYS_TSS_BUSY || (type == SYS_TSS16_BUSY && !(v->efer & EFER_LMA));
	static const struct segment made_up = { .limit = 0x67, .attr = SYS_TSS_BUSY | SEG_ATTR_P };
	x->tr_made_up = !busy || (v->tr.attr & (SEG_ATTR_UNUSABLE | SEG_ATTR_S)) || !(v->tr.attr & SEG_ATTR_P);
	const struct segment *tr = x->tr_made_up ? &made_up : &v->tr;
	write_segment(VMCS_SEG_TR, tr, rights_out(tr));
}

static void write_segments(struct vcpu *v, struct vmx_vcpu *x)
{
	for (unsigned i = 0; i < SEG_COUNT; i++) {
		u32 rights = rights_out(&v->seg[i]);
		if (i == SEG_CS)
			continue;
		if (i == SEG_SS)
			rights = (rights & ~SEG_ATTR_DPL) | (u32)v->cpl << SEG_ATTR_DPL_SHIFT;
		write_segment(i, &v->seg[i], rights);
	}
	write_segment(VMCS_SEG_LDTR, &v->ldtr, rights_out(&v->ldtr));
	write_tr(v, x);
	vmwrite(VMCS_GUEST_GDTR_BASE, v->gdtr.base);
	vmwrite(VMCS_GUEST_GDTR_LIMIT, v->gdtr.limit);
	vmwrite(VMCS_GUEST_IDTR_BASE, v->idtr.base);
	vmwrite(VMCS_GUEST_IDTR_LIMIT, v->idtr.limit);
}

static void fetch_segments(struct vcpu *v, struct vmx_vcpu *x)
{
	for (unsigned i = 0; i < SEG_COUNT; i++)
		if (i != SEG_CS)
			v->seg[i] = fetch_segment(i);
	v->ldtr = fetch_segment(VMCS_SEG_LDTR);
	if (!x->tr_made_up || vmread(VMCS_GUEST_TR))
		v->tr = fetch_segment(VMCS_SEG_TR);
	v->gdtr = (struct table_register){ vmread(VMCS_GUEST_GDTR_BASE), (u16)vmread(VMCS_GUEST_GDTR_LIMIT) };
	v->idtr = (struct table_register){ vmread(VMCS_GUEST_IDTR_BASE), (u16)vmread(VMCS_GUEST_IDTR_LIMIT) };
}

static void write_code(struct vcpu *v, struct vmx_vcpu *x)
{
	write_segment(SEG_CS, &v->seg[SEG_CS], rights_out(&v->seg[SEG_CS]));
}

static void fetch_code(struct vcpu *v, struct vmx_vcpu *x)
{
	v->seg[SEG_CS] = fetch_segment(SEG_CS);
}

/* ---- control registers: all bits leave when they are written, and reads show what the guest wrote ---- */

static struct hw_control control_of(struct vmx_vcpu *x)
{
	struct hw_control c;
	x->hw.memory->ops->control(x->hw.memory, &c);
	return c;
}

/* Caches work whatever the guest says. */
static u64 real_cr0(const struct vcpu *v, const struct vmx_vcpu *x, const struct hw_control *c)
{
	u64 must = x->capabilities.cr0_fixed[0];
	if (vmx_has(x, WORD_SECONDARY, PROC2_UNRESTRICTED))
		must &= ~(CR0_PE | CR0_PG);
	return (v->cr0 & ~(CR0_CD | CR0_NW | c->cr0.own)) | c->cr0.value | must;
}

/* Machine checks are the host's. */
static u64 real_cr4(const struct vcpu *v, const struct vmx_vcpu *x, const struct hw_control *c)
{
	return (v->cr4 & ~c->cr4.own) | c->cr4.value | x->capabilities.cr4_fixed[0] | CR4_MCE;
}

static void write_efer(struct vmx_vcpu *x, u64 efer)
{
	if (vmx_has(x, WORD_ENTRY, ENTRY_LOAD_EFER))
		vmwrite(VMCS_GUEST_EFER, efer);
	x->areas[AREA_GUEST].value = efer;
}

static bool uses_pdptes(const struct vcpu *v)
{
	return (v->cr0 & CR0_PG) && (v->cr4 & CR4_PAE) && !(v->efer & EFER_LMA);
}

static void write_entry_controls(struct vcpu *v, struct vmx_vcpu *x)
{
	u32 entry = x->controls.word[WORD_ENTRY] | (v->efer & EFER_LMA ? (u32)ENTRY_LONG_MODE : 0);
	if (x->entry != entry)
		vmwrite(VMCS_ENTRY_CONTROLS, x->entry = entry);
}

static void write_control(struct vcpu *v, struct vmx_vcpu *x)
{
	struct hw_control c = control_of(x);
	bool nested = x->hw.memory->ops->nested;
	vmwrite(VMCS_GUEST_CR0, real_cr0(v, x, &c));
	vmwrite(VMCS_GUEST_CR4, real_cr4(v, x, &c));
	write_efer(x, (v->efer & ~c.efer.own) | c.efer.value);
	if (nested)
		vmwrite(VMCS_GUEST_CR3, v->cr3);
	vmwrite(VMCS_CR0_SHADOW, v->cr0);
	vmwrite(VMCS_CR4_SHADOW, v->cr4);
	write_entry_controls(v, x);
	for (unsigned i = 0; i < 4 && nested && uses_pdptes(v); i++)
		vmwrite(VMCS_GUEST_PDPTE0 + 2 * i, v->pdpte[i]);
}

static void fetch_control(struct vcpu *v, struct vmx_vcpu *x)
{
	if (!x->hw.memory->ops->nested)
		return;
	v->cr3 = vmread(VMCS_GUEST_CR3);
	for (unsigned i = 0; i < 4 && uses_pdptes(v); i++)
		v->pdpte[i] = vmread(VMCS_GUEST_PDPTE0 + 2 * i);
}

/* ---- MSRs and debug registers; DR6 and CR2 are kept at each exit (enter.c) ---- */

static void write_msrs(struct vcpu *v, struct vmx_vcpu *x)
{
	vmwrite(VMCS_GUEST_SYSENTER_CS, v->msr.sysenter_cs);
	vmwrite(VMCS_GUEST_SYSENTER_ESP, v->msr.sysenter_esp);
	vmwrite(VMCS_GUEST_SYSENTER_EIP, v->msr.sysenter_eip);
}

static void fetch_msrs(struct vcpu *v, struct vmx_vcpu *x)
{
	v->msr.sysenter_cs = (u32)vmread(VMCS_GUEST_SYSENTER_CS);
	v->msr.sysenter_esp = vmread(VMCS_GUEST_SYSENTER_ESP);
	v->msr.sysenter_eip = vmread(VMCS_GUEST_SYSENTER_EIP);
}

static void write_debug(struct vcpu *v, struct vmx_vcpu *x)
{
	vmwrite(VMCS_GUEST_DR7, v->dr7);
}

static void fetch_debug(struct vcpu *v, struct vmx_vcpu *x)
{
	v->dr7 = vmread(VMCS_GUEST_DR7);
}

/* ---- all ---- */

static const struct {
	u32 group;
	void (*fetch)(struct vcpu *v, struct vmx_vcpu *x);
	void (*write)(struct vcpu *v, struct vmx_vcpu *x);
} groups[] = {
	{ HW_SEGMENTS, fetch_segments, write_segments },
	{ HW_CODE, fetch_code, write_code },
	{ HW_CONTROL, fetch_control, write_control },
	{ HW_MSRS, fetch_msrs, write_msrs },
	{ HW_DEBUG, fetch_debug, write_debug },
};

void vmx_fetch(struct vcpu *v, u32 wanted)
{
	struct vmx_vcpu *x = vmx_of(v);
	u64 held = vmx_hold(x);
	for (unsigned i = 0; i < ARRAY_SIZE(groups); i++)
		if (wanted & groups[i].group)
			groups[i].fetch(v, x);
	host_release(held);
}

void vmx_write(struct vcpu *v, u32 wanted)
{
	struct vmx_vcpu *x = vmx_of(v);
	u64 held = vmx_hold(x);
	for (unsigned i = 0; i < ARRAY_SIZE(groups); i++)
		if (wanted & groups[i].group)
			groups[i].write(v, x);
	host_release(held);
}
