/* Reading and decoding the instruction that the guest left at (code.h). Intel SDM volume 2, "Instruction Format", "Opcode Map". */
#include "engine/hw/code.h"

#include "arch/paging.h"

#define BYTES_MAX 15

/* ---- where it is ---- */

/* What says how tables are read. */
static u64 mode_of(const struct vcpu *v)
{
	return (v->cr0 & CR0_PG) << 32 | (v->efer & EFER_LMA) << 32 | (v->cr4 & (CR4_PAE | CR4_PSE | CR4_LA57));
}

static bool differs(const void *entry, unsigned size, u64 value)
{
	u64 now = likely(size == 8) ? __atomic_load_n((const u64 *)entry, __ATOMIC_RELAXED) : __atomic_load_n((const u32 *)entry, __ATOMIC_RELAXED);
	return (now ^ value) & ~(PTE_A | PTE_D);
}

static bool still_there(struct vcpu *v, const struct hw_code *c, gla_t page)
{
	if (!c->page || c->gla != page || c->cr3 != v->cr3 || c->mode != mode_of(v) || c->layout != __atomic_load_n(&v->ram->layout, __ATOMIC_SEQ_CST))
		return false;
	for (unsigned i = 0; i < c->trace.levels; i++)
		if (differs(c->entry[i], c->trace.entry_size, c->trace.entry[i].value))
			return false;
	return true;
}

static const u8 *in_ram(struct vcpu *v, gpa_t gpa)
{
	const struct ram_slot *slot = ram_find(v->ram, gpa);
	return slot ? slot->hva + (gpa - slot->base) : NULL;
}

/* The entries are read before it is looked where they lead to, so that a change meanwhile is found next time. */
static bool trace_entries(struct vcpu *v, struct hw_code *c)
{
	c->trace.levels = 0;
	if (!(v->cr0 & CR0_PG))
		return true;
	if (!walk_trace(v, c->gla, &c->trace))
		return false;
	for (unsigned i = 0; i < c->trace.levels; i++) {
		c->entry[i] = in_ram(v, c->trace.entry[i].gpa);
		if (!c->entry[i])
			return false;
	}
	return true;
}

/* The processor has just fetched from there, so that no right needs to be checked. PDPTEs are in registers, and are not looked at again. */
static void find(struct vcpu *v, struct hw_code *c, gla_t page)
{
	gpa_t gpa = page;
	c->page = NULL;
	c->gla = page;
	c->cr3 = v->cr3;
	c->mode = mode_of(v);
	c->layout = __atomic_load_n(&v->ram->layout, __ATOMIC_SEQ_CST);
	if (trace_entries(v, c) && (!(v->cr0 & CR0_PG) || mmu_debug_translate(v, page, &gpa)))
		c->page = in_ram(v, gpa);
}

/* The bytes from RIP to the end of its page. */
static const u8 *fetch(struct vcpu *v, struct hw_code *c, unsigned bits, unsigned *count)
{
	gla_t gla = bits == 64 ? v->rip : (u32)(v->seg[SEG_CS].base + v->rip), page = gla & PAGE_MASK;
	bool registers = (v->cr0 & CR0_PG) && (v->cr4 & CR4_PAE) && !(v->efer & EFER_LMA);
	if (registers || !still_there(v, c, page))
		find(v, c, page);
	*count = (unsigned)(PAGE_SIZE - (gla & ~PAGE_MASK));
	return c->page ? c->page + (gla & ~PAGE_MASK) : NULL;
}

/* ---- forms ---- */

#define KNOWN BIT(0)
#define MODRM BIT(1)
#define BYTE BIT(2)
#define STORE BIT(3)
#define IMMEDIATE BIT(4)
#define OFFSET BIT(5) /* the address itself follows */
#define EXTENDS BIT(6) /* MOVZX, MOVSX */
#define SIGN BIT(7)
#define MOV BIT(8) /* between a register or an immediate and memory */

static const u16 forms[2][256] = {
	{
		[0x88] = KNOWN | MOV | MODRM | BYTE | STORE,
		[0x89] = KNOWN | MOV | MODRM | STORE,
		[0x8a] = KNOWN | MOV | MODRM | BYTE,
		[0x8b] = KNOWN | MOV | MODRM,
		[0xa0] = KNOWN | MOV | OFFSET | BYTE,
		[0xa1] = KNOWN | MOV | OFFSET,
		[0xa2] = KNOWN | MOV | OFFSET | BYTE | STORE,
		[0xa3] = KNOWN | MOV | OFFSET | STORE,
		[0xc6] = KNOWN | MOV | MODRM | BYTE | STORE | IMMEDIATE,
		[0xc7] = KNOWN | MOV | MODRM | STORE | IMMEDIATE,
		[0xf4] = KNOWN, /* HLT */
	},
	{
		[0x01] = KNOWN | MODRM,
		[0x06] = KNOWN, /* CLTS */
		[0x20] = KNOWN | MODRM, [0x21] = KNOWN | MODRM, [0x22] = KNOWN | MODRM, [0x23] = KNOWN | MODRM, /* MOV from and to CR and DR */
		[0x30] = KNOWN, [0x32] = KNOWN, /* WRMSR, RDMSR */
		[0xa2] = KNOWN, /* CPUID */
		[0xb6] = KNOWN | MOV | MODRM | EXTENDS | BYTE,
		[0xb7] = KNOWN | MOV | MODRM | EXTENDS,
		[0xbe] = KNOWN | MOV | MODRM | EXTENDS | BYTE | SIGN,
		[0xbf] = KNOWN | MOV | MODRM | EXTENDS | SIGN,
	},
};

struct cursor {
	const u8 *at, *end;
};

static bool has(const struct cursor *c, unsigned count)
{
	return (unsigned)(c->end - c->at) >= count;
}

static s64 take(struct cursor *c, unsigned size)
{
	s64 value = 0;
	__builtin_memcpy(&value, c->at, size);
	c->at += size;
	return size == 8 ? value : (s64)((u64)value << (64 - 8 * size)) >> (64 - 8 * size);
}

/* Prefixes that say nothing of the forms are passed; with LOCK, REP and REPNE they mean something else, or nothing is known of them. */
static bool take_prefixes(struct cursor *c, struct hw_insn *i, unsigned bits)
{
	bool word = false;
	for (; has(c, 1); c->at++) {
		switch (*c->at) {
		case 0x66:
			word = true;
			continue;
		case 0x67:
			i->address_size = bits == 32 ? 2 : 4;
			continue;
		case 0x2e:
		case 0x36:
		case 0x3e:
		case 0x26:
		case 0x64:
		case 0x65:
			i->odd_address = true;
			continue;
		}
		break;
	}
	if (bits == 64 && has(c, 1) && (*c->at & 0xf0) == 0x40)
		i->rex = *c->at++;
	i->size = i->rex & 8 ? 8 : (bits == 16) == word ? 4 : 2;
	return has(c, 1) && *c->at != 0xf0 && (*c->at & 0xfe) != 0xf2;
}

static bool take_sib(struct cursor *c, struct hw_insn *i)
{
	if (!has(c, 1))
		return false;
	u8 sib = *c->at++;
	i->scale = sib >> 6;
	i->index = (u8)((sib >> 3 & 7) | (i->rex & 2) << 2);
	i->base = (u8)((sib & 7) | (i->rex & 1) << 3);
	if (i->index == RSP)
		i->index = GPR_COUNT;
	return true;
}

static bool take_displacement(struct cursor *c, struct hw_insn *i, unsigned size)
{
	if (!has(c, size))
		return false;
	i->displacement = size ? (s32)take(c, size) : 0;
	return true;
}

/* What there is behind ModRM. */
static bool take_memory(struct cursor *c, struct hw_insn *i, unsigned bits)
{
	unsigned mod = i->modrm >> 6, rm = i->modrm & 7;
	i->base = i->index = GPR_COUNT;
	if (mod == 3)
		return true;
	if (i->address_size == 2) {
		i->odd_address = true;
		return take_displacement(c, i, mod == 2 || (!mod && rm == 6) ? 2 : mod);
	}
	i->base = (u8)hw_insn_rm(i);
	if (rm == 4 && !take_sib(c, i))
		return false;
	i->relative = !mod && rm == 5 && bits == 64;
	if (!mod && (i->base & 7) == 5) {
		i->base = GPR_COUNT;
		return take_displacement(c, i, 4);
	}
	return take_displacement(c, i, mod == 2 ? 4 : mod);
}

static bool take_operands(struct cursor *c, struct hw_insn *i, u16 form, unsigned bits)
{
	if (form & MODRM) {
		if (!has(c, 1))
			return false;
		i->modrm = *c->at++;
		bool registers = i->opcode >= HW_OPCODE_MOV_FROM_CR && i->opcode <= HW_OPCODE_MOV_TO_DR; /* whatever mod says */
		if (!registers && !take_memory(c, i, bits))
			return false;
	}
	i->source = form & BYTE ? 1 : form & EXTENDS ? 2 : i->size;
	if (!(form & EXTENDS))
		i->size = i->source;
	i->odd_address |= form & OFFSET;
	unsigned immediate = form & IMMEDIATE ? MIN(i->size, 4) : form & OFFSET ? i->address_size : 0;
	if (!has(c, immediate))
		return false;
	i->immediate = immediate ? (u64)take(c, immediate) : 0;
	i->sign = form & SIGN;
	i->mov = form & MOV;
	i->store = form & STORE;
	i->has_immediate = form & IMMEDIATE;
	return true;
}

static bool decode(struct cursor *c, struct hw_insn *i, unsigned bits)
{
	if (!take_prefixes(c, i, bits))
		return false;
	bool two = *c->at == 0x0f;
	c->at += two;
	if (!has(c, 1))
		return false;
	u8 opcode = *c->at++;
	u16 form = forms[two][opcode];
	i->opcode = two ? HW_OPCODE_0F(opcode) : opcode;
	return form && take_operands(c, i, form, bits);
}

static u64 reg(const struct vcpu *v, unsigned number)
{
	return number < GPR_COUNT ? v->gpr[number] : 0;
}

/* Only in 64-bit mode, where most segments count for nothing. */
bool hw_insn_address(const struct vcpu *v, const struct hw_insn *i, gla_t *gla)
{
	u64 base = i->relative ? v->rip + i->length : reg(v, i->base);
	*gla = (base + (reg(v, i->index) << i->scale) + (u64)(s64)i->displacement) & size_mask(i->address_size);
	return !i->odd_address && vcpu_64bit(v);
}

unsigned hw_code_is(struct vcpu *v, struct hw_code *code, u32 wanted)
{
	unsigned count, length = wanted > 0xffff ? 3 : wanted > 0xff ? 2 : 1;
	const u8 *bytes = fetch(v, code, vcpu_code_bits(v), &count);
	u32 found = 0;
	if (!bytes || count < length)
		return 0;
	for (unsigned i = 0; i < length; i++)
		found = found << 8 | bytes[i];
	return found == wanted ? length : 0;
}

static bool decode_copy(const u8 *copy, unsigned count, unsigned bits, struct hw_insn *insn)
{
	struct cursor c = { copy, copy + count };
	*insn = (struct hw_insn){ .address_size = (u8)(bits / 8) };
	if (!decode(&c, insn, bits))
		return false;
	insn->length = (u8)(c.at - copy);
	return true;
}

/* Near the end of a page there are fewer bytes. */
static bool decode_few(const u8 *bytes, unsigned count, unsigned bits, struct hw_insn *insn)
{
	u8 copy[BYTES_MAX];
	for (unsigned i = 0; i < count; i++)
		copy[i] = bytes[i];
	return decode_copy(copy, count, bits, insn);
}

/* What leaves is mostly the same few instructions; others may write them meanwhile, so a copy is looked at. */
bool hw_decode(struct vcpu *v, struct hw_code *code, const u8 *bytes, unsigned count, struct hw_insn *insn)
{
	unsigned bits = vcpu_code_bits(v);
	union {
		u8 byte[BYTES_MAX];
		u64 first;
	} copy;
	u64 last;
	if (!count)
		bytes = fetch(v, code, bits, &count);
	if (!bytes)
		return false;
	if (unlikely(count < BYTES_MAX))
		return decode_few(bytes, count, bits, insn);
	__builtin_memcpy(copy.byte, bytes, BYTES_MAX);
	__builtin_memcpy(&last, copy.byte + BYTES_MAX - sizeof(last), sizeof(last));
	struct hw_known *k = &code->known[(v->rip ^ v->rip >> 4) & (HW_KNOWN - 1)];
	if (k->first != copy.first || k->last != last || k->bits != bits) {
		k->bits = 0;
		if (!decode_copy(copy.byte, BYTES_MAX, bits, &k->insn))
			return false;
		k->first = copy.first;
		k->last = last;
		k->bits = (u8)bits;
	}
	*insn = k->insn;
	return true;
}
