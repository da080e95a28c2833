/* Native execution of generated instructions: see native.h. */
#define _GNU_SOURCE
#include "native.h"

#include <asm/ldt.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

_Static_assert(offsetof(struct native_context, rflags) == CTX_RFLAGS - CONTEXT_ADDRESS, "offset");
_Static_assert(offsetof(struct native_context, mask) == CTX_MASK - CONTEXT_ADDRESS, "offset");
_Static_assert(offsetof(struct native_context, out_rflags) == CTX_OUT_RFLAGS - CONTEXT_ADDRESS, "offset");
_Static_assert(offsetof(struct native_context, in_image) == CTX_IN_IMAGE - CONTEXT_ADDRESS, "offset");

void native_enter(void);
void native_enter32(void);
void native_exit(void);
void native_leave(void);

#define EXIT64 (CODE_ADDRESS + 0x1f00) /* a 64-bit jump to native_exit that 32-bit code reaches */

static struct sigaction engine_action[NSIG];

static void take_registers(const greg_t *g)
{
	static const int order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				       REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
	for (unsigned i = 0; i < 16; i++)
		native->out_gpr[i] = (u64)g[order[i]];
	native->out_rflags = (u64)g[REG_EFL];
	native->out_vector = g[REG_TRAPNO];
	native->out_error = (u64)g[REG_ERR];
	native->out_cr2 = (u64)g[REG_CR2];
	native->out_rip = (u64)g[REG_RIP];
}

/* 16-bit code runs in a segment of its own that begins at the code page. */
#define CS16 7 /* first entry of the LDT, RPL 3 */

static u64 code_base(u64 cs)
{
	return (cs & 0xffff) == CS16 ? CODE_ADDRESS : 0;
}

static void on_signal(int number, siginfo_t *info, void *opaque)
{
	ucontext_t *context = opaque;
	greg_t *g = context->uc_mcontext.gregs;
	u64 base = code_base((u64)g[REG_CSGSFS]);
	if (base + (u64)g[REG_RIP] - CODE_ADDRESS >= CODE_SIZE_BYTES) {
		if (engine_action[number].sa_sigaction)
			engine_action[number].sa_sigaction(number, info, opaque);
		return;
	}
	take_registers(g);
	native->out_rip += base;
	memcpy(native->out_image, context->uc_mcontext.fpregs, sizeof(native->out_image) - 1024);
	g[REG_RIP] = (greg_t)(uintptr_t)native_leave;
	g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffll) | NATIVE_CS64;
	g[REG_EFL] = 0x202;
}

static bool map_fixed(u64 address, size_t size, int protection)
{
	void *p = (void *)(uintptr_t)address;
	return mmap(p, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == p;
}

static void put_exit64(u8 *at)
{
	static const u8 jump[6] = { 0xff, 0x25 };
	u64 target = (u64)(uintptr_t)native_exit;
	memcpy(at, jump, sizeof(jump));
	memcpy(at + sizeof(jump), &target, sizeof(target));
}

bool native_init(u64 xstate_mask)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	if (!map_fixed(CODE_ADDRESS, CODE_SIZE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC) ||
	    !map_fixed(DATA_ADDRESS, DATA_PAGES * 4096, PROT_READ | PROT_WRITE) ||
	    !map_fixed(CONTEXT_ADDRESS, sizeof(struct native_context), PROT_READ | PROT_WRITE))
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &action, &engine_action[signals[i]]);
	native->mask = xstate_mask;
	u32 mxcsr = 0x1f80;
	memcpy(native->init_image + 24, &mxcsr, sizeof(mxcsr));
	put_exit64((u8 *)(uintptr_t)EXIT64);
	return true;
}

bool native_has_16bit(void)
{
	struct user_desc code = {
		.base_addr = CODE_ADDRESS, .limit = 0xfffff, .contents = MODIFY_LDT_CONTENTS_CODE, .limit_in_pages = 1
	};
	return syscall(SYS_modify_ldt, 1, &code, sizeof(code)) == 0;
}

void native_protect(unsigned page, bool writable)
{
	mprotect((u8 *)DATA_ADDRESS + page * 4096, 4096, PROT_READ | (writable ? PROT_WRITE : 0));
}

void native_run(const u8 *code, unsigned size, unsigned offset, unsigned bits)
{
	u8 *at = (u8 *)CODE_ADDRESS + offset;
	memcpy(at, code, size);
	native->out_vector = -1;
	native->out_rip = CODE_ADDRESS + offset + size;
	native->entry = CODE_ADDRESS + offset;
	if (bits == 64) {
		put_exit64(at + size);
		native_enter();
		return;
	}
	static const u32 exit64 = EXIT64;
	if (bits == 16)
		at[size++] = 0x66;
	at[size] = 0xea;
	memcpy(at + size + 1, &exit64, sizeof(exit64));
	at[size + 5] = NATIVE_CS64;
	at[size + 6] = 0;
	native->far32 = bits == 32 ? (u64)NATIVE_CS32 << 32 | native->entry : (u64)CS16 << 32 | offset;
	native_enter32();
}
