/* State between struct vcpu and KVM, a pair of functions for each group (kvm.h). */
#include "engine/kvm/kvm.h"

#include "cpu/control.h"
#include "cpu/event.h"
#include "engine/step/x87.h"
#include "lib/string.h"

/* ---- general registers ---- */

static void registers_in(struct vcpu *v, const struct kvm_regs *r)
{
	const u64 gpr[GPR_COUNT] = { r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
				     r->r8, r->r9, r->r10, r->r11, r->r12, r->r13, r->r14, r->r15 };
	memcpy(v->gpr, gpr, sizeof(gpr));
	v->rip = v->next_rip = r->rip;
	v->rflags = r->rflags | RFLAGS_FIXED1;
}

void kvm_take_regs(struct vcpu *v)
{
	struct kvm_vcpu *k = kvm_of(v);
	registers_in(v, &k->run->s.regs.regs);
	k->known |= GROUP_REGS;
}

static int fetch_regs(struct vcpu *v, struct kvm_vcpu *k)
{
	struct kvm_regs r;
	int error = kvm_call(k, KVM_GET_REGS, &r);
	if (error >= 0)
		registers_in(v, &r);
	return error;
}

static int write_regs(struct vcpu *v, struct kvm_vcpu *k)
{
	const u64 *g = v->gpr;
	struct kvm_regs r = { .rax = g[RAX], .rcx = g[RCX], .rdx = g[RDX], .rbx = g[RBX], .rsp = g[RSP], .rbp = g[RBP], .rsi = g[RSI],
			      .rdi = g[RDI], .r8 = g[R8], .r9 = g[R9], .r10 = g[R10], .r11 = g[R11], .r12 = g[R12], .r13 = g[R13],
			      .r14 = g[R14], .r15 = g[R15], .rip = v->rip, .rflags = v->rflags };
	return kvm_call(k, KVM_SET_REGS, &r);
}

/* ---- segments and control registers ---- */

static struct segment segment_in(const struct kvm_segment *s)
{
	u32 attr = s->type | (u32)s->s << 4 | (u32)s->dpl << SEG_ATTR_DPL_SHIFT | (s->present ? SEG_ATTR_P : 0) | (s->avl ? SEG_ATTR_AVL : 0) |
		   (s->l ? SEG_ATTR_L : 0) | (s->db ? SEG_ATTR_DB : 0) | (s->g ? SEG_ATTR_G : 0) |
		   (s->unusable || !s->present ? SEG_ATTR_UNUSABLE : 0);
	return (struct segment){ .selector = s->selector, .attr = attr, .limit = s->limit, .base = s->base };
}

static struct kvm_segment segment_out(const struct segment *s)
{
	u32 a = s->attr;
	bool unusable = a & SEG_ATTR_UNUSABLE;
	return (struct kvm_segment){ .base = s->base, .limit = s->limit, .selector = s->selector, .type = a & SEG_ATTR_TYPE,
				     .present = !unusable && (a & SEG_ATTR_P), .dpl = (a & SEG_ATTR_DPL) >> SEG_ATTR_DPL_SHIFT,
				     .db = !!(a & SEG_ATTR_DB), .s = !!(a & SEG_ATTR_S), .l = !!(a & SEG_ATTR_L), .g = !!(a & SEG_ATTR_G),
				     .avl = !!(a & SEG_ATTR_AVL), .unusable = unusable };
}

/* struct kvm_sregs2 begins as struct kvm_sregs does; behind it, one ends in what is pending, the other in PDPTEs. */
static_assert(offsetof(struct kvm_sregs, apic_base) == offsetof(struct kvm_sregs2, apic_base), "kvm_sregs begins as kvm_sregs2");
union sregs {
	struct kvm_sregs2 two;
	struct kvm_sregs one;
};

static struct kvm_segment *sregs_segment(struct kvm_sregs2 *s, unsigned number)
{
	struct kvm_segment *const order[SEG_COUNT] = { &s->es, &s->cs, &s->ss, &s->ds, &s->fs, &s->gs };
	return order[number];
}

/* CPL is where KVM has it, too: SS.DPL. Intel SDM volume 3, "Guest Register State". */
static u8 cpl_of(const struct vcpu *v)
{
	if (!(v->cr0 & CR0_PE))
		return 0;
	return v->rflags & RFLAGS_VM ? 3 : (v->seg[SEG_SS].attr & SEG_ATTR_DPL) >> SEG_ATTR_DPL_SHIFT;
}

static int fetch_sregs(struct vcpu *v, struct kvm_vcpu *k)
{
	union sregs u;
	struct kvm_sregs2 *s = &u.two;
	bool two = k->machine->has_sregs2;
	int error = kvm_call(k, two ? KVM_GET_SREGS2 : KVM_GET_SREGS, &u);
	if (error < 0)
		return error;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		v->seg[i] = segment_in(sregs_segment(s, i));
	v->tr = segment_in(&s->tr);
	v->ldtr = segment_in(&s->ldt);
	v->gdtr = (struct table_register){ s->gdt.base, s->gdt.limit };
	v->idtr = (struct table_register){ s->idt.base, s->idt.limit };
	v->cr0 = s->cr0;
	v->cr2 = s->cr2;
	v->cr3 = s->cr3;
	v->cr4 = s->cr4;
	v->efer = s->efer;
	v->cpl = cpl_of(v);
	if (two && (s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID))
		memcpy(v->pdpte, s->pdptrs, sizeof(v->pdpte));
	/* RFLAGS counts for the view: it is known after each exit. */
	mmu_update_view(v);
	mmu_load_cr3(v, false);
	return 0;
}

static bool uses_pdptes(const struct vcpu *v)
{
	return (v->cr0 & CR0_PG) && (v->cr4 & CR4_PAE) && !(v->efer & EFER_LMA);
}

static int write_sregs(struct vcpu *v, struct kvm_vcpu *k)
{
	union sregs u = { 0 };
	struct kvm_sregs2 *s = &u.two;
	bool two = k->machine->has_sregs2;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		*sregs_segment(s, i) = segment_out(&v->seg[i]);
	s->ss.dpl = v->cpl;
	s->tr = segment_out(&v->tr);
	s->ldt = segment_out(&v->ldtr);
	s->gdt = (struct kvm_dtable){ .base = v->gdtr.base, .limit = v->gdtr.limit };
	s->idt = (struct kvm_dtable){ .base = v->idtr.base, .limit = v->idtr.limit };
	s->cr0 = v->cr0;
	s->cr2 = v->cr2;
	s->cr3 = v->cr3;
	s->cr4 = v->cr4;
	s->cr8 = k->cr8;
	s->efer = v->efer;
	s->apic_base = k->apic_base;
	if (two && uses_pdptes(v)) {
		s->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
		memcpy(s->pdptrs, v->pdpte, sizeof(v->pdpte));
	}
	return kvm_call(k, two ? KVM_SET_SREGS2 : KVM_SET_SREGS, &u);
}

/* ---- extended state ---- */

static_assert(sizeof(struct kvm_xsave) == XSAVE_AREA_SIZE, "KVM's image is as large as ours");

static int fetch_xsave(struct vcpu *v, struct kvm_vcpu *k)
{
	int error = kvm_call(k, KVM_GET_XSAVE, v->xsave);
	if (error >= 0)
		x87_reload(v, step_of(v));
	return error;
}

static int write_xsave(struct vcpu *v, struct kvm_vcpu *k)
{
	return kvm_call(k, KVM_SET_XSAVE, v->xsave);
}

static int fetch_xcrs(struct vcpu *v, struct kvm_vcpu *k)
{
	struct kvm_xcrs x;
	int error = kvm_call(k, KVM_GET_XCRS, &x);
	for (unsigned i = 0; error >= 0 && i < x.nr_xcrs; i++)
		if (x.xcrs[i].xcr == 0)
			v->xcr0 = x.xcrs[i].value;
	return error;
}

static int write_xcrs(struct vcpu *v, struct kvm_vcpu *k)
{
	struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs[0].value = v->xcr0 };
	return cpuid_has(v->cpuid, FEATURE_XSAVE) ? kvm_call(k, KVM_SET_XCRS, &x) : 0;
}

/* ---- MSRs: those that the guest accesses without an exit, at the hardware's speed ---- */

#define NO_FEATURE FEATURE_COUNT

static const struct {
	u32 index;
	u32 offset; /* in struct vcpu; 0: its segments have it */
	unsigned feature;
} msrs[] = {
	{ 0xc0000081, offsetof(struct vcpu, msr.star), FEATURE_SYSCALL },
	{ 0xc0000082, offsetof(struct vcpu, msr.lstar), FEATURE_SYSCALL },
	{ 0xc0000083, offsetof(struct vcpu, msr.cstar), FEATURE_SYSCALL },
	{ 0xc0000084, offsetof(struct vcpu, msr.fmask), FEATURE_SYSCALL },
	{ 0xc0000100, 0, FEATURE_LM },
	{ 0xc0000101, 0, FEATURE_LM },
	{ 0xc0000102, offsetof(struct vcpu, msr.kernel_gs_base), FEATURE_LM },
	{ 0xc0000103, offsetof(struct vcpu, msr.tsc_aux), FEATURE_RDTSCP },
	{ 0x174, offsetof(struct vcpu, msr.sysenter_cs), FEATURE_SEP },
	{ 0x175, offsetof(struct vcpu, msr.sysenter_esp), FEATURE_SEP },
	{ 0x176, offsetof(struct vcpu, msr.sysenter_eip), FEATURE_SEP },
	{ 0x48, offsetof(struct vcpu, msr.spec_ctrl), FEATURE_SPEC_CTRL },
};
#define MSRS ARRAY_SIZE(msrs)

unsigned kvm_native_msrs(const u32 **list)
{
	static const u32 index[MSRS] = { 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101,
					 0xc0000102, 0xc0000103, 0x174, 0x175, 0x176, 0x48 };
	*list = index;
	return MSRS;
}

struct msr_list {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[MSRS];
};

static u64 *msr_field(struct vcpu *v, unsigned row)
{
	return (u64 *)((u8 *)v + msrs[row].offset);
}

static void list_msrs(struct vcpu *v, struct msr_list *list)
{
	unsigned n = 0;
	for (unsigned i = 0; i < MSRS; i++)
		if (msrs[i].offset && cpuid_has(v->cpuid, (enum cpu_feature)msrs[i].feature))
			list->entry[n++] = (struct kvm_msr_entry){ .index = msrs[i].index, .data = *msr_field(v, i) };
	list->head.nmsrs = n;
}

static int fetch_msrs(struct vcpu *v, struct kvm_vcpu *k)
{
	struct msr_list list = { 0 };
	list_msrs(v, &list);
	int done = kvm_call(k, KVM_GET_MSRS, &list);
	for (unsigned i = 0, n = 0; (int)n < done; i++)
		if (msrs[i].index == list.entry[n].index)
			*msr_field(v, i) = list.entry[n++].data;
	return done < (int)list.head.nmsrs ? -1 : 0;
}

static int write_msrs(struct vcpu *v, struct kvm_vcpu *k)
{
	struct msr_list list = { 0 };
	list_msrs(v, &list);
	return kvm_call(k, KVM_SET_MSRS, &list) < (int)list.head.nmsrs ? -1 : 0;
}

/* ---- debug registers ---- */

static int fetch_debug(struct vcpu *v, struct kvm_vcpu *k)
{
	struct kvm_debugregs d;
	int error = kvm_call(k, KVM_GET_DEBUGREGS, &d);
	if (error < 0)
		return error;
	bool same = v->dr7 == d.dr7 && !memcmp(v->dr, d.db, sizeof(v->dr));
	memcpy(v->dr, d.db, sizeof(v->dr));
	v->dr6 = d.dr6;
	v->dr7 = d.dr7;
	if (!same)
		debug_update(v);
	return 0;
}

static int write_debug(struct vcpu *v, struct kvm_vcpu *k)
{
	struct kvm_debugregs d = { .dr6 = v->dr6, .dr7 = v->dr7 };
	memcpy(d.db, v->dr, sizeof(v->dr));
	return kvm_call(k, KVM_SET_DEBUGREGS, &d);
}

/* ---- events ---- */

/* An event that KVM was about to deliver when it was left. External interrupts have been acknowledged and exceptions have happened: they are
 * delivered now. Software interrupts come again, since RIP is still in front of them; an NMI is sent again. */
static void settle_events(struct vcpu *v, struct kvm_vcpu *k, const struct kvm_vcpu_events *e)
{
	bool software = e->exception.nr == VEC_BP || e->exception.nr == VEC_OF;
	bool good = true;
	if (e->nmi.injected)
		v->nmi_blocked = false;
	if (e->nmi.injected || e->nmi.pending)
		vcpu_set_pending(v, PENDING_NMI);
	bool exception = (e->exception.injected || e->exception.pending) && !software;
	bool interrupt = e->interrupt.injected && !e->interrupt.soft;
	if (!exception && !interrupt)
		return;
	kvm_fetch(v, GROUP_ALL & ~GROUP_EVENTS);
	mmu_flush_all(v);
	if (exception) {
		v->fault = (struct guest_fault){ .vector = e->exception.nr, .has_error = e->exception.has_error_code, .error = e->exception.error_code,
						 .payload = e->exception.nr == VEC_PF ? v->cr2 : 0 };
		good = event_deliver_fault(v);
	}
	if (good && interrupt)
		good = event_deliver(v, e->interrupt.nr, EVENT_EXTERNAL);
	k->dead = !good;
	k->changed |= GROUP_ALL;
}

static int fetch_events(struct vcpu *v, struct kvm_vcpu *k)
{
	struct kvm_vcpu_events e = { 0 };
	int error = kvm_call(k, KVM_GET_VCPU_EVENTS, &e);
	if (error < 0)
		return error;
	v->nmi_blocked = e.nmi.masked;
	v->shadow = (u8)((e.interrupt.shadow & KVM_X86_SHADOW_INT_STI ? SHADOW_STI : 0) |
			 (e.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? SHADOW_MOV_SS : 0));
	k->known |= GROUP_EVENTS;
	if (e.exception.injected || e.exception.pending || e.interrupt.injected || e.nmi.injected || e.nmi.pending) {
		k->changed |= GROUP_EVENTS;
		settle_events(v, k, &e);
	}
	return 0;
}

static int write_events(struct vcpu *v, struct kvm_vcpu *k)
{
	struct kvm_vcpu_events e = { .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW };
	e.nmi.masked = v->nmi_blocked;
	e.interrupt.shadow = (u8)((v->shadow & SHADOW_STI ? KVM_X86_SHADOW_INT_STI : 0) | (v->shadow & SHADOW_MOV_SS ? KVM_X86_SHADOW_INT_MOV_SS : 0));
	return kvm_call(k, KVM_SET_VCPU_EVENTS, &e);
}

/* ---- all ---- */

static const struct group {
	const char *name;
	int (*fetch)(struct vcpu *v, struct kvm_vcpu *k); /* negative: KVM refused */
	int (*write)(struct vcpu *v, struct kvm_vcpu *k);
} groups[GROUP_COUNT] = {
	{ "KVM does not take XCR0 as it is", fetch_xcrs, write_xcrs },
	{ "KVM does not take the extended state as it is", fetch_xsave, write_xsave },
	{ "KVM does not take the segment and control registers as they are", fetch_sregs, write_sregs },
	{ "KVM does not take the MSRs as they are", fetch_msrs, write_msrs },
	{ "KVM does not take the debug registers as they are", fetch_debug, write_debug },
	{ "KVM does not take the general registers as they are", fetch_regs, write_regs },
	{ "KVM does not take the pending events as they are", fetch_events, write_events },
};

/* RFLAGS first of all, then in order; events are last, as their delivery needs all others. */
bool kvm_fetch(struct vcpu *v, u32 wanted)
{
	struct kvm_vcpu *k = kvm_of(v);
	if (wanted & ~k->known & GROUP_SREGS)
		wanted |= GROUP_REGS;
	static const u8 order[GROUP_COUNT] = { 5, 0, 1, 2, 3, 4, 6 };
	for (unsigned n = 0; n < GROUP_COUNT; n++) {
		unsigned i = order[n];
		if (!(wanted & ~k->known & BIT(i)))
			continue;
		if (groups[i].fetch(v, k) < 0)
			return false;
		k->known |= (u32)BIT(i);
		k->fetched[i]++;
	}
	return true;
}

bool kvm_write(struct vcpu *v, const char **what)
{
	struct kvm_vcpu *k = kvm_of(v);
	for (unsigned i = 0; i < GROUP_COUNT; i++) {
		if (!(k->changed & BIT(i)))
			continue;
		*what = groups[i].name;
		if (groups[i].write(v, k) < 0)
			return false;
		k->written[i]++;
	}
	if (k->changed & (GROUP_REGS | GROUP_EVENTS))
		k->ready = (v->rflags & RFLAGS_IF) && !((k->known & GROUP_EVENTS) && v->shadow);
	k->changed = 0;
	return true;
}
