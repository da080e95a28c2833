/* `monitor` commands: what GDB has no words for. Named as QEMU's are. */
#include "gdb/internal.h"

#include "arch/paging.h"
#include "cpu/msr.h"
#include "mmu/walk.h"
#include "vm/report.h"

#define WALKS_MAX (1u << 20)

struct command {
	const char *name, *arguments, *help;
	void (*run)(struct gdb_session *s, const char *arguments);
};

typedef unsigned long long ull;

#define SAY(s, ...)                                                  \
	do {                                                         \
		char text_[200];                                     \
		host_snprintf(text_, sizeof(text_), __VA_ARGS__);    \
		gdb_put(&(s)->monitor, text_);                       \
	} while (0)

static void say_line(void *opaque, const char *text)
{
	SAY((struct gdb_session *)opaque, "%s\n", text);
}

static struct gdb_cursor cursor_of(const char *text)
{
	struct gdb_cursor c = { (const u8 *)text, (const u8 *)text };
	while (*c.end)
		c.end++;
	return c;
}

/* A hexadecimal address, alone; else say what is expected. */
static bool take_address(struct gdb_session *s, const char *text, u64 *address)
{
	struct gdb_cursor c = cursor_of(text);
	gdb_take_word(&c, "0x");
	bool ok = gdb_take_number(&c, address) && !gdb_left(&c);
	if (!ok)
		SAY(s, "an address in hexadecimal is expected, not '%.40s'\n", text);
	return ok;
}

/* ---- looking ---- */

static void info_registers(struct gdb_session *s, const char *arguments)
{
	bool all = arguments[0] == '-' && arguments[1] == 'a';
	for (unsigned i = 0; i < s->vm->config.cpus; i++)
		if (all || i == s->cpu)
			report_vcpu(&s->vm->cpu[i]->vcpu, say_line, s);
}

static void info_cpus(struct gdb_session *s, const char *arguments)
{
	static const char *const doing[] = { [ACTIVITY_ACTIVE] = "", [ACTIVITY_HLT] = " (halted)", [ACTIVITY_SHUTDOWN] = " (shut down)",
					     [ACTIVITY_WAIT_SIPI] = " (not started)" };
	for (unsigned i = 0; i < s->vm->config.cpus; i++) {
		const struct vcpu *v = &s->vm->cpu[i]->vcpu;
		SAY(s, "%c CPU #%u: thread %u, rip %llx, cpl %u%s\n", i == s->cpu ? '*' : ' ', i, i + 1, (ull)v->rip, v->cpl, doing[v->activity & 3]);
	}
}

static void info_msrs(struct gdb_session *s, const char *arguments)
{
	static const u32 shown[] = { 0x174, 0x175, 0x176, 0x1a0, 0x1d9, 0x277, 0x2ff, 0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,
				     0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, MSR_TSC_ADJUST, MSR_KVM_WALL_CLOCK, MSR_KVM_SYSTEM_TIME };
	struct vcpu *v = &gdb_cpu(s)->vcpu;
	struct guest_fault fault = v->fault;
	for (unsigned i = 0; i < ARRAY_SIZE(shown); i++) {
		u64 value;
		if (msr_read(v, shown[i], &value) == MSR_OK)
			SAY(s, "%08x %-24s %016llx\n", shown[i], msr_name(shown[i]), (ull)value);
	}
	v->fault = fault;
}

static void put_vectors(struct gdb_session *s, const char *name, const u64 *set)
{
	SAY(s, "%s:", name);
	for (unsigned i = 0; i < 256; i++)
		if (set[i / 64] >> (i % 64) & 1)
			SAY(s, " %02x", i);
	SAY(s, "\n");
}

static void info_lapic(struct gdb_session *s, const char *arguments)
{
	const struct lapic *l = &gdb_cpu(s)->lapic;
	SAY(s, "local APIC of CPU #%u: base %llx, ID %u, task priority %llx0, %s\n", s->cpu, (ull)l->base, l->id, (ull)lapic_cr8(l),
	    lapic_enabled(l) ? "enabled" : "disabled");
	u64 set[4];
	lapic_vectors(l, LAPIC_IRR, set);
	put_vectors(s, "requested", set);
	lapic_vectors(l, LAPIC_ISR, set);
	put_vectors(s, "in service", set);
	SAY(s, "highest deliverable vector: %d\n", lapic_highest(l));
}

/* Rights of a page as bits; 0: not mapped. */
#define RIGHT_READ BIT(0)
#define RIGHT_WRITE BIT(1)
#define RIGHT_EXECUTE BIT(2)
#define RIGHT_USER BIT(3)

static u32 rights_of(const struct walk *w)
{
	return RIGHT_READ | (w->writable ? RIGHT_WRITE : 0) | (w->no_execute ? 0 : RIGHT_EXECUTE) | (w->user ? RIGHT_USER : 0);
}

static void say_range(struct gdb_session *s, gla_t start, gla_t end, u32 rights)
{
	if (rights)
		SAY(s, "%016llx-%016llx %16llx %c%c%c%c\n", (ull)start, (ull)end, (ull)(end - start), rights & RIGHT_USER ? 'u' : '-', 'r',
		    rights & RIGHT_WRITE ? 'w' : '-', rights & RIGHT_EXECUTE ? 'x' : '-');
}

/* Where the linear addresses behind the one before gla go on; 0: they end. */
static gla_t go_on(const struct vcpu *v, gla_t gla)
{
	gla_t half = BIT(vcpu_linear_bits(v) - 1);
	if (!vcpu_long_mode(v))
		return gla >> 32 ? 0 : gla;
	return gla == half ? -half : gla;
}

/* The ranges of linear addresses with the same rights. Tables that map themselves over and over are not followed for ever. */
static void info_mem(struct gdb_session *s, const char *arguments)
{
	struct vcpu *v = &gdb_cpu(s)->vcpu;
	gla_t start = 0, gla = 0;
	u32 rights = 0;
	if (!(v->cr0 & CR0_PG)) {
		SAY(s, "paging is off: linear addresses are physical ones\n");
		return;
	}
	for (unsigned steps = 0; steps < WALKS_MAX; steps++) {
		struct walk w;
		u32 here = walk_inspect(v, gla, &w) ? rights_of(&w) : 0;
		gla_t end = (gla | mask_of(w.page_shift)) + 1, next = go_on(v, end);
		if (here != rights) {
			say_range(s, start, gla, rights);
			start = gla;
			rights = here;
		}
		if (next != end) {
			say_range(s, start, end, rights);
			rights = 0;
		}
		gla = next;
		if (!next)
			return;
	}
	SAY(s, "and more\n");
}

static void translate(struct gdb_session *s, const char *arguments)
{
	gpa_t gpa;
	u64 gla;
	if (!take_address(s, arguments, &gla))
		return;
	if (mmu_debug_translate(&gdb_cpu(s)->vcpu, gla, &gpa))
		SAY(s, "gpa: 0x%llx%s\n", (ull)gpa, ram_find(&s->vm->ram, gpa) ? "" : " (a device, or nothing)");
	else
		SAY(s, "unmapped\n");
}

/* `[/COUNT] ADDRESS`: words of physical memory. */
static void examine(struct gdb_session *s, const char *arguments)
{
	u64 address, count = 1, word;
	if (*arguments == '/') {
		for (count = 0, arguments++; *arguments >= '0' && *arguments <= '9'; arguments++)
			count = MIN(count * 10 + (u64)(*arguments - '0'), 1024);
		while (*arguments == ' ')
			arguments++;
	}
	if (!take_address(s, arguments, &address))
		return;
	for (u64 i = 0; i < count; i++) {
		if (i % 2 == 0)
			SAY(s, "%s%016llx:", i ? "\n" : "", (ull)(address + 8 * i));
		if (debugger_read(gdb_cpu(s), address + 8 * i, true, &word, 8) == 8)
			SAY(s, " 0x%016llx", (ull)word);
		else
			SAY(s, " no memory");
	}
	SAY(s, "\n");
}

/* ---- doing ---- */

static void system_reset(struct gdb_session *s, const char *arguments)
{
	s->after = GDB_AFTER_RESET;
}

static void system_powerdown(struct gdb_session *s, const char *arguments)
{
	s->after = GDB_AFTER_POWERDOWN;
}

static void quit(struct gdb_session *s, const char *arguments)
{
	s->after = GDB_AFTER_STOP;
}

static void nmi(struct gdb_session *s, const char *arguments)
{
	vcpu_set_pending(&gdb_cpu(s)->vcpu, PENDING_NMI);
}

static void help(struct gdb_session *s, const char *arguments);

static const struct command commands[] = {
	{ "help", "", "this list", help },
	{ "info registers", " [-a]", "all registers of this CPU, or of each", info_registers },
	{ "info cpus", "", "where the CPUs are", info_cpus },
	{ "info msrs", "", "model-specific registers of this CPU", info_msrs },
	{ "info lapic", "", "the local APIC of this CPU", info_lapic },
	{ "info mem", "", "what is mapped: linear addresses, sizes, and rights", info_mem },
	{ "gva2gpa", " ADDRESS", "the physical address of a linear one", translate },
	{ "xp", " [/COUNT] ADDRESS", "physical memory, in words of 8 bytes", examine },
	{ "nmi", "", "an NMI for this CPU, when it goes on", nmi },
	{ "system_reset", "", "the reset button; the machine stays stopped", system_reset },
	{ "system_powerdown", "", "the power button", system_powerdown },
	{ "quit", "", "end the virtual machine", quit },
};

static void help(struct gdb_session *s, const char *arguments)
{
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		SAY(s, "%s%s -- %s\n", commands[i].name, commands[i].arguments, commands[i].help);
}

/* The arguments behind the command's name; NULL if it is another one. */
static const char *arguments_of(const char *line, const char *name)
{
	while (*name && *line == *name)
		line++, name++;
	if (*name || (*line && *line != ' ' && *line != '/'))
		return NULL;
	while (*line == ' ')
		line++;
	return line;
}

void gdb_monitor(struct gdb_session *s, char *line)
{
	while (*line == ' ')
		line++;
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
		const char *arguments = arguments_of(line, commands[i].name);
		if (!arguments)
			continue;
		commands[i].run(s, arguments);
		return;
	}
	SAY(s, "there is no command '%.60s'; see monitor help\n", line);
}
