/* Status flags in the frames of faults: those that the last instruction left, though nothing reads them and the next one would overwrite them. What
 * they must be is told by the same instructions, ended by a software interrupt. Intel SDM volume 3, "Exception- or Interrupt-Handler Procedures". */
#include "lib/window.h"

#define STATUS 0x8d5ul
#define FAULTS_LOAD "mov (" R "bx), %edx\n cmp %edx, %ecx"

static u32 memory[2];

/* Ways to a fault, from flags that stay as they are. */
#define WAYS(X, name, text)                                                                                               \
	X(name, load, text "\n" FAULTS_LOAD)                                                                              \
	X(name, store, text "\n mov %eax, (" R "bx)\n xor %edx, %edx")                                                    \
	X(name, read_modify, text "\n addl $1, (" R "bx)")                                                                \
	X(name, push_memory, text "\n push" SUFFIX " (" R "bx)\n test %eax, %eax")                                         \
	X(name, spoilt, text "\n mov $5, %eax\n mov $6, %ecx\n mov $7, %ebp\n lea -8(" R "sp), " R "sp\n" FAULTS_LOAD)       \
	X(name, half_spoilt, text "\n mov $5, %al\n lea 3(" R "cx), %ecx\n" FAULTS_LOAD)                                   \
	X(name, second, text "\n mov (" R "di), %ecx\n mov %eax, 4(" R "di)\n" FAULTS_LOAD)                                \
	X(name, divide, text "\n div %esi")                                                                               \
	X(name, undefined, text "\n ud2")                                                                                 \
	X(name, branch, text "\n jc 1f\n mov $5, %eax\n 1: " FAULTS_LOAD)                                                 \
	X(name, other_branch, text "\n jz 1f\n jmp 2f\n 1: mov %eax, (" R "bx)\n 2: mov $5, %eax\n" FAULTS_LOAD)           \
	X(name, loop, text "\n jmp 2f\n 1: mov $9, %eax\n" FAULTS_LOAD "\n 2: jo 1b\n jmp 1b")                            \
	X(name, call, text "\n call 1f\n 1: mov $5, %eax\n" FAULTS_LOAD)                                                  \
	X(name, ret, text "\n call 1f\n jmp 2f\n 1: ret\n 2: mov $5, %eax\n" FAULTS_LOAD)                                  \
	X(name, far, text "\n jmp 1f\n .skip 4096\n 1: mov $5, %eax\n" FAULTS_LOAD)                                       \
	X(name, read_late, text "\n jmp 1f\n .skip 4096\n 1: mov $5, %eax\n mov (" R "di), %ecx\n setc %dl\n lahf\n" FAULTS_LOAD)

#define MAKERS(X)                                                                                                         \
	X(add, "add %ecx, %eax")                                                                                          \
	X(add_constant, "add $100, %eax")                                                                                 \
	X(add_large, "add $0x12345678, %eax")                                                                             \
	X(add_itself, "add %eax, %eax")                                                                                   \
	X(add_byte, "add %cl, %al")                                                                                       \
	X(add_high, "add %ch, %ah")                                                                                       \
	X(add_word, "add $-1, %ax")                                                                                       \
	X(add_stack, "add $-16, %esp\n sub $-16, %esp")                                                                   \
	X(sub, "sub %ecx, %eax")                                                                                          \
	X(sub_itself, "sub %eax, %eax")                                                                                   \
	X(cmp, "cmp %ecx, %eax")                                                                                          \
	X(cmp_constant, "cmp $1, %cx")                                                                                    \
	X(cmp_large, "cmp $0x7fff0000, %eax")                                                                             \
	X(cmp_memory, "cmp (" R "di), %eax")                                                                              \
	X(test, "test %ecx, %eax")                                                                                        \
	X(test_itself, "test %eax, %eax")                                                                                 \
	X(test_constant, "test $0x80, %al")                                                                               \
	X(and, "and %ecx, %eax")                                                                                          \
	X(or_memory, "or (" R "di), %eax")                                                                                \
	X(xor_itself, "xor %eax, %eax")                                                                                   \
	X(inc, "cmp %ecx, %eax\n inc %eax")                                                                               \
	X(dec, "stc\n dec %eax")                                                                                          \
	X(neg, "neg %eax")                                                                                                \
	X(shl, "shl $3, %eax")                                                                                            \
	X(shr_cl, "cmp %eax, %ecx\n shr %cl, %eax")                                                                       \
	X(imul, "imul %ecx, %eax")                                                                                        \
	X(bt, "cmp %eax, %ecx\n bt $3, %eax")                                                                             \
	X(adc, "stc\n adc %ecx, %eax")                                                                                    \
	X(sahf, "mov $0xd7, %ah\n sahf")                                                                                  \
	X(memory_add, "addl $-1, (" R "di)")

#define DEFINE_WAY(name, way, text) CODE(name##_##way, text);
#define DEFINE(name, text) CODE(name##_plain, text); WAYS(DEFINE_WAY, name, text)
MAKERS(DEFINE)

#define ROW_WAY(name, way, text) { name##_plain, name##_##way, #name " " #way },
#define ROW(name, text) WAYS(ROW_WAY, name, text)

static const struct {
	const u8 *plain, *faults;
	const char *what;
} rows[] = { MAKERS(ROW) };

static const u32 values[][2] = { { 0x7fffffff, 1 }, { 1, 2 }, { 0x80, 0x80 }, { 0xffffffff, 0x18 }, { 0, 0x80000003 } };

static struct state ended(const u8 *code, const u32 *value, unsigned cpl)
{
	struct state s = state_at(code, cpl);
	s.ax = value[0];
	s.cx = value[1];
	s.bx = (ulong)window + 16;
	s.di = (ulong)memory;
	s.flags |= 0x45; /* so that flags are told from those before */
	memory[0] = value[1];
	run(&s);
	return s;
}

void guest_main(void)
{
	window_init();
	window_map(0, NULL, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(rows) * ARRAY_SIZE(values); i++) {
		unsigned row = i / ARRAY_SIZE(values), cpl = i & 1 ? 3 : 0;
		const u32 *value = values[i % ARRAY_SIZE(values)];
		struct state plain = ended(rows[row].plain, value, cpl), s = ended(rows[row].faults, value, cpl);
		bool same = plain.vector == VECTOR_END && s.vector != VECTOR_END && !((plain.flags ^ s.flags) & STATUS);
		if (!same)
			print("%s: %x and %x: flags %lx, not %lx\n", rows[row].what, value[0], value[1], s.flags & STATUS, plain.flags & STATUS);
		CHECK(same);
	}
}
