/* Loops that run natively and in the guest, the same instructions in both: what a technique leaves of the processor's speed. */
#ifndef NADIR_HOST_LINUX_LOOPS_H
#define NADIR_HOST_LINUX_LOOPS_H

#define LOOP_ROUNDS 20000u
#define LOOP_LOADS 2000u
#define LOOP_FEW 64u /* pages, which any TLB holds */
#define LOOP_MANY 8192u /* pages, which hardly any does */
#define LOOP_PAGE 4096u

/* Arithmetic, with a branch that depends on it. */
static inline void loop_arithmetic(void)
{
	unsigned long rounds = LOOP_ROUNDS, value = 1;
	__asm__ volatile("1:\timulq $0x5851f42d, %[value], %[value]\n\t"
			 "addq $0x14057b7e, %[value]\n\t"
			 "movq %[value], %%rax\n\t"
			 "shrq $29, %%rax\n\t"
			 "xorq %%rax, %[value]\n\t"
			 "testb $0x30, %%al\n\t"
			 "jne 2f\n\t"
			 "rolq $7, %[value]\n"
			 "2:\tsubq $1, %[rounds]\n\t"
			 "jne 1b"
			 : [rounds] "+r"(rounds), [value] "+r"(value)
			 :
			 : "rax", "cc");
}

/* Calls, half of them through a register, and their returns. */
static inline void loop_calls(void)
{
	unsigned long rounds = LOOP_ROUNDS / 4;
	__asm__ volatile("leaq 3f(%%rip), %%rax\n"
			 "1:\tcall 3f\n\t"
			 "call *%%rax\n\t"
			 "subq $1, %[rounds]\n\t"
			 "jne 1b\n\t"
			 "jmp 4f\n"
			 "3:\tret\n"
			 "4:"
			 : [rounds] "+r"(rounds)
			 :
			 : "rax", "cc", "memory");
}

/* Loads of zeros from `pages` pages (a power of two) in a row, each page once in an order that no prefetcher guesses, each load after the one before.
 * *at is where it goes on from. */
static inline void loop_loads(const void *base, unsigned long pages, unsigned long *at)
{
	unsigned long rounds = LOOP_LOADS, page = *at, offset;
	__asm__ volatile("1:\tmovq %[page], %[offset]\n\t"
			 "shlq $12, %[offset]\n\t"
			 "addq (%[base],%[offset]), %[page]\n\t"
			 "leaq 1(%[page],%[page],4), %[page]\n\t"
			 "andq %[mask], %[page]\n\t"
			 "subq $1, %[rounds]\n\t"
			 "jne 1b"
			 : [rounds] "+r"(rounds), [page] "+r"(page), [offset] "=&r"(offset)
			 : [base] "r"(base), [mask] "r"(pages - 1)
			 : "cc", "memory");
	*at = page;
}

#endif
