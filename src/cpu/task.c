/* The hardware task switch between 16- and 32-bit TSSs.
 * Intel SDM volume 3, "Task Switching", table "Exception Conditions Checked During a Task Switch".
 *
 * Everything that can fault in the old task comes first: the new TSS and its descriptor are read, and all that is to be written
 * is probed. Then the switch is committed; the new task's LDT and segments are loaded afterwards, and their faults belong to it. */
#include "cpu/task.h"

#include "cpu/control.h"
#include "cpu/descriptor.h"
#include "cpu/segment.h"
#include "cpu/stack.h"
#include "lib/string.h"

#define BUSY (SYS_TSS_BUSY ^ SYS_TSS)
#define DR7_LOCAL 0x155ull /* L0 to L3 and LE */

/* Where the fields of a TSS lie. Volume 3, "32-Bit Task-State Segment", "16-Bit Task-State Segment". */
struct tss_layout {
	u8 size, word;
	u8 ip, flags, gpr, seg, segs, ldt;
};

static const struct tss_layout tss32 = { 0x68, 4, 0x20, 0x24, 0x28, 0x48, SEG_GS + 1, 0x60 };
static const struct tss_layout tss16 = { 0x2c, 2, 0x0e, 0x10, 0x12, 0x22, SEG_DS + 1, 0x2a };
#define TSS_CR3 0x1c
#define TSS_TRAP 0x64
#define TSS_SIZE_MAX 0x68

struct task_switch {
	const struct task_request *request;
	const struct tss_layout *from, *to;
	struct descriptor descriptor; /* of the new TSS */
	struct segment tss; /* the new TR */
	gla_t old_descriptor;
	u8 image[TSS_SIZE_MAX]; /* the new TSS */
};

static const struct tss_layout *layout_of(u32 attr)
{
	return (attr & (SYS_TSS ^ SYS_TSS16)) ? &tss32 : &tss16;
}

static u32 field(const u8 *image, unsigned offset, unsigned size)
{
	u32 value = 0;
	memcpy(&value, image + offset, size);
	return value;
}

static bool nests(enum task_reason reason)
{
	return reason == TASK_CALL || reason == TASK_EVENT;
}

/* The new TSS's descriptor. A return wants a busy TSS and says #TS, the others an available one and say #GP. */
static bool check_descriptor(struct vcpu *vcpu, struct task_switch *ts)
{
	const struct task_request *r = ts->request;
	const bool back = r->reason == TASK_IRET;
	const u8 vector = back ? VEC_TS : VEC_GP;
	struct descriptor *d = &ts->descriptor;
	if (selector_is_null(r->selector) || (r->selector & SELECTOR_TI))
		return raise_selector(vcpu, vector, r->selector, r->ext);
	if (!descriptor_read(vcpu, r->selector, vector, r->ext, d))
		return false;
	unsigned type = attr_system_type(d->attr), busy = back ? BUSY : 0;
	if (type != (SYS_TSS | busy) && type != (SYS_TSS16 | busy))
		return raise_selector(vcpu, vector, r->selector, r->ext);
	if (!(d->attr & SEG_ATTR_P))
		return raise_selector(vcpu, VEC_NP, r->selector, r->ext);
	descriptor_parse_system(d, &ts->tss);
	ts->tss.attr |= BUSY;
	ts->to = layout_of(d->attr);
	if (ts->tss.limit < ts->to->size - 1u)
		return raise_selector(vcpu, VEC_TS, r->selector, r->ext);
	return true;
}

/* Read the new TSS, and make sure that whatever the switch writes can be written. */
static bool prepare(struct vcpu *vcpu, struct task_switch *ts)
{
	const struct task_request *r = ts->request;
	if (!check_descriptor(vcpu, ts))
		return false;
	ts->from = layout_of(vcpu->tr.attr);
	bool located = descriptor_locate(vcpu, vcpu->tr.selector, 8, &ts->old_descriptor);
	if (!located || vcpu->tr.limit < ts->from->size - 1u)
		return raise_selector(vcpu, VEC_TS, vcpu->tr.selector, r->ext);
	if (!system_read(vcpu, ts->tss.base, ts->image, ts->to->size) ||
	    !system_probe_write(vcpu, vcpu->tr.base, ts->from->size))
		return false;
	if (nests(r->reason) && !system_probe_write(vcpu, ts->tss.base, 2))
		return false;
	if (r->reason != TASK_IRET && !system_probe_write(vcpu, ts->descriptor.gla + 5, 1))
		return false;
	return nests(r->reason) || system_probe_write(vcpu, ts->old_descriptor + 5, 1);
}

/* Registers into the old TSS: one contiguous piece from EIP to the last selector. */
static bool save_old(struct vcpu *vcpu, const struct task_switch *ts)
{
	const struct tss_layout *l = ts->from;
	const unsigned end = l->seg + l->segs * l->word;
	u64 rflags = ts->request->rflags;
	u8 image[TSS_SIZE_MAX] = { 0 };
	if (ts->request->reason == TASK_IRET)
		rflags &= ~RFLAGS_NT;
	memcpy(image + l->ip, &ts->request->return_rip, l->word);
	memcpy(image + l->flags, &rflags, l->word);
	for (unsigned i = 0; i < 8; i++)
		memcpy(image + l->gpr + i * l->word, &vcpu->gpr[i], l->word);
	for (unsigned i = 0; i < l->segs; i++)
		memcpy(image + l->seg + i * l->word, &vcpu->seg[i].selector, 2);
	return system_write(vcpu, vcpu->tr.base + l->ip, image + l->ip, end - l->ip);
}

/* Busy bits, back link, and the old task's registers: memory that was probed. */
static bool commit_memory(struct vcpu *vcpu, const struct task_switch *ts)
{
	const struct task_request *r = ts->request;
	u16 link = vcpu->tr.selector;
	if (!save_old(vcpu, ts))
		return false;
	if (!nests(r->reason) && !descriptor_change_type(vcpu, ts->old_descriptor, 0, BUSY))
		return false;
	if (nests(r->reason) && !system_write(vcpu, ts->tss.base, &link, 2))
		return false;
	return r->reason == TASK_IRET || descriptor_change_type(vcpu, ts->descriptor.gla, BUSY, 0);
}

/* General registers, EIP, EFLAGS and the selectors; the hidden parts wait for load_segments. */
static void load_registers(struct vcpu *vcpu, const struct task_switch *ts)
{
	const struct tss_layout *l = ts->to;
	u64 rflags = field(ts->image, l->flags, l->word);
	for (unsigned i = 0; i < 8; i++)
		vcpu->gpr[i] = field(ts->image, l->gpr + i * l->word, l->word);
	vcpu->rip = vcpu->next_rip = field(ts->image, l->ip, l->word);
	if (nests(ts->request->reason))
		rflags |= RFLAGS_NT;
	const u64 known = RFLAGS_STATUS | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT | RFLAGS_RF |
			  RFLAGS_VM | RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID;
	cpu_set_rflags(vcpu, rflags & known);
	for (unsigned i = 0; i < SEG_COUNT; i++) {
		u16 selector = i < l->segs ? field(ts->image, l->seg + i * l->word, 2) : 0;
		vcpu->seg[i] = segment_null(selector, 0);
	}
	vcpu->ldtr = segment_null(field(ts->image, l->ldt, 2), 0);
	cpu_set_cpl(vcpu, vcpu_v86(vcpu) ? 3 : vcpu->seg[SEG_CS].selector & SELECTOR_RPL);
}

/* A 16-bit TSS holds no CR3. */
static bool load_cr3(struct vcpu *vcpu, const struct task_switch *ts)
{
	if (ts->to != &tss32 || !(vcpu->cr0 & CR0_PG))
		return true;
	u64 cr3 = field(ts->image, TSS_CR3, 4);
	if ((vcpu->cr4 & CR4_PAE) && !mmu_load_pdptes(vcpu, cr3))
		return false;
	vcpu->cr3 = cr3;
	mmu_load_cr3(vcpu, false);
	return true;
}

static bool load_segments(struct vcpu *vcpu, u32 ext)
{
	static const u8 data[] = { SEG_DS, SEG_ES, SEG_FS, SEG_GS };
	struct segment *seg = vcpu->seg;
	if (!segment_fetch_ldt(vcpu, vcpu->ldtr.selector, VEC_TS, VEC_TS, ext, &vcpu->ldtr))
		return false;
	if (vcpu_v86(vcpu)) {
		for (unsigned i = 0; i < SEG_COUNT; i++)
			segment_set_real(vcpu, i, seg[i].selector);
		return true;
	}
	if (!segment_fetch_code(vcpu, seg[SEG_CS].selector, VEC_TS, ext, &seg[SEG_CS]) ||
	    !segment_fetch_stack(vcpu, seg[SEG_SS].selector, vcpu->cpl, VEC_TS, ext, &seg[SEG_SS]))
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
		if (!segment_fetch_data(vcpu, seg[data[i]].selector, vcpu->cpl, VEC_TS, ext, &seg[data[i]]))
			return false;
	return true;
}

/* The T flag of a 32-bit TSS asks for a debug trap before the new task's first instruction. */
static void raise_task_trap(struct vcpu *vcpu, const struct task_switch *ts)
{
	if (ts->to != &tss32 || !(ts->image[TSS_TRAP] & 1))
		return;
	u64 others = (vcpu_pending(vcpu) & PENDING_TRAP) ? vcpu->trap.payload : 0;
	vcpu->trap = (struct guest_fault){ .vector = VEC_DB, .payload = others | DR6_BT };
	vcpu_set_pending(vcpu, PENDING_TRAP);
}

static bool push_error(struct vcpu *vcpu, const struct task_switch *ts)
{
	const u64 error = ts->request->error;
	struct stack st = stack_current(vcpu, ts->request->ext);
	if (!stack_push(vcpu, &st, &error, 1, ts->to->word))
		return false;
	stack_commit(vcpu, &st);
	return true;
}

bool task_enter(struct vcpu *vcpu, const struct task_request *request)
{
	struct task_switch ts = { .request = request };
	if (!prepare(vcpu, &ts) || !commit_memory(vcpu, &ts))
		return false;
	vcpu->tr = ts.tss;
	vcpu->cr0 |= CR0_TS;
	vcpu->dr7 &= ~DR7_LOCAL;
	debug_update(vcpu);
	load_registers(vcpu, &ts);
	raise_task_trap(vcpu, &ts);
	if (!load_cr3(vcpu, &ts) || !load_segments(vcpu, request->ext))
		return false;
	if (request->has_error && !push_error(vcpu, &ts))
		return false;
	return segment_check_target(vcpu, &vcpu->seg[SEG_CS], vcpu->next_rip, request->ext);
}

bool task_return(struct vcpu *vcpu)
{
	u16 link;
	if (!system_read(vcpu, vcpu->tr.base, &link, 2))
		return false;
	return task_switch(vcpu, link, TASK_IRET, false, 0);
}

bool task_switch(struct vcpu *vcpu, u16 selector, enum task_reason reason, bool has_error, u32 error)
{
	const struct task_request request = {
		.selector = selector,
		.reason = reason,
		.return_rip = vcpu->next_rip,
		.rflags = vcpu->rflags,
		.has_error = has_error,
		.error = error,
	};
	return task_enter(vcpu, &request);
}
