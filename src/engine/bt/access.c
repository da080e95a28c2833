/* Memory operands: their address, and the check against the software TLB (mmu/mmu.h).
 *
 *   T0 = address; T1 = its index; T0 -= tag; T0 > PAGE_SIZE - size: miss (also if the access leaves the page); T1 = addend
 *
 * A tag that is not valid belongs to another index, so that the difference cannot be small. The operand is then reached through its own
 * address registers and T1, so that the access waits for the addend alone.
 *
 * T0 and T1 stay (struct known). The next operand with the same base register, if that has not changed but by a constant, only needs
 *
 *   T0 > PAGE_SIZE - size - distance: look it up out of line
 *
 * The distance is upwards from the lowest operand seen ahead: for that the first check is made, so that T0 < 0, which is large, says that the
 * operands are in two pages. An access that is looked up out of line leaves T0 and T1 for its own page. */
#include "engine/bt/work.h"

#include "mmu/mmu.h"

static_assert(TLB_INDEX_BITS + PAGE_SHIFT == 32, "the index is what a 32-bit shift leaves");
static_assert(offsetof(struct tlb_table, read) == 0, "no displacement");

unsigned host_register(unsigned gpr)
{
	if (gpr == RSP)
		return HOST_SP;
	return gpr >= R8 && gpr <= R11 ? NO_REGISTER : gpr;
}

void work_spill_flags(struct translation_work *w)
{
	/* Early checks stand where none is needed; lockstep compares them nevertheless. */
	if (!w->ahead_of_flags || w->bt->lockstep)
		work_save_flags(w, w->live[w->current]);
	w->place = FLAGS_SAVED;
}

void work_spill_far(struct translation_work *w)
{
	work_save_flags(w, 0);
	flags_flush(w);
	w->place = FLAGS_SAVED;
}

void work_need_flags_by(struct translation_work *w, unsigned temp)
{
	if (w->place != FLAGS_SAVED)
		return;
	emit_complete_flags(w);
	emit_restore_flags_by(&w->e, temp);
	w->known.valid = false;
	w->place = FLAGS_BOTH;
}

void work_need_flags(struct translation_work *w)
{
	work_need_flags_by(w, T1);
}

struct stub *work_stub(struct translation_work *w, enum site_kind kind, u8 *jump)
{
	struct stub *s = &w->stub[w->stubs++];
	*s = (struct stub){ .jump = jump, .site = { .kind = (u8)kind, .offset = w->at[w->current] },
			    .next_insn = (u8)(w->current + 1), .saved = work_saved(w) };
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

/* T0, the offset of an operand, becomes its linear address. */
static void emit_segment(struct translation_work *w, unsigned segment, unsigned size, bool write)
{
	if (w->mode != INSN_MODE_64) {
		narrow_segment(w, segment, size, write);
		return;
	}
	if (segment < SEG_FS)
		return;
	u32 base = (u32)(offsetof(struct vcpu, seg) + segment * sizeof(struct segment) + offsetof(struct segment, base));
	emit_load_gs(&w->e, T1, base);
	emit_lea(&w->e, true, T0, T0, T1, 0, 0);
}

bool emit_effective_address(struct translation_work *w, const ZydisDecodedOperand *o)
{
	const struct insn *insn = work_insn(w);
	s64 disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	bool wide = insn->z.address_width == 64;
	if (w->mode != INSN_MODE_64)
		disp = (s32)disp;
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
	if (insn->z.address_width == 16)
		emit_cut16(&w->e, T0);
	return true;
}

/* ---- the check ---- */

static bool in_host(ZydisRegister reg)
{
	int gpr = insn_gpr(reg);
	return gpr < 0 ? reg == ZYDIS_REGISTER_NONE : host_register((unsigned)gpr) != NO_REGISTER;
}

static u8 host_of(ZydisRegister reg)
{
	int gpr = insn_gpr(reg);
	return gpr < 0 ? NO_REGISTER : (u8)host_register((unsigned)gpr);
}

/* With T1 = addend: [base + T1 + disp], or [T1 + index << scale + disp] after base was added to T1. */
static struct place host_place(const struct place *linear)
{
	if (linear->index == NO_REGISTER && linear->base != NO_REGISTER)
		return (struct place){ linear->base, T1, 0, linear->disp };
	return (struct place){ T1, linear->index, linear->scale, linear->disp };
}

struct operand operand_plan(const struct translation_work *w, const struct insn *insn, const ZydisDecodedOperand *o)
{
	s64 disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	struct operand a = { .host = { T0, NO_REGISTER, 0, 0 } };
	a.plain = (insn->z.address_width == 64 || narrow_plain(w, insn, o)) && o->mem.type == ZYDIS_MEMOP_TYPE_MEM &&
		  insn_segment(o->mem.segment) < SEG_FS && disp == (s32)disp && in_host(o->mem.base) && in_host(o->mem.index);
	if (!a.plain)
		return a;
	a.linear = (struct place){ host_of(o->mem.base), host_of(o->mem.index), (u8)log2_scale(o->mem.scale), (s32)disp };
	a.host = host_place(&a.linear);
	return a;
}

struct operand access_plan(const struct translation_work *w, const ZydisDecodedOperand *o)
{
	return operand_plan(w, work_insn(w), o);
}

struct operand access_plan_at(unsigned base, s32 disp)
{
	struct operand a = { .linear = { (u8)base, NO_REGISTER, 0, disp }, .plain = true };
	a.host = host_place(&a.linear);
	return a;
}

/* T0 = a linear address, from host registers. */
static void emit_linear(struct emitter *e, const struct place *p)
{
	if (p->index == NO_REGISTER && p->base != NO_REGISTER && !p->disp)
		emit_mov(e, T0, p->base);
	else
		emit_lea(e, true, T0, p->base, p->index, p->scale, p->disp);
}

/* An instruction with a register and the entry of index T1 in an array of the table. */
static void emit_entry(struct emitter *e, u8 opcode, unsigned reg, u32 array)
{
	emit_at(e, true, opcode, reg, &(struct place){ TLB_BASE, T1, 3, (s32)array });
}

static void emit_compare(struct emitter *e, u64 limit)
{
	EMIT(e, 0x49, 0x81, 0xfa); /* cmp r10, imm32 */
	emit32(e, (u32)limit);
}

#define TAGS(is_write) ((u32)((is_write) ? offsetof(struct tlb_table, write) : offsetof(struct tlb_table, read)))
#define ADDENDS ((u32)offsetof(struct tlb_table, addend))

/* ---- the code ---- */

static struct stub *access_stub(struct translation_work *w, unsigned size, bool write)
{
	struct stub *s = work_stub(w, SITE_ACCESS, emit_jcc(&w->e, 0x7)); /* ja */
	s->site.detail = (u8)(size | (write ? SITE_WRITE : 0));
	s->ahead = w->ahead_of_flags;
	s->source = w->source;
	s->source.valid = w->deferred;
	return s;
}

/* T0 and T1 from a check of [base + low] stand for an operand above it. */
static void emit_again(struct translation_work *w, const struct operand *a, unsigned size, bool write)
{
	struct emitter *e = &w->e;
	unsigned delta = (unsigned)(a->linear.disp - w->known.low);
	emit_compare(e, PAGE_SIZE - size - delta);
	struct stub *s = access_stub(w, size, write);
	s->entry = w->known.write && !write ? ACCESS_AGAIN_BY_WRITE : ACCESS_AGAIN;
	s->delta = (u8)delta;
	s->linear = a->linear;
	s->retry = e->at;
	s->once = true;
}

/* T0, a linear address: compare, and T1 = index. `delta` bytes above it lies the operand. `tag`: check whether stores may go there, which says
 * that loads may, too. */
static struct stub *emit_first(struct translation_work *w, unsigned size, bool write, bool tag, unsigned delta)
{
	struct emitter *e = &w->e;
	emit_rr(e, false, 0x89, T0, T1);
	EMIT(e, 0x41, 0xc1, 0xeb, PAGE_SHIFT); /* shr r11d, 12 */
	emit_entry(e, 0x2b, T0, TAGS(tag));
	emit_compare(e, PAGE_SIZE - size - delta);
	struct stub *s = access_stub(w, size, write);
	s->entry = tag == write ? ACCESS_FIRST : ACCESS_BY_WRITE;
	s->delta = (u8)delta;
	return s;
}

static void emit_plain(struct translation_work *w, const struct operand *a, unsigned size, bool write)
{
	struct emitter *e = &w->e;
	struct place low = a->linear;
	bool group = low.index == NO_REGISTER && low.base != NO_REGISTER, tag = write;
	if (group)
		low.disp = known_lowest(w, low.base, low.disp, &tag);
	emit_linear(e, &low);
	struct stub *s = emit_first(w, size, write, tag, (unsigned)(a->linear.disp - low.disp));
	emit_entry(e, 0x8b, T1, ADDENDS);
	s->retry = e->at;
	s->once = true;
	w->known = (struct known){ group, tag, low.base, low.disp };
	if (a->host.base == T1 && a->linear.base != NO_REGISTER)
		emit_lea(e, true, T1, T1, a->linear.base, 0, 0);
}

static bool is_known(const struct translation_work *w, const struct operand *a, bool write)
{
	const struct known *k = &w->known;
	s64 distance = (s64)a->linear.disp - k->low;
	return k->valid && a->plain && a->linear.index == NO_REGISTER && a->linear.base == k->base && distance >= 0 &&
	       distance <= KNOWN_DISTANCE_MAX && (k->write || !write);
}

void emit_check(struct translation_work *w, unsigned size, bool write, u8 *retry)
{
	w->known.valid = false;
	emit_first(w, size, write, write, 0)->retry = retry;
	emit_entry(&w->e, 0x03, T0, TAGS(write));
	emit_entry(&w->e, 0x03, T0, ADDENDS);
}

void emit_offset_check(struct translation_work *w, unsigned segment, unsigned size, bool write, u8 *retry)
{
	emit_segment(w, segment, size, write);
	emit_check(w, size, write, retry);
}

bool emit_access(struct translation_work *w, const struct operand *a, const ZydisDecodedOperand *o, unsigned size, bool write)
{
	if (known_proven(w))
		return true;
	work_spill_flags(w);
	if (is_known(w, a, write)) {
		emit_again(w, a, size, write);
		return true;
	}
	w->known.valid = false;
	if (a->plain || !o) {
		emit_plain(w, a, size, write);
		return true;
	}
	u8 *retry = w->e.at;
	if (!emit_effective_address(w, o))
		return false;
	emit_offset_check(w, insn_segment(o->mem.segment), size, write, retry);
	return true;
}

static s32 distance(const u8 *to, const u8 *from)
{
	return to ? (s32)(to - from) : 0;
}

void emit_access_stub(struct translation_work *w, const struct stub *s)
{
	struct emitter *e = &w->e;
	unsigned insn = s->next_insn - 1u;
	if (s->entry == ACCESS_AGAIN || s->entry == ACCESS_AGAIN_BY_WRITE)
		emit_linear(e, &s->linear);
	emit_jump(e, 0xe8, bt_rw(w->cache, w->cache->access[s->entry][!!(s->site.detail & SITE_WRITE)]));
	const struct access_site site = {
		.jump = SITE_JUMP,
		.retry = (s32)(s->retry - (e->at + 5)),
		.detail = s->site.detail,
		.delta = s->delta,
		.length = s->ahead ? 0 : w->insn[insn].z.length,
		.guest_kind = w->insn[insn].kind,
		.offset = s->site.offset,
		.once = s->once,
		.recipe = s->source.valid ? flags_recipe(&s->source) : 0,
		.a = s->source.a,
		.b = s->source.b,
		.next = s->ahead ? 0 : (s16)distance(w->label[s->next_insn], e->at),
	};
	emit_bytes(e, (const u8 *)&site, sizeof(site));
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
