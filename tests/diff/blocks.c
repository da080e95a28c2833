/* Random blocks: instructions that lean on each other through flags, registers and memory near the boundaries of pages, with branches, loops
 * and calls. They are written, not found among random bytes, so that they stay in their code: what they do with memory is left to chance. */
#include "generate.h"
#include "native.h"

#include "arch/regs.h"

#include <stdlib.h>
#include <string.h>

#define LENGTH_MAX 40

struct writer {
	struct random *r;
	struct test_case *c;
	bool wide; /* 64-bit code */
	bool small; /* 16-bit code: its addresses and operands get prefixes where they are not 16 bits wide */
	bool quiet; /* no stores now: a return address lies on the stack */
};

/* ---- registers: some address memory, RBP counts loops, the others hold values ---- */

static unsigned pick(struct writer *w, const u8 *list, unsigned count)
{
	u8 reg;
	do
		reg = list[random_below(w->r, count)];
	while (reg >= R8 && !w->wide);
	return reg;
}

static unsigned base_register(struct writer *w)
{
	static const u8 list[] = { RDI, RSI, RBX, R9, R12, R14 };
	return pick(w, list, sizeof(list));
}

static unsigned value_register(struct writer *w)
{
	static const u8 list[] = { RAX, RCX, RDX, R8, R10, R11, R13, R15 };
	return pick(w, list, sizeof(list));
}

/* ---- writing ---- */

static void put(struct writer *w, u64 value, unsigned bytes)
{
	memcpy(w->c->code + w->c->size, &value, bytes);
	w->c->size += bytes;
}

/* The prefix of an operand size of 2 or 4 bytes; others have none. */
static void put_size(struct writer *w, unsigned size)
{
	if (size == (w->small ? 4 : 2))
		put(w, 0x66, 1);
}

/* The prefix of an address of 4 bytes, or 8 in 64-bit code. */
static void put_address_size(struct writer *w)
{
	if (w->small)
		put(w, 0x67, 1);
}

/* MOV of a number into a register, 4 bytes wide. */
static void put_number(struct writer *w, unsigned reg, u64 number)
{
	put_size(w, 4);
	put(w, 0xb8 | reg, 1);
	put(w, number, 4);
}

/* Operand size: 1, 2, 4 or 8, or 0 where the opcode tells; the prefixes in front of an opcode. */
static void prefixes(struct writer *w, unsigned size, unsigned reg, unsigned base)
{
	put_size(w, size);
	if (w->wide)
		put(w, 0x40u | (size == 8) << 3 | (reg >> 3) << 2 | base >> 3, 1);
}

static void opcode(struct writer *w, unsigned code)
{
	if (code > 0xff)
		put(w, code >> 8, 1);
	put(w, code & 0xff, 1);
}

/* An instruction with a register (or opcode extension) and memory near a base. */
static void with_memory(struct writer *w, unsigned size, unsigned code, unsigned reg)
{
	unsigned base = base_register(w);
	s8 disp = (s8)random_below(w->r, random_chance(w->r, 50) ? 16 : 256);
	put_address_size(w);
	if (code > 0xffff) { /* a mandatory prefix */
		put(w, code >> 16, 1);
		code &= 0xffff;
	}
	prefixes(w, size, reg, base);
	opcode(w, code);
	put(w, 0x40u | (reg & 7) << 3 | (base & 7), 1);
	if ((base & 7) == 4)
		put(w, 0x24, 1);
	put(w, (u8)disp, 1);
}

static void with_register(struct writer *w, unsigned size, unsigned code, unsigned reg, unsigned rm)
{
	prefixes(w, size, reg, rm);
	opcode(w, code);
	put(w, 0xc0u | (reg & 7) << 3 | (rm & 7), 1);
}

static unsigned any_size(struct writer *w)
{
	static const u8 sizes[] = { 1, 2, 4, 4, 8, 8 };
	return sizes[random_below(w->r, w->wide ? 6 : 4)];
}

/* A register of that size that holds values: in 32-bit code byte registers 4 to 7 are AH to BH, of which BH is part of a base. */
static unsigned operand_register(struct writer *w, unsigned size)
{
	return size == 1 && !w->wide ? (unsigned)random_below(w->r, 3) : value_register(w);
}

/* ---- the kinds of instructions ---- */

static void alu_memory(struct writer *w)
{
	unsigned size = any_size(w), op = (unsigned)random_below(w->r, 8), store = !w->quiet && random_chance(w->r, 50) ? 0 : 2;
	with_memory(w, size, op << 3 | store | (size > 1), operand_register(w, size));
}

static void alu_immediate(struct writer *w)
{
	unsigned size = any_size(w), op = w->quiet ? 7 : (unsigned)random_below(w->r, 8);
	with_memory(w, size, size == 1 ? 0x80 : 0x83, op);
	put(w, random_next(w->r), 1);
}

static void move(struct writer *w)
{
	static const u16 extend[] = { 0x0fb6, 0x0fb7, 0x0fbe, 0x0fbf };
	unsigned size = any_size(w);
	if (random_chance(w->r, 30))
		with_memory(w, MAX(size, 4u), extend[random_below(w->r, 4)], value_register(w));
	else
		with_memory(w, size, (!w->quiet && random_chance(w->r, 50) ? 0x88 : 0x8a) | (size > 1), operand_register(w, size));
}

static void unary(struct writer *w)
{
	static const u16 code[] = { 0xff00, 0xff01, 0xf702, 0xf703 }; /* INC, DEC, NOT, NEG */
	u16 which = code[random_below(w->r, 4)];
	unsigned size = any_size(w);
	if (w->quiet)
		with_register(w, MAX(size, 2u), which >> 8, which & 7, value_register(w));
	else
		with_memory(w, size, (which >> 8) - (size == 1), which & 7);
}

static void locked(struct writer *w)
{
	static const u16 code[] = { 0x0fc1, 0x0fb1, 0x01, 0x29, 0x31, 0x0fab }; /* XADD, CMPXCHG, ADD, SUB, XOR, BTS */
	unsigned which = (unsigned)random_below(w->r, 6), size = w->wide && random_chance(w->r, 50) ? 8 : 4;
	if (w->quiet)
		return;
	if (which == 5) { /* its bit offset reaches far: only a small one */
		with_memory(w, size, 0x0fba, 5);
		put(w, random_next(w->r), 1);
		return;
	}
	put(w, 0xf0, 1);
	with_memory(w, size, code[which], value_register(w));
}

static void stack(struct writer *w)
{
	unsigned reg = value_register(w), way = (unsigned)random_below(w->r, 4);
	if (w->quiet)
		return;
	if (way == 0)
		with_memory(w, 4, 0xff, 6);
	else if (way == 1)
		with_memory(w, 4, 0x8f, 0);
	else {
		if (reg >= R8)
			put(w, 0x41, 1);
		put(w, (way == 2 ? 0x50u : 0x58u) | (reg & 7), 1);
	}
}

static void shift(struct writer *w)
{
	static const u8 ops[] = { 0, 1, 2, 3, 4, 5, 7 };
	unsigned size = any_size(w), op = ops[random_below(w->r, 7)];
	bool by_cl = random_chance(w->r, 40);
	unsigned code = (by_cl ? 0xd2u : 0xc0u) | (size > 1);
	if (!w->quiet && random_chance(w->r, 40))
		with_memory(w, size, code, op);
	else
		with_register(w, size, code, op, operand_register(w, size));
	if (!by_cl)
		put(w, random_next(w->r), 1);
}

static void registers(struct writer *w)
{
	unsigned size = any_size(w), op = random_chance(w->r, 40) ? 2u + (unsigned)random_below(w->r, 2) : (unsigned)random_below(w->r, 8);
	with_register(w, size, op << 3 | (size > 1), operand_register(w, size), operand_register(w, size));
}

/* Bases wander over the boundary of pages. */
static void wander(struct writer *w)
{
	with_register(w, w->wide ? 8 : 4, 0x83, 0, base_register(w));
	put(w, (u64)(s64)((s64)random_below(w->r, 33) - 16), 1);
}

static void condition(struct writer *w)
{
	unsigned cc = (unsigned)random_below(w->r, 16), size = w->wide && random_chance(w->r, 50) ? 8 : 4;
	switch (random_below(w->r, 3)) {
	case 0:
		with_register(w, 1, 0x0f90 | cc, 0, operand_register(w, 1));
		break;
	case 1:
		with_memory(w, size, 0x0f40 | cc, value_register(w));
		break;
	default:
		if (!w->quiet)
			with_memory(w, 1, 0x0f90 | cc, 0);
	}
}

static void vector(struct writer *w)
{
	static const u32 loads[] = { 0x0f10, 0x0f6e, 0xf30f6f, 0x660f10, 0xf20f10 }, stores[] = { 0x0f11, 0x660f7e, 0xf30f7f, 0x0f13, 0x660fd6 };
	static const u32 aligned[] = { 0x660f6f, 0x660ffe, 0x0f58, 0x660fef };
	unsigned reg = (unsigned)random_below(w->r, 8);
	u32 code = random_chance(w->r, 4)		 ? aligned[random_below(w->r, 4)] :
		   w->quiet || random_chance(w->r, 60) ? loads[random_below(w->r, 5)] :
							   stores[random_below(w->r, 5)];
	with_memory(w, 0, code, reg);
}

static void flags(struct writer *w)
{
	static const u8 code[] = { 0xf8, 0xf9, 0xf5, 0x9f, 0x9e, 0x9c };
	put(w, code[random_below(w->r, w->quiet ? 5 : 6)], 1);
}

static void string(struct writer *w)
{
	static const u8 code[] = { 0xa4, 0xa5, 0xaa, 0xab };
	if (w->quiet)
		return;
	put_number(w, RCX, random_below(w->r, 20));
	put_address_size(w);
	put(w, 0xf3, 1);
	put(w, code[random_below(w->r, 4)], 1);
}

/* ---- control ---- */

static void one(struct writer *w)
{
	static void (*const plain[])(struct writer *w) = {
		alu_memory, alu_memory, alu_immediate, move, move, move, unary, locked, stack, stack, shift, registers, registers, registers,
		wander, condition, condition, vector, flags,
	};
	plain[random_below(w->r, ARRAY_SIZE(plain))](w);
}

static void some(struct writer *w, unsigned most)
{
	for (u64 n = 1 + random_below(w->r, most); n; n--)
		one(w);
}

/* The byte at `field` becomes the distance from behind it to here. */
static void land(struct writer *w, unsigned field)
{
	w->c->code[field] = (u8)(w->c->size - (field + 1));
}

static unsigned jump(struct writer *w, u8 code)
{
	put(w, code, 1);
	put(w, 0, 1);
	return w->c->size - 1;
}

static void skip(struct writer *w)
{
	unsigned field = jump(w, random_chance(w->r, 15) ? 0xe3 : (u8)(0x70 | random_below(w->r, 16)));
	some(w, 4);
	land(w, field);
}

static void loop(struct writer *w)
{
	put_number(w, RBP, 1 + random_below(w->r, 6));
	unsigned start = w->c->size;
	some(w, 4);
	if (random_chance(w->r, 40))
		skip(w);
	with_register(w, 4, 0xff, 1, RBP);
	put(w, 0x75, 1);
	put(w, start - (w->c->size + 1), 1);
}

/* CALL over a jump to the function behind it. */
static void call(struct writer *w)
{
	if (w->quiet)
		return;
	put(w, 0xe8, 1);
	put(w, 2, w->small ? 2 : 4);
	unsigned over = jump(w, 0xeb);
	w->quiet = true;
	some(w, 3);
	w->quiet = false;
	put(w, 0xc3, 1);
	land(w, over);
}

static void piece(struct writer *w)
{
	switch (random_below(w->r, 12)) {
	case 0:
	case 1:
		skip(w);
		break;
	case 2:
		loop(w);
		break;
	case 3:
		call(w);
		break;
	case 4:
		string(w);
		break;
	default:
		one(w);
	}
}

/* ---- state ---- */

/* Mostly around a boundary of two pages that may be written; now and then where a store, or anything, faults. */
static u64 near_boundary(struct random *r)
{
	u64 way = random_below(r, 200), page = way < 190 ? 2 + way % 2 : way < 195 ? 1 : way < 198 ? 0 : DATA_PAGES;
	if (random_chance(r, 25))
		return DATA_ADDRESS + (page % DATA_PAGES ? page % DATA_PAGES : 1) * PAGE_SIZE + random_below(r, PAGE_SIZE - 300) + 100;
	return DATA_ADDRESS + page * PAGE_SIZE + random_below(r, 96) - 64;
}

static void place_bases(struct random *r, struct test_case *c)
{
	static const u8 list[] = { RDI, RSI, RBX, R9, R12, R14 };
	u64 one_place = near_boundary(r);
	for (unsigned i = 0; i < sizeof(list); i++)
		c->gpr[list[i]] = random_chance(r, 30) ? one_place + random_below(r, 16) : near_boundary(r);
	c->gpr[RSP] = DATA_ADDRESS + (DATA_PAGES - 1) * PAGE_SIZE + (random_chance(r, 30) ? random_below(r, 48) : 2048 + random_below(r, 64));
}

/* The instructions one after the other, for printing. */
static bool decode_all(const struct insn_decoder *decoder, enum insn_mode mode, struct test_case *c)
{
	c->count = 0;
	for (unsigned at = 0; at < c->size; at += c->insn[c->count++].z.length)
		if (c->count == CASE_INSNS_MAX || insn_decode(decoder, mode, c->code + at, c->size - at, &c->insn[c->count]) != DECODE_OK)
			return false;
	return true;
}

void generate_block(const struct insn_decoder *decoder, enum insn_mode mode, struct random *r, u64 xstate_mask, struct test_case *c)
{
	struct writer w = { .r = r, .c = c, .wide = mode == INSN_MODE_64, .small = mode == INSN_MODE_16 };
	generate_state(r, mode, xstate_mask, c);
	place_bases(r, c);
	do {
		c->size = 0;
		u64 length = 4 + random_below(r, LENGTH_MAX);
		while (length--)
			piece(&w);
	} while (c->size > sizeof(c->code) - 64 || !decode_all(decoder, mode, c));
	c->offset = (unsigned)(random_chance(r, 50) ? PAGE_SIZE - random_below(r, c->size) : random_below(r, 64));
}
