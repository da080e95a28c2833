/* The host port's diagnostics: lines on the serial console; and the panic, which says what happened, on which CPU and thread, by which way. */
#include "host/metal/log.h"

#include "arch/exception.h"
#include "host/metal/apic.h"
#include "host/metal/asm.h"
#include "host/metal/machine_check.h"
#include "host/metal/print.h"
#include "host/metal/serial.h"
#include "host/metal/thread.h"
#include "lib/string.h"

#define LINE_MAX 512
#define CALLERS_MAX 24

extern const u8 text_start[], text_end[]; /* metal.ld */

static enum host_log_level threshold = LOG_WARN;
static void (*panic_dump)(void);
static u32 panicking; /* atomic: index of the CPU that panics plus one */

void log_set_level(enum host_log_level level)
{
	threshold = level;
}

void log_set_panic_dump(void (*dump)(void))
{
	panic_dump = dump;
}

static void write_line(const char *prefix, const char *fmt, va_list args)
{
	char line[LINE_MAX];
	int n = host_snprintf(line, sizeof(line), "%s", prefix);
	print_format(line + n, sizeof(line) - (size_t)n, fmt, args);
	serial_line(line);
}

void log_line(const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	write_line("nadir: ", fmt, args);
	va_end(args);
}

void host_log(enum host_log_level level, const char *fmt, ...)
{
	static const char *const prefix[] = {
		[LOG_ERROR] = "nadir: error: ",
		[LOG_WARN] = "nadir: warning: ",
		[LOG_INFO] = "nadir: ",
		[LOG_DEBUG] = "nadir: debug: ",
	};
	if (level > threshold)
		return;
	va_list args;
	va_start(args, fmt);
	write_line(prefix[level], fmt, args);
	va_end(args);
}

int host_snprintf(char *buf, size_t size, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	int n = print_format(buf, size, fmt, args);
	va_end(args);
	return n;
}

/* ---- the panic ---- */

static _Noreturn void stop(void)
{
	for (;;)
		__asm__ volatile("cli; hlt");
}

void log_stop_if_panicking(void)
{
	if (__atomic_load_n(&panicking, __ATOMIC_SEQ_CST))
		stop();
}

/* CPUs that exist but have no struct yet have FS 0. */
static bool cpu_known(void)
{
	return rdmsr(MSR_FS_BASE) != 0;
}

/* The first to panic speaks; a panic while it does only says its line. */
static bool begin(void)
{
	__asm__ volatile("cli");
	u32 nobody = 0, me = cpu_known() ? this_cpu()->index + 1 : 1;
	if (!__atomic_compare_exchange_n(&panicking, &nobody, me, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return false;
	serial_panic();
	if (cpu_count > 1)
		apic_send_nmi_to_others();
	return true;
}

static bool is_text(u64 address)
{
	return address >= (u64)(uintptr_t)text_start && address < (u64)(uintptr_t)text_end;
}

static bool is_stack(u64 address)
{
	return !(address & 7) && address >= 0xffff800000000000ull && address < ~0ull - 4096;
}

/* By the chain of frame pointers, while it goes up. */
static void print_callers(u64 rip, u64 rbp)
{
	char line[LINE_MAX];
	int n = host_snprintf(line, sizeof(line), "nadir:   at %llx", (unsigned long long)rip);
	for (unsigned i = 0; i < CALLERS_MAX && is_stack(rbp); i++) {
		const u64 *frame = (const u64 *)(uintptr_t)rbp;
		if (!is_text(frame[1]) || n > (int)sizeof(line) - 24)
			break;
		n += host_snprintf(line + n, sizeof(line) - (size_t)n, " %llx", (unsigned long long)frame[1]);
		if (frame[0] <= rbp)
			break;
		rbp = frame[0];
	}
	serial_line(line);
}

static _Noreturn void finish(u64 rip, u64 rbp)
{
	if (cpu_known() && this_thread())
		log_line("  on CPU %u, thread %s", this_cpu()->index, this_thread()->name);
	print_callers(rip, rbp);
	void (*dump)(void) = __atomic_exchange_n(&panic_dump, NULL, __ATOMIC_SEQ_CST);
	if (dump)
		dump();
	log_line("stopped; addr2line -fe nadir.elf ADDRESS names the lines");
	stop();
}

void host_panic(const char *fmt, ...)
{
	bool first = begin();
	va_list args;
	va_start(args, fmt);
	write_line("nadir: bug: ", fmt, args);
	va_end(args);
	if (!first)
		stop();
	finish((u64)(uintptr_t)__builtin_return_address(0), (u64)(uintptr_t)__builtin_frame_address(0));
}

static const char *exception_name(u64 vector)
{
	static const char *const names[] = { "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9",   "#TS",
					     "#NP", "#SS", "#GP", "#PF", "15",	"#MF", "#AC", "#MC", "#XM", "#VE", "#CP" };
	return vector < ARRAY_SIZE(names) ? names[vector] : "?";
}

void log_panic_frame(const struct frame *f, u64 address)
{
	static const char *const names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					       "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	bool first = begin();
	log_line("bug: %s (error %llx) at %llx, address %llx", exception_name(f->vector), (unsigned long long)f->error,
		 (unsigned long long)f->rip, (unsigned long long)address);
	if (!first)
		stop();
	log_line("  rsp %016llx  rflags %llx  cr3 %llx", (unsigned long long)f->rsp, (unsigned long long)f->rflags,
		 (unsigned long long)read_cr3());
	for (unsigned i = 0; i < 16; i += 4)
		log_line("  %s %016llx  %s %016llx  %s %016llx  %s %016llx", names[i], (unsigned long long)f->gpr[i], names[i + 1],
			 (unsigned long long)f->gpr[i + 1], names[i + 2], (unsigned long long)f->gpr[i + 2], names[i + 3],
			 (unsigned long long)f->gpr[i + 3]);
	if (f->vector == VEC_MC)
		machine_check_report();
	finish(f->rip, f->gpr[RBP]);
}
