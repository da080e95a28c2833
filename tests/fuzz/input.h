/* Reading a fuzzer's bytes as a sequence of decisions. When they run out, every further value is 0. */
#ifndef NADIR_TESTS_FUZZ_INPUT_H
#define NADIR_TESTS_FUZZ_INPUT_H

#include "arch/types.h"

struct input {
	const u8 *bytes;
	size_t left;
};

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size);

static inline u64 input_take(struct input *in, unsigned size)
{
	u64 value = 0;
	for (unsigned i = 0; i < size && in->left; i++, in->left--)
		value |= (u64)*in->bytes++ << (8 * i);
	return value;
}

static inline u8 input_u8(struct input *in)
{
	return (u8)input_take(in, 1);
}

static inline u32 input_u32(struct input *in)
{
	return (u32)input_take(in, 4);
}

/* 1, 2, 4 or 8. */
static inline unsigned input_size(struct input *in)
{
	return 1u << (input_u8(in) & 3);
}

/* A step in time from nanoseconds to minutes: short and long ones are as likely. */
static inline u64 input_step(struct input *in)
{
	u8 shift = input_u8(in) % 24;
	return (u64)input_take(in, 2) << shift;
}

/* What must hold; the sanitizers report the stack. */
#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			__builtin_trap();                                                                              \
	} while (0)

#endif
