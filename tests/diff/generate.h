/* Random instructions and random states for them. */
#ifndef NADIR_TESTS_GENERATE_H
#define NADIR_TESTS_GENERATE_H

#include "engine/insn/decode.h"

struct random {
	u64 state;
};

static inline u64 random_next(struct random *r)
{
	u64 z = (r->state += 0x9e3779b97f4a7c15ull);
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline u64 random_below(struct random *r, u64 n)
{
	return random_next(r) % n;
}

static inline bool random_chance(struct random *r, unsigned percent)
{
	return random_below(r, 100) < percent;
}

#define CASE_INSNS_MAX 200

struct test_case {
	u8 code[2048];
	unsigned size;
	unsigned offset; /* from CODE_ADDRESS */
	struct insn insn[CASE_INSNS_MAX];
	unsigned count;
	u64 gpr[16];
	u64 rflags;
	u8 image[4096]; /* XSAVE image, standard format */
};

/* Measure how often each mnemonic comes up, so that all are tried about equally often. */
void generate_calibrate(const struct insn_decoder *decoder, enum insn_mode mode);
/* The case that `r` stands for: one instruction of any testable kind, perhaps followed by some on registers only. */
void generate_case(const struct insn_decoder *decoder, enum insn_mode mode, struct random *r, u64 xstate_mask,
		   struct test_case *c);
/* A block of many instructions with branches, written so that it stays in its code, and its state. */
void generate_block(const struct insn_decoder *decoder, enum insn_mode mode, struct random *r, u64 xstate_mask, struct test_case *c);
/* Random registers. */
void generate_state(struct random *r, enum insn_mode mode, u64 xstate_mask, struct test_case *c);
/* Fill memory with values that instructions find interesting. */
void generate_data(struct random *r, void *buffer, size_t size);

#endif
