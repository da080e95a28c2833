/* The differential test: random innocuous instructions with random state, natively and through an engine, everything compared:
 * general registers, flags, x87 and vector state, memory, and how a fault ends them (vector, error code, CR2, RIP).
 *
 *   diff-native [--engine NAME] [--mode 64|32|16] [--blocks] [--seed N] [--first N] [--cases N] [--except VECTOR] [--verbose]
 *
 * --blocks: blocks of many instructions around the boundaries of pages, one of which is read-only, instead of single ones.
 * --except: cases that end natively by this exception are not compared, for an engine that cannot help ending them otherwise.
 *
 * A case depends on the seed and its number alone: a failure prints how to run it again. */
#include "../unit/flat_guest.h"
#include "generate.h"
#include "native.h"

#include <inttypes.h>
#include <time.h>

#define HANDLERS 0x10100000ull /* one HLT for each vector, 16 bytes apart */
#define KERNEL_STACK 0x10110000ull
#define SYSTEM_PAGES 0x200000ull /* guest physical: GDT, TSS, IDT, handlers, stack, in this order */
#define CODE_GPA 0x10000ull
#define DATA_GPA 0x30000ull
#define READ_ONLY_PAGE 0 /* of the data, with --blocks */

struct outcome {
	u64 gpr[16], rflags, rip;
	s64 vector; /* -1: ran to the end */
	u64 error, cr2;
	u8 image[4096];
};

struct diff {
	struct flat_guest *guest;
	struct insn_decoder decoder;
	enum insn_mode mode;
	unsigned bits;
	u64 xstate_mask;
	u64 seed;
	s64 except; /* a vector, or negative */
	bool blocks;
	unsigned failures;
	u32 mnemonics[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	u64 faults;
};

/* ---- the guest ---- */

static u8 *guest_page(struct flat_guest *g, unsigned page)
{
	return g->memory + SYSTEM_PAGES + page * PAGE_SIZE;
}

static void set_gate(u8 *idt, unsigned vector)
{
	u64 handler = HANDLERS + vector * 16;
	u64 low = (handler & 0xffff) | 8ull << 16 | 0x8e00ull << 32 | (handler >> 16 & 0xffff) << 48,
	    high = handler >> 32;
	memcpy(idt + vector * 16, &low, 8);
	memcpy(idt + vector * 16 + 8, &high, 8);
}

static void setup_system(struct flat_guest *g)
{
	static const u64 base = 0x10120000;
	struct vcpu *v = &g->vcpu;
	for (unsigned i = 0; i < 3; i++)
		flat_map(g, base + i * PAGE_SIZE, SYSTEM_PAGES + i * PAGE_SIZE, PTE_P | PTE_W);
	flat_map(g, HANDLERS, SYSTEM_PAGES + 3 * PAGE_SIZE, PTE_P | PTE_W);
	flat_map(g, KERNEL_STACK - PAGE_SIZE, SYSTEM_PAGES + 4 * PAGE_SIZE, PTE_P | PTE_W);
	u64 code = 0x00af9b000000ffff, stack = KERNEL_STACK;
	memcpy(guest_page(g, 0) + 8, &code, 8);
	memcpy(guest_page(g, 1) + 4, &stack, 8); /* RSP0 */
	for (unsigned vector = 0; vector < 32; vector++) {
		set_gate(guest_page(g, 2), vector);
		guest_page(g, 3)[vector * 16] = 0xf4;
	}
	v->gdtr = (struct table_register){ base, 0xff };
	v->tr = (struct segment){
		.selector = 0x40, .base = base + PAGE_SIZE, .limit = 0x67, .attr = SEG_ATTR_P | SYS_TSS_BUSY
	};
	v->idtr = (struct table_register){ base + 2 * PAGE_SIZE, 0x1ff };
}

/* Data pages are neighbours for the guest, but not in its physical memory. */
static gpa_t data_gpa(unsigned page)
{
	return DATA_GPA + (DATA_PAGES - 1 - page) * 2 * PAGE_SIZE;
}

static void setup_memory(struct flat_guest *g)
{
	for (unsigned i = 0; i < CODE_SIZE_BYTES / PAGE_SIZE; i++)
		flat_map(g, CODE_ADDRESS + i * PAGE_SIZE, CODE_GPA + i * PAGE_SIZE, PTE_P | PTE_W | PTE_U);
	for (unsigned i = 0; i < DATA_PAGES; i++)
		flat_map(g, DATA_ADDRESS + i * PAGE_SIZE, data_gpa(i), PTE_P | PTE_W | PTE_U);
}

/* What the interrupt pushed; Intel SDM volume 3, "64-Bit Mode Stack Frame". */
static void take_frame(struct diff *d, struct outcome *o)
{
	static const u32 with_error =
		BIT(VEC_DF) | BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) | BIT(VEC_PF) | BIT(VEC_AC);
	struct vcpu *v = &d->guest->vcpu;
	u64 frame[6] = { 0 };
	bool error = with_error >> o->vector & 1;
	memcpy(frame + !error, guest_page(d->guest, 4) + (v->gpr[RSP] & (PAGE_SIZE - 1)), 48 - 8 * !error);
	o->error = frame[0];
	o->rip = frame[1] + (d->bits == 16 ? CODE_ADDRESS : 0);
	o->rflags = frame[3];
	o->gpr[RSP] = frame[4];
}

static void run_engine(struct diff *d, const struct test_case *c, struct outcome *o)
{
	struct vcpu *v = &d->guest->vcpu;
	struct exit exit;
	u8 *code = d->guest->memory + CODE_GPA + c->offset;
	memcpy(code, c->code, c->size);
	code[c->size] = 0xf4;
	ram_written(&d->guest->ram, CODE_GPA + c->offset, c->size + 1);
	memcpy(v->gpr, c->gpr, sizeof(v->gpr));
	memcpy(v->xsave, c->image, sizeof(v->xsave));
	flat_mode(d->guest, d->bits, 3);
	v->rip = CODE_ADDRESS + c->offset;
	if (d->bits == 16) {
		v->seg[SEG_CS].base = CODE_ADDRESS;
		v->rip = c->offset;
	}
	v->rflags = c->rflags;
	v->activity = ACTIVITY_ACTIVE;
	v->pending = 0;
	v->cr2 = 0;
	v->engine->state_changed(v);
	v->engine->run(v, &exit);
	if (v->engine->sync)
		v->engine->sync(v);
	memcpy(o->gpr, v->gpr, sizeof(o->gpr));
	memcpy(o->image, v->xsave, sizeof(o->image));
	o->cr2 = v->cr2;
	o->vector = exit.reason == EXIT_HLT ? (s64)(v->rip - 1 - HANDLERS) / 16 : 1000 + (s64)exit.reason;
	if (exit.reason != EXIT_HLT) {
		if (exit.reason == EXIT_ERROR)
			printf("%s\n", exit.error.what);
		return;
	}
	take_frame(d, o);
	/* HLT at the end of the code, which user mode may not execute. */
	if (o->vector == VEC_GP && o->rip == CODE_ADDRESS + c->offset + c->size)
		o->vector = -1;
}

static void run_native(struct diff *d, const struct test_case *c, struct outcome *o)
{
	memcpy(native->gpr, c->gpr, sizeof(native->gpr));
	memcpy(native->in_image, c->image, sizeof(native->in_image));
	native->rflags = c->rflags;
	memset(native->out_image, 0, sizeof(native->out_image));
	if (d->blocks)
		native_protect(READ_ONLY_PAGE, false);
	native_run(c->code, c->size, c->offset, d->bits);
	if (d->blocks)
		native_protect(READ_ONLY_PAGE, true);
	memcpy(o->gpr, native->out_gpr, sizeof(o->gpr));
	memcpy(o->image, native->out_image, sizeof(o->image));
	o->rflags = native->out_rflags;
	o->rip = native->out_rip;
	o->vector = native->out_vector;
	o->error = native->out_error;
	o->cr2 = native->out_cr2;
}

/* ---- comparing ---- */

static unsigned report; /* print that many differences as they are found */

static bool differs(const char *what, unsigned index, u64 was_native, u64 was_engine)
{
	if (was_native == was_engine)
		return false;
	if (report && report--)
		printf("  %s%u: native %016" PRIx64 ", engine %016" PRIx64 "\n", what, index, was_native, was_engine);
	return true;
}

static bool compare_registers(const struct diff *d, const struct outcome *n, const struct outcome *e, u64 flags)
{
	static const char *const names[16] = { "rax", "rcx", "rdx",  "rbx",  "rsp",  "rbp",  "rsi",  "rdi",
					       "r8_", "r9_", "r10_", "r11_", "r12_", "r13_", "r14_", "r15_" };
	bool bad = false;
	u64 mask = d->bits == 64 ? ~0ull : 0xffffffff;
	for (unsigned i = 0; i < (d->bits == 64 ? 16 : 8); i++)
		bad |= differs(names[i], 0, n->gpr[i] & mask, e->gpr[i] & mask);
	bad |= differs("rflags", 0, n->rflags & flags, e->rflags & flags);
	return bad;
}

/* A component that XSTATE_BV says is in its initial state reads as zeros (x87: with the initial control word). */
static u64 image_word(const u8 *image, unsigned offset, unsigned component)
{
	u64 value;
	memcpy(&value, image + offset, sizeof(value));
	if (image[512] >> component & 1)
		return value;
	return offset == 0 ? 0x37f : 0;
}

/* Offsets in the x87 part that are not compared: FIP, FDP and FOP of the last instruction, which CPUs record
 * differently. */
static bool compare_legacy(const struct outcome *n, const struct outcome *e)
{
	bool bad = false;
	u64 control_mask = 0x0000ffffffffffff; /* FCW, FSW, abridged FTW; not FOP */
	bad |= differs("x87 control", 0, image_word(n->image, 0, 0) & control_mask,
		       image_word(e->image, 0, 0) & control_mask);
	bad |= differs("x87 FOP", 0, image_word(n->image, 0, 0) >> 48, image_word(e->image, 0, 0) >> 48);
	bad |= differs("x87 FIP", 0, image_word(n->image, 8, 0), image_word(e->image, 8, 0));
	bad |= differs("x87 FDP", 0, image_word(n->image, 16, 0), image_word(e->image, 16, 0));
	for (unsigned i = 0; i < 8; i++) {
		bad |= differs("st mantissa", i, image_word(n->image, 32 + i * 16, 0),
			       image_word(e->image, 32 + i * 16, 0));
		bad |= differs("st exponent", i, image_word(n->image, 40 + i * 16, 0) & 0xffff,
			       image_word(e->image, 40 + i * 16, 0) & 0xffff);
	}
	u32 a, b;
	memcpy(&a, n->image + 24, 4);
	memcpy(&b, e->image + 24, 4);
	bad |= differs("mxcsr", 0, a, b);
	for (unsigned i = 0; i < 32; i++)
		bad |= differs("xmm half", i, image_word(n->image, 160 + i * 8, 1),
			       image_word(e->image, 160 + i * 8, 1));
	return bad;
}

static bool compare_state(const struct diff *d, const struct outcome *n, const struct outcome *e)
{
	bool bad = compare_legacy(n, e);
	for (unsigned component = 2; component < 8; component++) {
		u32 offset, size;
		if (!(d->xstate_mask >> component & 1))
			continue;
		xstate_component(component, &offset, &size);
		for (u32 i = 0; i < size; i += 8)
			bad |= differs("state at ", offset + i, image_word(n->image, offset + i, component),
				       image_word(e->image, offset + i, component));
	}
	return bad;
}

static bool compare_memory(const struct diff *d)
{
	bool bad = false;
	for (unsigned page = 0; page < DATA_PAGES; page++) {
		const u8 *a = (const u8 *)DATA_ADDRESS + page * PAGE_SIZE, *b = d->guest->memory + data_gpa(page);
		if (!memcmp(a, b, PAGE_SIZE))
			continue;
		for (unsigned i = 0; i < PAGE_SIZE; i += 8) {
			u64 x, y;
			memcpy(&x, a + i, 8);
			memcpy(&y, b + i, 8);
			bad |= differs("memory at ", page * 4096 + i, x, y);
		}
	}
	return bad;
}

static bool compare_fault(const struct test_case *c, const struct outcome *n, const struct outcome *e)
{
	bool bad = differs("vector ", 0, (u64)n->vector, (u64)e->vector);
	bad |= differs("rip ", 0, n->rip, e->rip);
	if (bad || n->vector != VEC_PF)
		return bad;
	/* CPUs load and store the x87 environment piece by piece, each model its own way: the page must be right. */
	u64 mask = c->insn[0].kind == KIND_X87_ENV ? PAGE_MASK : ~0ull;
	bad |= differs("cr2 ", 0, n->cr2 & mask, e->cr2 & mask);
	/* The upper half is the host kernel's, and mapped natively. */
	u64 present = n->cr2 >> 63 ? PF_P : 0;
	return bad | differs("error code ", 0, n->error | present, e->error | present);
}

/* Status flags that some instruction of the case leaves undefined and that C computes: only where there is no 64-bit form. */
static u64 compared_flags(const struct diff *d, const struct test_case *c, const struct outcome *n)
{
	u64 flags = RFLAGS_STATUS | RFLAGS_DF;
	for (unsigned i = 0; i < c->count; i++)
		if (insn_class_of((enum insn_kind)c->insn[i].kind) == INSN_CLASS_LEGACY && c->insn[i].z.cpu_flags)
			flags &= ~(u64)c->insn[i].z.cpu_flags->undefined;
	return flags;
}

static bool compare(const struct diff *d, const struct test_case *c, const struct outcome *n, const struct outcome *e)
{
	bool bad = compare_fault(c, n, e);
	bad |= compare_registers(d, n, e, compared_flags(d, c, n));
	/* MASKMOVQ enters MMX state before its store faults here, after it there. */
	if (n->vector < 0 || c->insn[0].z.mnemonic != ZYDIS_MNEMONIC_MASKMOVQ)
		bad |= compare_state(d, n, e);
	return bad | compare_memory(d);
}

/* ---- cases ---- */

static void print_case(const struct diff *d, const struct test_case *c, u64 number)
{
	ZydisFormatter formatter;
	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	printf("case %" PRIu64 " differs; again with: --mode %u%s --seed %" PRIu64 " --first %" PRIu64 " --cases 1\n",
	       number, d->bits, d->blocks ? " --blocks" : "", d->seed, number);
	for (unsigned i = 0, at = 0; i < c->count; at += c->insn[i].z.length, i++) {
		char text[200];
		ZydisFormatterFormatInstruction(&formatter, &c->insn[i].z, c->insn[i].operand,
						c->insn[i].z.operand_count_visible, text, sizeof(text),
						CODE_ADDRESS + c->offset + at, NULL);
		printf("  %08x ", CODE_ADDRESS + c->offset + at);
		for (unsigned b = 0; b < c->insn[i].z.length; b++)
			printf("%02x", c->code[at + b]);
		printf("  %s\n", text);
	}
	printf("  before:");
	for (unsigned i = 0; i < 16; i++)
		printf(" %" PRIx64, c->gpr[i]);
	printf(" flags %" PRIx64 " fcw %02x%02x fsw %02x%02x ftw %02x\n", c->rflags, c->image[1], c->image[0],
	       c->image[3], c->image[2], c->image[4]);
}

static void run_case(struct diff *d, u64 number)
{
	static struct test_case c;
	static struct outcome n, e;
	struct random r = { d->seed * 0x2545f4914f6cdd1dull + number };
	(d->blocks ? generate_block : generate_case)(&d->decoder, d->mode, &r, d->xstate_mask, &c);
	generate_data(&r, (void *)DATA_ADDRESS, DATA_PAGES * PAGE_SIZE);
	for (unsigned page = 0; page < DATA_PAGES; page++)
		memcpy(d->guest->memory + data_gpa(page), (u8 *)DATA_ADDRESS + page * PAGE_SIZE, PAGE_SIZE);
	run_native(d, &c, &n);
	run_engine(d, &c, &e);
	d->mnemonics[c.insn[0].z.mnemonic]++;
	d->faults += n.vector >= 0;
	if ((d->except >= 0 && n.vector == d->except) || !compare(d, &c, &n, &e))
		return;
	d->failures++;
	print_case(d, &c, number);
	report = 8;
	compare(d, &c, &n, &e);
	report = 0;
	fflush(stdout);
}

static const char *text_argument(int argc, char **argv, const char *name, const char *otherwise)
{
	for (int i = 1; i + 1 < argc; i++)
		if (!strcmp(argv[i], name))
			return argv[i + 1];
	return otherwise;
}

static u64 argument(int argc, char **argv, const char *name, u64 otherwise)
{
	for (int i = 1; i + 1 < argc; i++)
		if (!strcmp(argv[i], name))
			return strtoull(argv[i + 1], NULL, 0);
	return otherwise;
}

static bool has_argument(int argc, char **argv, const char *name)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], name))
			return true;
	return false;
}

static void print_line(void *opaque, const char *line)
{
	puts(line);
}

#define FAILURES_SHOWN 20

int main(int argc, char **argv)
{
	static struct diff d;
	d.bits = (unsigned)argument(argc, argv, "--mode", 64);
	d.mode = d.bits == 64 ? INSN_MODE_64 : d.bits == 32 ? INSN_MODE_32 : INSN_MODE_16;
	d.seed = argument(argc, argv, "--seed", 1);
	u64 first = argument(argc, argv, "--first", 0), cases = argument(argc, argv, "--cases", 1000000);
	const struct engine_ops *engine = engine_find(text_argument(argc, argv, "--engine", "step"));
	const char *why;
	if (!engine->available(&why)) {
		printf("the engine %s cannot run here: %s\n", engine->name, why);
		return 77;
	}
	d.except = (s64)argument(argc, argv, "--except", ~0ull);
	d.blocks = has_argument(argc, argv, "--blocks");
	d.guest = flat_create_on(engine, "host");
	setup_system(d.guest);
	setup_memory(d.guest);
	if (d.blocks)
		flat_map(d.guest, DATA_ADDRESS + READ_ONLY_PAGE * PAGE_SIZE, data_gpa(READ_ONLY_PAGE), PTE_P | PTE_U);
	d.xstate_mask = xstate_host_mask();
	insn_decoder_init(&d.decoder, d.guest->policy, true);
	generate_calibrate(&d.decoder, d.mode);
	host_set_trap_handler(NULL);
	struct exit exit;
	d.guest->vcpu.rip = 0;
	d.guest->vcpu.activity = ACTIVITY_SHUTDOWN;
	engine->run(&d.guest->vcpu, &exit); /* installs the engine's trap handler, which native_init puts itself before */
	if (!native_init(d.xstate_mask)) {
		printf("the fixed addresses of this test are not free here\n");
		return 77;
	}
	if (d.bits == 16 && !native_has_16bit()) {
		printf("this host does not let a process have 16-bit segments\n");
		return 77;
	}
	printf("diff-native: %u-bit code, seed %" PRIu64 ", %" PRIu64 " cases\n", d.bits, d.seed, cases);
	clock_t start = clock();
	for (u64 i = first; i < first + cases && d.failures < FAILURES_SHOWN; i++)
		run_case(&d, i);
	unsigned kinds = 0;
	for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
		kinds += d.mnemonics[m] != 0;
	if (engine->report && has_argument(argc, argv, "--verbose"))
		engine->report(&d.guest->vcpu, print_line, NULL);
	printf("%u mnemonics, %" PRIu64 " faults, %u differences, %.1f s\n", kinds, d.faults, d.failures,
	       (double)(clock() - start) / CLOCKS_PER_SEC);
	return d.failures ? 1 : 0;
}
