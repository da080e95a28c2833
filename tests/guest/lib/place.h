/* A machine set up as Linux does for its programs, so that user code may be run in place: modes, selectors, system call registers, and user
 * pages of their own in the window, which code under test is copied to. User code starts with null data segments and interrupts on, and
 * is met as everywhere by run() (guest.h); SYSCALL ends a run as vector VECTOR_SYSCALL would. 64-bit guests only. */
#ifndef GUEST_PLACE_H
#define GUEST_PLACE_H

#include "lib/apic.h"
#include "lib/window.h"

#define VECTOR_SYSCALL 0xf0 /* not an interrupt: what SYSCALL looks like to run() */
#define TIMES 300 /* what is done once in place, and stepped then, is done this often */

#define USER_CS (SEL_USER_CODE64 | 3)
#define USER_SS (SEL_USER_DATA | 3)
#define SFMASK 0x257fd5ul /* Linux': all flags that user code can change */

/* Pages of the window: code from 0, data from DATA_PAGE, and then those that come and go. */
#define CODE_PAGES 32
#define DATA_PAGE 64
#define STACK_PAGE 80 /* its end is the stack's top */
#define FREE_PAGE 128
#define PTE_CODE (PTE_P | PTE_U | PTE_A)
#define PTE_DATA (PTE_ALL | PTE_A | PTE_D)

static u8 code_memory[CODE_PAGES][PAGE] __attribute__((aligned(4096)));
static u8 data_memory[16][PAGE] __attribute__((aligned(4096)));
static u8 spare_memory[8][PAGE] __attribute__((aligned(4096)));

/* The frame that an interrupt would have pushed, on the stack that it would have used. */
extern u8 place_syscall_entry[];
ulong place_user_sp;
asm(".pushsection .text\n.balign 16\n"
    "place_syscall_entry:\n mov %rsp, place_user_sp\n mov tss + 4, %rsp\n push $" STRINGIFY(SEL_USER_DATA) " | 3\n push place_user_sp\n push %r11\n"
    "push $" STRINGIFY(SEL_USER_CODE64) " | 3\n push %rcx\n jmp trap_stubs + 16 * " STRINGIFY(VECTOR_SYSCALL) "\n.popsection");

static inline u8 *user_page(unsigned index)
{
	return window + index * PAGE;
}

static inline void place_init(void)
{
	window_init();
	apic_init();
	pic_init(0x20, 1);
	/* Linux has the description of its CPU there (for LSL); its TSS is elsewhere. */
	gdt_set_system(SEL_FREE, (ulong)&tss, sizeof(tss) - 1, ACCESS_TSS);
	write_tr(SEL_FREE);
	gdt_set(SEL_TSS, descriptor(0, 0, ACCESS_DATA_DOWN | ACCESS_DPL(3), DESC_DB));
	gdt_set(SEL_TSS + 8, 0);
	write_cr0((read_cr0() | CR0_MP | CR0_NE | CR0_AM | CR0_WP) & ~(CR0_EM | CR0_TS));
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE);
	struct cpuid d = cpuid(13, 0);
	asm volatile("xsetbv" : : "c"(0), "a"(d.eax), "d"(d.edx));
	asm volatile("fninit");
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE | EFER_NXE);
	wrmsr(MSR_STAR, (u64)(SEL_USER_CODE32 | 3) << 48 | (u64)SEL_CODE64 << 32);
	wrmsr(MSR_LSTAR, (ulong)place_syscall_entry);
	wrmsr(MSR_SFMASK, SFMASK);
	for (unsigned i = 0; i < CODE_PAGES; i++)
		window_map(i, code_memory[i], PTE_CODE);
	for (unsigned i = 0; i < ARRAY_SIZE(data_memory); i++)
		window_map(DATA_PAGE + i, data_memory[i], PTE_DATA);
	window_map(STACK_PAGE - 1, spare_memory[0], PTE_DATA);
}

static inline bool place_possible(void)
{
	return HAS_XSAVE && HAS_FSGSBASE && HAS_SYSCALL && HAS_NX;
}

/* Copy code to a user page; its address there. The INT that ends it comes along. */
static inline u8 *user_code_at(unsigned index, unsigned offset, const u8 *code, const u8 *end)
{
	memcpy(code_memory[index] + offset, code, (ulong)(end - code) + 2);
	return user_page(index) + offset;
}
#define USER_CODE(index, code) user_code_at(index, 0, code, code##_end)
/* Where a label of it is now. */
#define MOVED(at, code, label) ((at) + ((label) - (code)))

static inline struct state user_state(const void *ip)
{
	struct state s = { .ip = (ulong)ip, .cs = USER_CS, .ss = USER_SS, .flags = FLAG_FIXED | FLAG_IF, .sp = (ulong)user_page(STACK_PAGE) - 256 };
	return s;
}

static inline struct state user_run(const void *ip)
{
	struct state s = user_state(ip);
	run(&s);
	return s;
}

#endif
