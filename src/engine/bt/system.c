/* Sensitive instructions done inline, where nothing unusual is the case; else their call-out does them, out of line. Interrupts are looked for
 * at the next poll, as after any instruction: what STI must look at is only what was put aside while IF was clear.
 * Intel SDM volume 2, CLI, STI, PUSHF, CLD, STAC, SWAPGS, RDTSC. */
#include "engine/bt/work.h"

#include "mmu/mmu.h"

#define SEGMENT_BASE(number) ((u32)(offsetof(struct vcpu, seg) + (number) * sizeof(struct segment) + offsetof(struct segment, base)))
#define SELECTOR(number) ((u32)(offsetof(struct vcpu, seg) + (number) * sizeof(struct segment)))

/* The instruction's call-out, out of line, if the condition holds: may be asked twice. */
static void slow_if(struct translation_work *w, struct stub **slow, u8 condition)
{
	u8 *jump = emit_jcc(&w->e, condition);
	if (*slow) {
		(*slow)->jump_too = jump;
		return;
	}
	*slow = work_stub(w, SITE_CALLOUT, jump);
	(*slow)->callout = (u8)(w->callouts - 1);
}

/* An instruction of group 1 (81, 83 or 80 /digit) on GS:[offset], with an immediate of 1 or 4 bytes. */
static void emit_gs_group(struct emitter *e, u8 opcode, u8 digit, u32 offset, u32 value)
{
	EMIT(e, 0x65, opcode, (u8)(0x04 | digit << 3), 0x25);
	emit32(e, offset);
	if (opcode == 0x81)
		emit32(e, value);
	else
		emit8(e, (u8)value);
}

static void require_cpl0(struct translation_work *w, struct stub **slow)
{
	emit_gs_group(&w->e, 0x80, 7, VCPU(cpl), 0); /* cmp byte gs:[cpl], 0 */
	slow_if(w, slow, 0x5);
}

static void clear_rflags(struct emitter *e, u32 flags)
{
	emit_gs_group(e, 0x81, 4, VCPU(rflags), ~flags); /* and */
}

static void set_rflags(struct emitter *e, u32 flags)
{
	emit_gs_group(e, 0x81, 1, VCPU(rflags), flags); /* or */
}

static bool emit_cli(struct translation_work *w, struct stub **slow)
{
	require_cpl0(w, slow);
	clear_rflags(&w->e, RFLAGS_IF);
	return true;
}

/* The instruction behind STI comes before interrupts: it must not be at a poll, that is, at the start of a block. */
static bool emit_sti(struct translation_work *w, struct stub **slow)
{
	if (w->current + 1 == w->count)
		return false;
	require_cpl0(w, slow);
	emit_gs_group(&w->e, 0x83, 7, VCPU(deferred), 0); /* cmp dword gs:[deferred], 0 */
	slow_if(w, slow, 0x5);
	set_rflags(&w->e, RFLAGS_IF);
	return true;
}

static bool emit_cld(struct translation_work *w, struct stub **slow)
{
	clear_rflags(&w->e, RFLAGS_DF);
	return true;
}

static bool emit_std(struct translation_work *w, struct stub **slow)
{
	set_rflags(&w->e, RFLAGS_DF);
	return true;
}

/* Real-address or virtual-8086 mode: CPL tells them apart. */
static bool is_real(const struct translation_work *w)
{
	return w->mode == INSN_MODE_REAL16 || w->mode == INSN_MODE_REAL32;
}

/* The image of the flags is that of LAHF in its second byte, and OF in the first. */
static bool emit_pushf(struct translation_work *w, struct stub **slow)
{
	struct emitter *e = &w->e;
	if (w->mode == INSN_MODE_64 && work_insn(w)->z.operand_width != 64)
		return false;
	if (is_real(w))
		require_cpl0(w, slow); /* in virtual-8086 mode IOPL has a say */
	emit_complete_flags(w);
	emit_gs(e, false, 0x8b, T0, VCPU(flags_image));
	EMIT(e, 0x45, 0x0f, 0xb6, 0xda); /* movzx r11d, r10b */
	EMIT(e, 0x41, 0xc1, 0xe3, 11); /* shl r11d, 11 */
	EMIT(e, 0x41, 0xc1, 0xea, 8); /* shr r10d, 8 */
	EMIT(e, 0x41, 0x81, 0xe2); /* and r10d, imm32 */
	emit32(e, RFLAGS_STATUS & 0xff);
	emit_rr(e, false, 0x09, T0, T1); /* or r11d, r10d */
	emit_gs(e, false, 0x8b, T0, VCPU(rflags));
	EMIT(e, 0x41, 0x81, 0xe2); /* and r10d, imm32 */
	emit32(e, ~(u32)(RFLAGS_STATUS | RFLAGS_VM | RFLAGS_RF));
	emit_rr(e, false, 0x09, T1, T0); /* or r10d, r11d */
	emit_store_gs(e, T0, VCPU(scratch[1]));
	w->known.valid = false; /* T0 and T1 were used */
	if (w->mode == INSN_MODE_64)
		emit_push_saved(w);
	else
		narrow_push_saved(w, work_insn(w)->z.operand_width / 8u);
	return true;
}

/* What mmu_update_view does: both views are known. */
static void emit_view(struct emitter *e, enum tlb_view view)
{
	EMIT(e, 0x41, 0xc6, 0x82); /* mov byte [r10 + view], imm8 */
	emit32(e, offsetof(struct mmu, view));
	emit8(e, view);
	emit_rm(e, true, 0x8b, TLB_BASE, T0, offsetof(struct mmu, current));
	emit_lea(e, true, TLB_BASE, TLB_BASE, NO_REGISTER, 0, (s32)(offsetof(struct tlb, table) + view * sizeof(struct tlb_table)));
	emit_rm(e, true, 0x89, TLB_BASE, T0, offsetof(struct mmu, explicit));
	emit_store_gs(e, TLB_BASE, VCPU(tlb));
}

static bool emit_stac(struct translation_work *w, struct stub **slow)
{
	if (is_real(w))
		return false;
	require_cpl0(w, slow);
	set_rflags(&w->e, RFLAGS_AC);
	emit_load_gs(&w->e, T0, VCPU(mmu));
	emit_view(&w->e, VIEW_SUPERVISOR);
	return true;
}

static bool emit_clac(struct translation_work *w, struct stub **slow)
{
	struct emitter *e = &w->e;
	if (is_real(w))
		return false;
	require_cpl0(w, slow);
	emit_load_gs(e, T0, VCPU(mmu));
	EMIT(e, 0x41, 0x80, 0xba); /* cmp byte [r10 + implicit_view], imm8 */
	emit32(e, offsetof(struct mmu, implicit_view));
	emit8(e, VIEW_SUPERVISOR_SMAP);
	slow_if(w, slow, 0x5);
	clear_rflags(e, RFLAGS_AC);
	emit_view(e, VIEW_SUPERVISOR_SMAP);
	return true;
}

static bool emit_swapgs(struct translation_work *w, struct stub **slow)
{
	struct emitter *e = &w->e;
	if (w->mode != INSN_MODE_64)
		return false;
	require_cpl0(w, slow);
	emit_load_gs(e, T0, SEGMENT_BASE(SEG_GS));
	emit_load_gs(e, T1, VCPU(msr.kernel_gs_base));
	emit_store_gs(e, T0, VCPU(msr.kernel_gs_base));
	emit_store_gs(e, T1, SEGMENT_BASE(SEG_GS));
	return true;
}

static bool emit_tsc(struct translation_work *w, struct stub **slow)
{
	struct emitter *e = &w->e;
	EMIT(e, 0x65, 0xf6, 0x04, 0x25); /* test byte gs:[cr4], TSD */
	emit32(e, VCPU(cr4));
	emit8(e, CR4_TSD);
	slow_if(w, slow, 0x5);
	if (work_insn(w)->kind == KIND_RDTSCP)
		EMIT(e, 0x0f, 0x01, 0xf9);
	else
		EMIT(e, 0x0f, 0x31);
	EMIT(e, 0x48, 0xc1, 0xe2, 32, 0x48, 0x09, 0xd0); /* shl rdx, 32; or rax, rdx */
	emit_gs(e, true, 0x03, RAX, VCPU(tsc_offset)); /* add */
	EMIT(e, 0x48, 0x89, 0xc2, 0x48, 0xc1, 0xea, 32, 0x89, 0xc0); /* mov rdx, rax; shr rdx, 32; mov eax, eax */
	if (work_insn(w)->kind == KIND_RDTSCP)
		emit_gs(e, false, 0x8b, RCX, VCPU(msr.tsc_aux));
	return true;
}

/* Reading a segment register; writes to memory are 16 bits wide. */
static bool emit_from_segment(struct translation_work *w, struct stub **slow)
{
	const ZydisDecodedOperand *to = &work_insn(w)->operand[0], *from = &work_insn(w)->operand[1];
	struct emitter *e = &w->e;
	int gpr = to->type == ZYDIS_OPERAND_TYPE_REGISTER ? insn_gpr(to->reg.value) : -1;
	if (gpr < 0 || to->size < 32 || from->reg.value < ZYDIS_REGISTER_ES || from->reg.value > ZYDIS_REGISTER_GS)
		return false;
	unsigned host = host_register((unsigned)gpr), reg = host == NO_REGISTER ? T0 : host;
	emit8(e, 0x65);
	emit_rex(e, false, reg, NO_REGISTER, NO_REGISTER);
	EMIT(e, 0x0f, 0xb7, (u8)(0x04 | (reg & 7) << 3), 0x25); /* movzx reg, word gs:[selector] */
	emit32(e, SELECTOR(insn_segment(from->reg.value)));
	if (host == NO_REGISTER)
		emit_store_gs(e, T0, VCPU_GPR((unsigned)gpr));
	return true;
}

static const struct {
	u8 kind;
	bool (*emit)(struct translation_work *w, struct stub **slow); /* false: not in this form; what was written is taken back */
} forms[] = {
	{ KIND_CLI, emit_cli }, { KIND_STI, emit_sti }, { KIND_CLD, emit_cld }, { KIND_STD, emit_std }, { KIND_PUSHF, emit_pushf },
	{ KIND_STAC, emit_stac }, { KIND_CLAC, emit_clac }, { KIND_SWAPGS, emit_swapgs }, { KIND_RDTSC, emit_tsc },
	{ KIND_RDTSCP, emit_tsc }, { KIND_MOV_SEGMENT, emit_from_segment },
};

bool emit_system(struct translation_work *w)
{
	struct stub *slow = NULL;
	unsigned i = 0;
	while (i < ARRAY_SIZE(forms) && forms[i].kind != work_insn(w)->kind)
		i++;
	if (i == ARRAY_SIZE(forms) || !callout_prepare(w))
		return false;
	u8 *at = w->e.at;
	unsigned stubs = w->stubs;
	enum flags_place place = w->place;
	bool image = w->image, deferred = w->deferred;
	w->known.valid = false; /* before the stack is accessed, too */
	work_spill_flags(w);
	if (!forms[i].emit(w, &slow)) {
		w->e.at = at;
		w->stubs = stubs;
		w->place = place;
		w->image = image;
		w->deferred = deferred;
		w->callouts--;
		return false;
	}
	if (slow) {
		slow->retry = w->e.at;
		w->ready = 0;
	} else {
		w->callouts--;
	}
	w->bt->count[COUNT_INLINE_SITES]++;
	return true;
}
