/* Memory operands: their address, and the check against the software TLB.
 *
 *   T1 = &tlb[page of T0]; T0 -= tag; T0 > PAGE_SIZE - size: miss (also if the access leaves the page); T0 += host page
 *
 * A tag that is not valid belongs to another index, so that the difference cannot be small (mmu/mmu.h). */
#include "engine/bt/work.h"

#define ENTRY_SHIFT 6
static_assert(sizeof(struct tlb_entry) == 1 << ENTRY_SHIFT, "the check shifts an address to an entry's offset");

unsigned host_register(unsigned gpr)
{
	if (gpr == RSP)
		return HOST_SP;
	return gpr >= R9 && gpr <= R11 ? NO_REGISTER : gpr;
}

void work_spill_flags(struct translation_work *w)
{
	if (w->place == FLAGS_SAVED)
		return;
	if (work_live(w))
		emit_save_flags(&w->e);
	w->place = FLAGS_SAVED;
}

void work_need_flags(struct translation_work *w)
{
	if (w->place == FLAGS_HOST)
		return;
	if (work_live(w))
		emit_restore_flags(&w->e);
	w->place = FLAGS_HOST;
}

struct stub *work_stub(struct translation_work *w, enum site_kind kind, u8 *jump)
{
	struct stub *s = &w->stub[w->stubs++];
	*s = (struct stub){ .jump = jump, .site = { .kind = (u8)kind, .offset = w->at[w->current] },
			    .next_insn = (u8)(w->current + 1) };
	return s;
}

/* The register of an address, loaded into `scratch` if it lives in memory. */
static unsigned address_register(struct translation_work *w, ZydisRegister reg, unsigned scratch)
{
	int gpr = insn_gpr(reg);
	if (gpr < 0)
		return NO_REGISTER;
	unsigned host = host_register((unsigned)gpr);
	if (host != NO_REGISTER)
		return host;
	emit_load_gs(&w->e, scratch, VCPU_GPR((unsigned)gpr));
	return scratch;
}

static unsigned log2_scale(unsigned scale)
{
	return scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
}

static void add_segment_base(struct translation_work *w, unsigned segment)
{
	if (segment < SEG_FS)
		return;
	u32 base = (u32)(offsetof(struct vcpu, seg) + segment * sizeof(struct segment) + offsetof(struct segment, base));
	emit_load_gs(&w->e, T1, base);
	emit_lea(&w->e, true, T0, T0, T1, 0, 0);
}

bool emit_operand_address(struct translation_work *w, const ZydisDecodedOperand *o)
{
	const struct insn *insn = work_insn(w);
	s64 disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	bool wide = insn->z.address_width == 64;
	bool relative = o->mem.base == ZYDIS_REGISTER_RIP;
	if (relative)
		disp += work_next(w);
	if (disp != (s32)disp || o->mem.base == ZYDIS_REGISTER_EIP || (o->mem.type != ZYDIS_MEMOP_TYPE_MEM && o->mem.type != ZYDIS_MEMOP_TYPE_AGEN))
		return false;
	if (relative) {
		emit_load_gs(&w->e, T0, VCPU(code_base));
		emit_lea(&w->e, wide, T0, T0, NO_REGISTER, 0, (s32)disp);
	} else {
		unsigned base = address_register(w, o->mem.base, T0);
		unsigned index = address_register(w, o->mem.index, T1);
		if (wide && base != NO_REGISTER && index == NO_REGISTER && !disp)
			emit_mov(&w->e, T0, base);
		else
			emit_lea(&w->e, wide, T0, base, index, log2_scale(o->mem.scale), (s32)disp);
	}
	if (o->mem.type == ZYDIS_MEMOP_TYPE_MEM)
		add_segment_base(w, insn_segment(o->mem.segment));
	return true;
}

void emit_check(struct translation_work *w, unsigned size, bool write, u8 *retry)
{
	struct emitter *e = &w->e;
	u8 tag = write ? offsetof(struct tlb_entry, write) : offsetof(struct tlb_entry, read);
	emit_mov(e, T1, T0);
	EMIT(e, 0x49, 0xc1, 0xeb, PAGE_SHIFT - ENTRY_SHIFT); /* shr r11, 6 */
	EMIT(e, 0x41, 0x81, 0xe3); /* and r11d, mask */
	emit32(e, (TLB_ENTRIES - 1) << ENTRY_SHIFT);
	emit_gs(e, true, 0x03, T1, VCPU(tlb));
	emit_rm(e, true, 0x2b, T0, T1, tag);
	EMIT(e, 0x49, 0x81, 0xfa); /* cmp r10, imm32 */
	emit32(e, (u32)(PAGE_SIZE - size));
	struct stub *s = work_stub(w, SITE_ACCESS, emit_jcc(e, 0x7)); /* ja */
	s->site.detail = (u8)(size | (write ? SITE_WRITE : 0));
	s->retry = retry;
	s->tag = tag;
	emit_rm(e, true, 0x03, T0, T1, offsetof(struct tlb_entry, host));
}

void emit_vector_check(struct translation_work *w, u8 class)
{
	if (class == INSN_NO_XSTATE || (w->ready & (1u << class)))
		return;
	work_spill_flags(w);
	u8 *retry = w->e.at;
	EMIT(&w->e, 0x65, 0xf6, 0x04, 0x25); /* test byte gs:[vector_ready], class */
	emit32(&w->e, VCPU(vector_ready));
	emit8(&w->e, (u8)(1u << class));
	struct stub *s = work_stub(w, SITE_VECTOR, emit_jcc(&w->e, 0x4));
	s->site.detail = class;
	s->retry = retry;
	w->ready |= (u8)(1u << class);
}
