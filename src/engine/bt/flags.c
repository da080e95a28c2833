/* Status flags that nobody will read, but that a fault's frame shows if there is one.
 *
 * To save them, LAHF, SETO and a store take five instructions and a register. Where no instruction reads them before they are overwritten, it is
 * enough to keep what they were made of: the operands that are left of the instruction that made them, and how to make them anew, the recipe.
 * Only C does that, when translated code is left, and in front of code that reads flags and cannot tell where they come from (emit_complete_flags).
 *
 *   vcpu->flags_image: with FLAGS_RECIPE a recipe, else LAHF's and SETO's image
 *   vcpu->flags_operand: of the recipe
 *
 * Intel SDM volume 1, "EFLAGS Cross-Reference". */
#include "engine/bt/work.h"

/* ---- making flags ---- */

/* LAHF's and SETO's image behind an instruction with two operands. */
#define FLAGS_OF(name, text)                                                                                                              \
	static u32 name(unsigned log_size, u64 a, u64 b)                                                                                  \
	{                                                                                                                                 \
		u32 image = 0;                                                                                                            \
		if (log_size == 0)                                                                                                        \
			__asm__(text "b %b2, %b1\n lahf\n seto %%al" : "+&a"(image), "+r"(a) : "r"(b) : "cc");                           \
		else if (log_size == 1)                                                                                                   \
			__asm__(text "w %w2, %w1\n lahf\n seto %%al" : "+&a"(image), "+r"(a) : "r"(b) : "cc");                           \
		else if (log_size == 2)                                                                                                   \
			__asm__(text "l %k2, %k1\n lahf\n seto %%al" : "+&a"(image), "+r"(a) : "r"(b) : "cc");                           \
		else                                                                                                                      \
			__asm__(text "q %q2, %q1\n lahf\n seto %%al" : "+&a"(image), "+r"(a) : "r"(b) : "cc");                           \
		return image & 0xffff;                                                                                                    \
	}

FLAGS_OF(flags_of_add, "add")
FLAGS_OF(flags_of_cmp, "cmp")
FLAGS_OF(flags_of_test, "test")

void flags_complete(struct vcpu *vcpu)
{
	u32 recipe = vcpu->flags_image;
	unsigned log_size = recipe >> RECIPE_SIZE_SHIFT & 3;
	u64 a = vcpu->flags_operand[0], b = recipe & RECIPE_CONSTANT ? (u64)(s16)(recipe >> RECIPE_CONSTANT_SHIFT) : vcpu->flags_operand[1];
	if (!(recipe & FLAGS_RECIPE))
		return;
	switch (recipe >> RECIPE_KIND_SHIFT & 3) {
	case RECIPE_TEST:
		vcpu->flags_image = flags_of_test(log_size, a, b);
		break;
	case RECIPE_CMP:
		vcpu->flags_image = flags_of_cmp(log_size, a, b);
		break;
	case RECIPE_ADDED:
		vcpu->flags_image = flags_of_add(log_size, a - b, b);
		break;
	default:
		vcpu->flags_image = flags_of_cmp(log_size, a + b, b);
		break;
	}
}

void flags_from_site(struct vcpu *vcpu, const struct access_site *site)
{
	if (!site->recipe)
		return;
	vcpu->flags_image = site->recipe;
	if (site->a != NO_REGISTER)
		vcpu->flags_operand[0] = vcpu->gpr[site->a == HOST_SP ? RSP : site->a];
	if (site->b != NO_REGISTER)
		vcpu->flags_operand[1] = vcpu->gpr[site->b == HOST_SP ? RSP : site->b];
}

/* ---- where flags come from ---- */

/* The host register of a whole operand, or of its low bytes. */
static unsigned operand_host(const ZydisDecodedOperand *o)
{
	int gpr = o->type == ZYDIS_OPERAND_TYPE_REGISTER && !insn_is_high_byte(o->reg.value) ? insn_gpr(o->reg.value) : -1;
	return gpr < 0 ? NO_REGISTER : host_register((unsigned)gpr);
}

/* Flags of an instruction whose second operand counts beside what is in the first one now. */
static struct flags_source source_of_two(const struct insn *insn, enum recipe_kind kind, unsigned a)
{
	const ZydisDecodedOperand *o = &insn->operand[1];
	struct flags_source s = { .kind = (u8)kind, .a = (u8)a, .b = (u8)operand_host(o) };
	bool constant = o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE, changed = kind == RECIPE_ADDED || kind == RECIPE_SUBTRACTED;
	s.constant = constant ? (s32)o->imm.value.s : 0;
	s.valid = constant || (s.b != NO_REGISTER && !(changed && s.b == a));
	return s;
}

static struct flags_source source_of(const struct insn *insn)
{
	const struct flags_source none = { 0 };
	unsigned a = insn->z.operand_count_visible == 2 ? operand_host(&insn->operand[0]) : NO_REGISTER;
	if (a == NO_REGISTER)
		return none;
	bool same = operand_host(&insn->operand[1]) == a;
	const struct flags_source value = { true, RECIPE_TEST, .a = (u8)a, .b = NO_REGISTER, .constant = -1 };
	const struct flags_source zero = { true, RECIPE_TEST, .a = NO_REGISTER, .b = NO_REGISTER };
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_XOR:
		return same ? zero : value;
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
		return value;
	case ZYDIS_MNEMONIC_TEST:
		return same ? value : source_of_two(insn, RECIPE_TEST, a);
	case ZYDIS_MNEMONIC_CMP:
		return source_of_two(insn, RECIPE_CMP, a);
	case ZYDIS_MNEMONIC_ADD:
		return source_of_two(insn, RECIPE_ADDED, a);
	case ZYDIS_MNEMONIC_SUB:
		return source_of_two(insn, RECIPE_SUBTRACTED, a);
	default:
		return none;
	}
}

static bool is_written(const struct insn *insn, unsigned host)
{
	return host != NO_REGISTER && (insn->gpr_written >> (host == HOST_SP ? RSP : host) & 1);
}

void flags_follow(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	struct flags_source *s = &w->source;
	if (insn->flags_written) {
		*s = source_of(insn);
		s->log_size = (u8)__builtin_ctz(insn->operand[0].size / 8u | 16);
		w->deferred = false;
	} else if (is_written(insn, s->a) || is_written(insn, s->b)) {
		s->valid = w->deferred = false;
	}
}

u32 flags_recipe(const struct flags_source *s)
{
	u32 recipe = FLAGS_RECIPE | (u32)s->kind << RECIPE_KIND_SHIFT | (u32)s->log_size << RECIPE_SIZE_SHIFT;
	if (s->b == NO_REGISTER && s->constant == (s16)s->constant)
		recipe |= RECIPE_CONSTANT | (u32)s->constant << RECIPE_CONSTANT_SHIFT;
	return recipe;
}

void emit_recipe(struct emitter *e, const struct flags_source *s)
{
	u32 recipe = flags_recipe(s);
	if (s->a != NO_REGISTER)
		emit_store_gs(e, s->a, VCPU(flags_operand[0]));
	if (s->b != NO_REGISTER) {
		emit_store_gs(e, s->b, VCPU(flags_operand[1]));
	} else if (!(recipe & RECIPE_CONSTANT)) {
		EMIT(e, 0x65, 0x48, 0xc7, 0x04, 0x25); /* mov qword gs:[operand], imm32 */
		emit32(e, VCPU(flags_operand[1]));
		emit32(e, (u32)s->constant);
	}
	EMIT(e, 0x65, 0xc7, 0x04, 0x25); /* mov dword gs:[flags_image], imm32 */
	emit32(e, VCPU(flags_image));
	emit32(e, recipe);
}

void flags_flush(struct translation_work *w)
{
	if (w->deferred)
		emit_recipe(&w->e, &w->source);
	w->deferred = false;
}

/* Whether nothing but an access of the instruction can lead to C. */
static bool leaves_by_access(const struct insn *insn)
{
	switch (insn->kind) {
	case KIND_NOP:
	case KIND_LEA:
	case KIND_NATIVE:
	case KIND_MOV:
	case KIND_MOVZX:
	case KIND_MOVSX:
		return insn->xstate == INSN_NO_XSTATE && !work_divides(insn) && insn->z.mnemonic != ZYDIS_MNEMONIC_CMPXCHG16B;
	case KIND_JCC:
		return true;
	default:
		return false;
	}
}

/* If a recipe is deferred that the current instruction would spoil, or that does not fit a site, store it. */
void flags_look_ahead(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	const struct flags_source *s = &w->source;
	bool spoils = is_written(insn, s->a) || is_written(insn, s->b), shown = insn->flags_killed != RFLAGS_STATUS && w->needed[w->current + 1];
	bool fits = s->b != NO_REGISTER || s->constant == (s16)s->constant;
	if (w->deferred && (!fits || !leaves_by_access(insn) || (spoils && shown)))
		flags_flush(w);
}

void work_save_flags(struct translation_work *w, u16 readers)
{
	if (work_saved(w))
		return;
	w->place = FLAGS_BOTH;
	w->image = readers || !w->source.valid;
	w->deferred = !w->image;
	if (w->deferred) {
		flags_look_ahead(w);
	} else if (!w->known.valid) {
		emit_save_flags_by(&w->e, T1);
	} else {
		emit_save_flags_by(&w->e, TLB_BASE);
		emit_load_gs(&w->e, TLB_BASE, VCPU(tlb));
	}
}

void emit_complete_flags(struct translation_work *w)
{
	struct emitter *e = &w->e;
	flags_flush(w);
	if (w->image)
		return;
	w->image = true;
	EMIT(e, 0x65, 0x80, 0x3c, 0x25); /* cmp byte gs:[flags_image], 0 */
	emit32(e, VCPU(flags_image));
	EMIT(e, 0, 0x79, 5); /* jns over the next */
	emit_jump(e, 0xe8, bt_rw(w->cache, w->cache->complete));
}
