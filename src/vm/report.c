/* The state of a vCPU in words. */
#include "vm/report.h"

#include "host/port.h"
#include "mmu/mmu.h"

struct printer {
	void (*line)(void *opaque, const char *text);
	void *opaque;
};

#define PRINT(p, ...)                                                \
	do {                                                         \
		char text_[200];                                     \
		host_snprintf(text_, sizeof(text_), __VA_ARGS__);    \
		(p)->line((p)->opaque, text_);                       \
	} while (0)

typedef unsigned long long ull;

static const char *mode_name(const struct vcpu *v)
{
	if (!vcpu_protected(v))
		return "real mode";
	if (vcpu_v86(v))
		return "virtual-8086 mode";
	if (vcpu_64bit(v))
		return "64-bit mode";
	if (vcpu_long_mode(v))
		return "compatibility mode";
	return vcpu_code_bits(v) == 32 ? "32-bit protected mode" : "16-bit protected mode";
}

static void print_general(const struct printer *p, const struct vcpu *v)
{
	static const char *const name[GPR_COUNT] = { "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
						     "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15" };
	for (unsigned i = 0; i < GPR_COUNT; i += 4)
		PRINT(p, "%s=%016llx %s=%016llx %s=%016llx %s=%016llx", name[i], (ull)v->gpr[i], name[i + 1], (ull)v->gpr[i + 1],
		      name[i + 2], (ull)v->gpr[i + 2], name[i + 3], (ull)v->gpr[i + 3]);
	PRINT(p, "RIP=%016llx RFLAGS=%08llx CPL=%u %s%s%s", (ull)v->rip, (ull)v->rflags, v->cpl, mode_name(v),
	      v->shadow ? ", interrupt shadow" : "", v->nmi_blocked ? ", NMI blocked" : "");
}

static void print_segment(const struct printer *p, const char *name, const struct segment *s)
{
	PRINT(p, "%-4s %04x base=%016llx limit=%08x attr=%05x", name, s->selector, (ull)s->base, s->limit, s->attr);
}

static void print_system(const struct printer *p, const struct vcpu *v)
{
	static const char *const name[SEG_COUNT] = { "ES", "CS", "SS", "DS", "FS", "GS" };
	for (unsigned i = 0; i < SEG_COUNT; i++)
		print_segment(p, name[i], &v->seg[i]);
	print_segment(p, "LDTR", &v->ldtr);
	print_segment(p, "TR", &v->tr);
	PRINT(p, "GDTR base=%016llx limit=%04x  IDTR base=%016llx limit=%04x", (ull)v->gdtr.base, v->gdtr.limit, (ull)v->idtr.base,
	      v->idtr.limit);
	PRINT(p, "CR0=%08llx CR2=%016llx CR3=%016llx CR4=%08llx EFER=%04llx XCR0=%llx", (ull)v->cr0, (ull)v->cr2, (ull)v->cr3,
	      (ull)v->cr4, (ull)v->efer, (ull)v->xcr0);
	PRINT(p, "DR0=%llx DR1=%llx DR2=%llx DR3=%llx DR6=%08llx DR7=%08llx", (ull)v->dr[0], (ull)v->dr[1], (ull)v->dr[2], (ull)v->dr[3],
	      (ull)v->dr6, (ull)v->dr7);
	PRINT(p, "last fault: vector %u error %x payload %llx", v->fault.vector, v->fault.error, (ull)v->fault.payload);
}

/* Up to 16 bytes of code at RIP, as far as they are mapped RAM. */
static void print_code(const struct printer *p, struct vcpu *v)
{
	char text[3 * 16 + 1];
	unsigned used = 0;
	for (unsigned i = 0; i < 16; i++) {
		gpa_t gpa;
		u8 byte;
		gla_t gla = (vcpu_64bit(v) ? 0 : v->seg[SEG_CS].base) + v->rip + i;
		if (!mmu_debug_translate(v, gla, &gpa) || !ram_read(v->ram, gpa, &byte, 1))
			break;
		used += (unsigned)host_snprintf(text + used, sizeof(text) - used, " %02x", byte);
	}
	PRINT(p, "code at RIP:%s", used ? text : " not readable");
}

void report_vcpu(struct vcpu *vcpu, void (*line)(void *opaque, const char *text), void *opaque)
{
	struct printer p = { line, opaque };
	PRINT(&p, "vCPU %u", vcpu->index);
	print_general(&p, vcpu);
	print_system(&p, vcpu);
	print_code(&p, vcpu);
}
