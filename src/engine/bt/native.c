/* Instructions that run as themselves, with registers renamed and the memory operand behind its check. */
#include "engine/bt/work.h"
#include "engine/insn/rewrite.h"

/* Registers of the instruction that live in memory, and the scratch registers that stand for them. */
struct loaned {
	unsigned count;
	u8 gpr[2], host[2];
};

/* Beside a memory operand, only one scratch register is free. */
static bool lend(struct loaned *l, unsigned gpr, const struct operand *memory)
{
	for (unsigned i = 0; i < l->count; i++)
		if (l->gpr[i] == gpr)
			return true;
	if (l->count == (memory ? 1 : 2))
		return false;
	l->gpr[l->count] = (u8)gpr;
	l->host[l->count] = (u8)(memory ? access_free(memory) : l->count ? T1 : T0);
	l->count++;
	return true;
}

/* Which registers are lent; false if there are too many, or if one is implied and so cannot be renamed. */
static bool find_loans(const struct insn *insn, const struct operand *memory, struct loaned *l)
{
	*l = (struct loaned){ 0 };
	for (unsigned i = 0; i < insn->z.operand_count; i++) {
		const ZydisDecodedOperand *o = &insn->operand[i];
		int gpr = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? insn_gpr(o->reg.value) : -1;
		if (gpr < 0 || (gpr != RSP && host_register((unsigned)gpr) != NO_REGISTER))
			continue;
		if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE)
			return false;
		if (gpr != RSP && !lend(l, (unsigned)gpr, memory))
			return false;
	}
	return true;
}

static struct register_map make_map(const struct loaned *l, const struct operand *memory)
{
	struct register_map map = { .memory = memory->host };
	for (unsigned i = 0; i < GPR_COUNT; i++)
		map.gpr[i] = (u8)host_register(i);
	for (unsigned i = 0; i < l->count; i++)
		map.gpr[l->gpr[i]] = l->host[i];
	return map;
}

/* The width of the operand as the TLB check must see it. */
static unsigned access_size(const struct insn *insn)
{
	return insn_memory(insn)->size / 8;
}

/* Flags that pass through the instruction, or that it reads, must be in the host. `temp` may be clobbered. */
static void place_flags(struct translation_work *w, unsigned temp)
{
	const struct insn *insn = work_insn(w);
	u16 after = w->needed[w->current + 1];
	w->saved[w->current] = work_saved(w);
	if (!insn->flags_tested && !insn->flags_written)
		return;
	if (insn->flags_tested || (after & ~insn->flags_killed))
		work_need_flags_by(w, temp);
	if (insn->flags_written)
		w->place = FLAGS_HOST;
}

/* The address of an x87 operand is kept for the data pointer. */
static bool note_x87_operand(struct translation_work *w, const ZydisDecodedOperand *o)
{
	if (!insn_records_x87(work_insn(w)))
		return true;
	w->known.valid = false;
	if (!emit_effective_address(w, o))
		return false;
	emit_store_gs(&w->e, T0, VCPU(scratch[3]));
	return true;
}

static void copy16(struct emitter *e, u32 from, u32 to)
{
	emit8(e, 0x66);
	emit_gs(e, false, 0x8b, T1, from);
	emit8(e, 0x66);
	emit_gs(e, false, 0x89, T1, to);
}

#define SELECTOR(number) ((u32)(offsetof(struct vcpu, seg) + (number) * sizeof(struct segment)))

/* After an x87 instruction: what the real CPU recorded lies in the host. */
static void note_x87(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	const ZydisDecodedInstructionRaw *raw = &insn->z.raw;
	struct emitter *e = &w->e;
	if (!insn_records_x87(insn))
		return;
	emit_load_gs(e, T1, VCPU(code_base));
	emit_lea(e, w->mode == INSN_MODE_64, T1, T1, NO_REGISTER, 0, w->at[w->current]);
	emit_store_gs(e, T1, VCPU(x87.ip));
	EMIT(e, 0x66, 0x65, 0xc7, 0x04, 0x25); /* mov word gs:[op], imm16 */
	emit32(e, VCPU(x87.op));
	emit16(e, (u16)((insn->z.opcode & 7) << 8 | raw->modrm.mod << 6 | raw->modrm.reg << 3 | raw->modrm.rm));
	copy16(e, SELECTOR(SEG_CS), VCPU(x87.cs));
	if (insn->memory < 0)
		return;
	emit_load_gs(e, T1, VCPU(scratch[3]));
	emit_store_gs(e, T1, VCPU(x87.dp));
	copy16(e, SELECTOR(insn_segment(insn_memory(insn)->mem.segment)), VCPU(x87.ds));
}

/* With a memory operand beside AH to BH: no register can be named that needs a REX prefix, so the address, in T0, is lent one that does not.
 * None of these instructions faults. */
static bool emit_high_byte(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	const ZydisDecodedOperand *o = insn_memory(insn);
	struct operand access = { .host = { T0, NO_REGISTER, 0, 0 } };
	enum gpr lent = insn_scratch(insn);
	struct rewritten host;
	if (!insn_rewrite(insn, lent, &host) || !emit_access(w, &access, o, 1, o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
		return false;
	place_flags(w, T1);
	emit_mov(&w->e, T1, lent);
	emit_mov(&w->e, lent, T0);
	emit_bytes(&w->e, host.bytes, host.length);
	emit_mov(&w->e, lent, T1);
	return true;
}

bool emit_native(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	bool memory = insn->memory >= 0;
	const ZydisDecodedOperand *o = memory ? insn_memory(insn) : NULL;
	struct operand access = { 0 };
	struct loaned loaned;
	struct rewritten host;
	if (memory && insn_names_high_byte(insn))
		return emit_high_byte(w);
	if (memory)
		access = access_plan(w, o);
	if (!find_loans(insn, memory ? &access : NULL, &loaned))
		return false;
	struct register_map map = make_map(&loaned, &access);
	if (!insn_rewrite_renamed(insn, &map, &host))
		return false;
	if (memory && (!access_size(insn) || access_size(insn) > 64))
		return false;
	emit_vector_check(w, insn->xstate);
	if (memory && (!note_x87_operand(w, o) ||
		       !emit_access(w, &access, o, access_size(insn), o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)))
		return false;
	/* Bringing flags back uses a register that may be lent. */
	place_flags(w, memory ? access_free(&access) : T1);
	for (unsigned i = 0; i < loaned.count; i++)
		if (insn->gpr_read & (1u << loaned.gpr[i]))
			emit_load_gs(&w->e, loaned.host[i], VCPU_GPR(loaned.gpr[i]));
	emit_bytes(&w->e, host.bytes, host.length);
	for (unsigned i = 0; i < loaned.count; i++)
		if (insn->gpr_written & (1u << loaned.gpr[i]))
			emit_store_gs(&w->e, loaned.host[i], VCPU_GPR(loaned.gpr[i]));
	note_x87(w);
	w->kept = !loaned.count && !insn_records_x87(insn);
	return true;
}

/* T1 = the bit index, sign-extended from the operand's size. */
static void emit_bit_index(struct translation_work *w, unsigned bits)
{
	struct emitter *e = &w->e;
	unsigned gpr = (unsigned)insn_gpr(work_insn(w)->operand[1].reg.value), host = host_register(gpr);
	if (host == NO_REGISTER) {
		emit_load_gs(e, T1, VCPU_GPR(gpr));
		host = T1;
	}
	emit_rex(e, true, T1, NO_REGISTER, host);
	if (bits == 16)
		EMIT(e, 0x0f, 0xbf); /* movsx */
	else
		emit8(e, bits == 32 ? 0x63 : 0x8b); /* movsxd or mov */
	emit8(e, (u8)(0xc0 | (T1 & 7) << 3 | (host & 7)));
}

/* T0, an address, moves by the elements that the index is away. */
static void emit_to_element(struct translation_work *w, unsigned bits)
{
	struct emitter *e = &w->e;
	unsigned address = work_insn(w)->z.address_width, log = bits == 64 ? 6 : bits == 32 ? 5 : 4;
	EMIT(e, 0x49, 0xc1, 0xfb, (u8)log); /* sar r11, log */
	emit_lea(e, address == 64, T0, T0, T1, log - 3, 0);
	if (address == 16)
		emit_cut16(e, T0);
}

bool emit_bit_insn(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	const ZydisDecodedOperand *o = insn_memory(insn);
	struct emitter *e = &w->e;
	unsigned bits = insn->z.operand_width;
	work_spill_flags(w);
	u8 *retry = e->at;
	if (!emit_effective_address(w, o))
		return false;
	emit_bit_index(w, bits);
	emit_to_element(w, bits);
	emit_offset_check(w, insn_segment(o->mem.segment), bits / 8, o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE, retry);
	emit_bit_index(w, bits);
	EMIT(e, 0x41, 0x83, 0xe3, (u8)(bits - 1)); /* and r11d, bits - 1 */
	emit_store_gs(e, T1, VCPU(scratch[1]));
	place_flags(w, T1);
	emit_load_gs(e, T1, VCPU(scratch[1]));
	if (insn->z.attributes & ZYDIS_ATTRIB_HAS_LOCK)
		emit8(e, 0xf0);
	if (bits == 16)
		emit8(e, 0x66);
	emit_rex(e, bits == 64, T1, NO_REGISTER, T0);
	EMIT(e, 0x0f, insn->z.opcode);
	emit_address(e, T1, T0, NO_REGISTER, 0, 0);
	return true;
}

/* The result of LEA is in T0; move its operand size to the destination. */
static void store_result(struct translation_work *w, unsigned gpr, unsigned bits)
{
	struct emitter *e = &w->e;
	unsigned to = host_register(gpr);
	if (to == NO_REGISTER) {
		to = T1;
		if (bits == 16)
			emit_load_gs(e, T1, VCPU_GPR(gpr));
	}
	if (bits == 16)
		emit8(e, 0x66);
	emit_rr(e, bits == 64, 0x89, T0, to);
	if (to == T1)
		emit_store_gs(e, T1, VCPU_GPR(gpr));
}

bool emit_lea_insn(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	const ZydisDecodedOperandMem *mem = &insn->operand[1].mem;
	int gpr = insn_gpr(insn->operand[0].reg.value);
	u8 *start = w->e.at;
	unsigned bits = insn->z.operand_width;
	int base = insn_gpr(mem->base), index = insn_gpr(mem->index);
	bool plain = host_register((unsigned)gpr) != NO_REGISTER && mem->base != ZYDIS_REGISTER_RIP && mem->base != ZYDIS_REGISTER_EIP &&
		     (base < 0 || host_register((unsigned)base) != NO_REGISTER) &&
		     (index < 0 || host_register((unsigned)index) != NO_REGISTER);
	if (plain && bits >= 32 && insn->z.address_width >= 32) {
		static const u8 shift[9] = { [1] = 0, [2] = 1, [4] = 2, [8] = 3 };
		emit_lea(&w->e, bits == 64 && insn->z.address_width == 64, host_register((unsigned)gpr),
			 base < 0 ? NO_REGISTER : host_register((unsigned)base),
			 index < 0 ? NO_REGISTER : host_register((unsigned)index), shift[mem->scale],
			 mem->disp.has_displacement ? (s32)mem->disp.value : 0);
		w->kept = true;
		return true;
	}
	if (!emit_effective_address(w, &insn->operand[1])) {
		w->e.at = start;
		return false;
	}
	store_result(w, (unsigned)gpr, bits);
	return true;
}
