/* What each way of leaving a guest costs, seen from the guest: every kind is provoked `rounds` times (10,000 if the command line does not say otherwise), and each
 * time is measured alone, by RDTSC. Under QEMU's -icount and on Bochs the counter counts instructions, the host's between exit and entry among them; on a real
 * machine it counts cycles. What the measuring itself costs (the kind "empty"; "int" for those that end in an interrupt handler) is subtracted. Prints one line a kind:
 *
 *	exits NAME: TIMES MEDIAN LEAST MEAN
 *
 * and "exits NAME: none REASON" for what this machine does not have. "cpus=2" adds what takes two CPUs; "loops=1" adds host/linux/loops.h, of kernel and user code; "only=N" runs
 * the kind of this number alone. */
#include "host/linux/loops.h"
#include "lib/smp.h"
#include "lib/window.h"

#define ROUNDS_MOST 10000
#define VECTOR 0x60 /* of a handler that does nothing */
#define VECTOR_OTHER 0x61 /* at the other CPU */
#define VECTOR_SOFTWARE 0x62

#define MSR_MTRR_DEF_TYPE 0x2ff
#define PAM 0xc8000 /* the area whose attributes are in PAM2 of the host bridge */
#define PAM2 0x92
#define LOOP_TIMES 100
#define LOOP_MEMORY 0x1000000ul /* physical */
#define LOOP_LINEAR 0x10000000000ul
#define TOUCHED 64 /* pages, after a switch of address spaces */

static u32 samples[ROUNDS_MOST];
static u8 page[PAGE] __attribute__((aligned(4096)));
static ulong cr3;
static u64 mtrr_def_type;
static volatile u64 taken, taken_by_other;

/* ---- handlers ---- */

static void nothing(struct state *s)
{
	taken++;
}

static void by_other(struct state *s)
{
	taken_by_other++;
	apic_eoi();
}

/* The instruction that faulted is two bytes long: MOV (%RAX), %EAX. */
static void skip(struct state *s)
{
	s->ip += 2;
}

/* ---- kinds ---- */

static void empty(void)
{
}

static void software_interrupt(void)
{
	asm volatile("int %0" : : "i"(VECTOR_SOFTWARE) : "memory");
}

static void op_cpuid(void)
{
	cpuid(1, 0);
}

static void vmcall(void)
{
	ulong result = ~0u; /* a number that nobody knows */
	if (is_amd)
		asm volatile("vmmcall" : "+a"(result) : : "memory");
	else
		asm volatile("vmcall" : "+a"(result) : : "memory");
}

static void port_read(void)
{
	inb(0x21);
}

static void port_write(void)
{
	outb(0x80, 0);
}

static void lapic_read(void)
{
	apic_read(APIC_VERSION);
}

static void lapic_write(void)
{
	apic_write(APIC_LVT_ERROR, LVT_MASKED);
}

static void msr_read(void)
{
	rdmsr(MSR_APIC_BASE);
}

static void msr_write(void)
{
	wrmsr(MSR_MTRR_DEF_TYPE, mtrr_def_type);
}

static void deadline(void)
{
	wrmsr(MSR_TSC_DEADLINE, ~0ull >> 1);
}

static void tpr_by_cr8(void)
{
	write_cr8(0);
}

static void tpr_by_mmio(void)
{
	apic_write(APIC_TPR, 0);
}

static void eoi(void)
{
	apic_eoi();
}

static void send_self(void)
{
	apic_write(APIC_ICR, ICR_SELF | ICR_ASSERT | VECTOR);
}

static void send_other(void)
{
	apic_write(APIC_ICR, ICR_ASSERT | VECTOR_OTHER);
}

static void take(void)
{
	asm volatile("sti\n nop\n cli" : : : "memory");
}

static void halt(void)
{
	asm volatile("sti\n hlt\n cli" : : : "memory");
}

static void store_protected(void)
{
	*(volatile u32 *)PAM = 0;
}

static void touch(void)
{
	*(volatile u32 *)window = 0;
}

static void fault(void)
{
	asm volatile("movl (%0), %%eax" : : "a"(window) : "memory");
}

static void table_write(void)
{
	window_map_quietly(0, page, PTE_ALL);
}

static void load_cr3(void)
{
	write_cr3(cr3);
}

static void op_invlpg(void)
{
	invlpg(window);
}

static void switch_space(void)
{
	write_cr3(cr3);
	for (unsigned i = 0; i < TOUCHED; i++)
		*(volatile u32 *)(window + i * PAGE) = 0;
}

/* ---- loops ---- */

extern u64 boot_pml4[];
static ulong loop_at;
void kernel_arithmetic(void);
void kernel_calls(void);
void kernel_hits(void);
void kernel_misses(void);

void kernel_arithmetic(void)
{
	loop_arithmetic();
}

void kernel_calls(void)
{
	loop_calls();
}

void kernel_hits(void)
{
	loop_loads((const void *)LOOP_LINEAR, LOOP_FEW, &loop_at);
}

void kernel_misses(void)
{
	loop_loads((const void *)LOOP_LINEAR, LOOP_MANY, &loop_at);
}

CODE(at_cpl3_arithmetic, "call kernel_arithmetic");
CODE(at_cpl3_calls, "call kernel_calls");
CODE(at_cpl3_hits, "call kernel_hits");
CODE(at_cpl3_misses, "call kernel_misses");

static void user_arithmetic(void)
{
	run_code(at_cpl3_arithmetic, 3);
}

static void user_calls(void)
{
	run_code(at_cpl3_calls, 3);
}

static void user_hits(void)
{
	run_code(at_cpl3_hits, 3);
}

static void user_misses(void)
{
	run_code(at_cpl3_misses, 3);
}

/* Pages of 4 KiB. */
static void map_loops(void)
{
	static u64 pdpt[512] __attribute__((aligned(4096))), pd[512] __attribute__((aligned(4096)));
	static u64 tables[LOOP_MANY] __attribute__((aligned(4096)));
	for (unsigned i = 0; i < LOOP_MANY; i++)
		tables[i] = (LOOP_MEMORY + i * PAGE) | PTE_ALL;
	for (unsigned i = 0; i < LOOP_MANY / 512; i++)
		pd[i] = (ulong)&tables[i * 512] | PTE_ALL;
	pdpt[0] = (ulong)pd | PTE_ALL;
	boot_pml4[LOOP_LINEAR >> 39] = (ulong)pdpt | PTE_ALL;
	memset((void *)LOOP_LINEAR, 0, LOOP_MANY * PAGE);
}

static const char *no_loops(void)
{
	u64 wanted = 0;
	return command_option("loops", &wanted) && wanted ? NULL : "they were not asked for";
}

/* ---- what comes before and after, not measured ---- */

static void send_and_take(void)
{
	send_self();
	take();
}

/* Read-only, and writable again: nested tables learn of the latter by a fault. */
static void protect(void)
{
	outl(0xcf8, 0x80000000 | (PAM2 & ~3));
	outb(0xcfc + (PAM2 & 3), 0x11);
	outb(0xcfc + (PAM2 & 3), 0x33);
}

static void map(void)
{
	window_map(0, page, PTE_ALL);
}

static void map_all(void)
{
	for (unsigned i = 0; i < TOUCHED; i++)
		window_map_quietly(i, page, PTE_ALL);
	switch_space();
}

static void unmap(void)
{
	window_map(0, NULL, 0);
}

static void address_other(void)
{
	apic_write(APIC_ICR_HIGH, smp_apic_id(1));
}

static void wait_for_other(void)
{
	static u64 seen;
	for (seen++; taken_by_other < seen;)
		pause();
}

static void take_and_end(void)
{
	take();
	apic_eoi();
}

static const char *no_hypervisor(void)
{
	return CPUID_HAS(1, ecx, 31) ? NULL : "no hypervisor shows itself";
}

static const char *no_deadline(void)
{
	return HAS_TSC_DEADLINE ? NULL : "the local APIC has no such timer";
}

static const char *no_other(void)
{
	return smp_cpus > 1 ? NULL : "there is one CPU";
}

/* MTRRs came with the Pentium Pro; nadir's CPU models all have them. */
static const char *no_mtrr(void)
{
	return CPUID_HAS(1, edx, 12) ? NULL : "the CPU has no MTRRs";
}

/* ---- the table ---- */

enum base { AS_IT_IS, EMPTY, INTERRUPT };

static const struct kind {
	const char *name;
	void (*op)(void);
	enum base base;
	void (*first)(void), (*before)(void), (*after)(void); /* first: once */
	const char *(*why_not)(void);
	unsigned times; /* 0: as often as is asked for */
} kinds[] = {
	{ "empty", empty, AS_IT_IS },
	{ "int", software_interrupt, AS_IT_IS },
	{ "cpuid", op_cpuid, EMPTY },
	{ "hypercall", vmcall, EMPTY, .why_not = no_hypervisor },
	{ "port-read", port_read, EMPTY },
	{ "port-write", port_write, EMPTY },
	{ "lapic-read", lapic_read, EMPTY },
	{ "lapic-write", lapic_write, EMPTY },
	{ "msr-read", msr_read, EMPTY },
	{ "msr-write", msr_write, EMPTY, .why_not = no_mtrr },
	{ "deadline", deadline, EMPTY, .why_not = no_deadline },
	{ "tpr-cr8", tpr_by_cr8, EMPTY },
	{ "tpr-mmio", tpr_by_mmio, EMPTY },
	{ "eoi", eoi, EMPTY, .before = send_and_take },
	{ "self-ipi", send_self, EMPTY, .after = take_and_end },
	{ "ipi", send_other, EMPTY, .first = address_other, .after = wait_for_other, .why_not = no_other },
	{ "interrupt", take, INTERRUPT, .before = send_self, .after = eoi },
	{ "hlt-wake", halt, INTERRUPT, .before = send_self, .after = eoi },
	{ "nested-fault", store_protected, EMPTY, .before = protect },
	{ "page-fill", touch, EMPTY, .before = map },
	{ "page-fault", fault, INTERRUPT, .first = unmap },
	{ "table-write", table_write, EMPTY, .first = map },
	{ "cr3-load", load_cr3, EMPTY },
	{ "invlpg", op_invlpg, EMPTY },
	{ "space-switch", switch_space, EMPTY, .first = map_all },
	{ "kernel-arithmetic", kernel_arithmetic, EMPTY, .why_not = no_loops, .times = LOOP_TIMES },
	{ "kernel-calls", kernel_calls, EMPTY, .why_not = no_loops, .times = LOOP_TIMES },
	{ "kernel-hits", kernel_hits, EMPTY, .first = map_loops, .why_not = no_loops, .times = LOOP_TIMES },
	{ "kernel-misses", kernel_misses, EMPTY, .why_not = no_loops, .times = LOOP_TIMES },
	{ "user-arithmetic", user_arithmetic, EMPTY, .why_not = no_loops, .times = LOOP_TIMES },
	{ "user-calls", user_calls, EMPTY, .why_not = no_loops, .times = LOOP_TIMES },
	{ "user-hits", user_hits, EMPTY, .why_not = no_loops, .times = LOOP_TIMES },
	{ "user-misses", user_misses, EMPTY, .why_not = no_loops, .times = LOOP_TIMES },
};

/* ---- measuring ---- */

static u32 ticks(void)
{
	u32 low, high;
	asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return low;
}

static void sort(u32 *value, unsigned count)
{
	for (unsigned gap = count / 2; gap; gap = gap == 2 ? 1 : gap * 5 / 11)
		for (unsigned i = gap; i < count; i++) {
			u32 v = value[i];
			unsigned j = i;
			for (; j >= gap && value[j - gap] > v; j -= gap)
				value[j] = value[j - gap];
			value[j] = v;
		}
}

static __attribute__((noinline)) void sample(const struct kind *k, unsigned count)
{
	if (k->first)
		k->first();
	for (unsigned i = 0; i < count; i++) {
		if (k->before)
			k->before();
		u32 start = ticks();
		k->op();
		samples[i] = ticks() - start;
		if (k->after)
			k->after();
	}
}

static u32 above(u32 value, u32 base)
{
	return value > base ? value - base : 0;
}

/* Returns the median, before anything is subtracted. */
static u32 measure(const struct kind *k, unsigned count, u32 base)
{
	const char *why = k->why_not ? k->why_not() : NULL;
	if (why) {
		print("exits %s: none %s\n", k->name, why);
		return 0;
	}
	sample(k, count);
	sort(samples, count);
	u64 sum = 0;
	for (unsigned i = 0; i < count; i++)
		sum += samples[i];
	u32 median = samples[count / 2];
	print("exits %s: %u %u %u %u\n", k->name, count, above(median, base), above(samples[0], base), above((u32)(sum / count), base));
	return median;
}

static void spin_for_ever(unsigned index)
{
	if (!index)
		return;
	for (;;)
		asm volatile("sti\n pause" : : : "memory");
}

void guest_main(void)
{
	u64 rounds = ROUNDS_MOST, only = 0, cpus = 1;
	u32 base[] = { 0, 0, 0 };
	command_option("rounds", &rounds);
	command_option("only", &only);
	command_option("cpus", &cpus);
	if (!rounds || rounds > ROUNDS_MOST)
		rounds = ROUNDS_MOST;
	window_init();
	if (cpus > 1)
		CHECK(smp_start());
	else
		apic_init();
	handler_set(VECTOR, nothing);
	handler_set(VECTOR_SOFTWARE, nothing);
	handler_set(VECTOR_OTHER, by_other);
	handler_set(VEC_PF, skip);
	cr3 = read_cr3();
	if (!no_mtrr())
		mtrr_def_type = rdmsr(MSR_MTRR_DEF_TYPE);
	if (!no_deadline())
		apic_write(APIC_LVT_TIMER, LVT_TSC_DEADLINE | LVT_MASKED);
	if (smp_cpus > 1)
		smp_start_work(spin_for_ever);
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (i > 1 && only && i != only)
			continue;
		unsigned times = kinds[i].times && kinds[i].times < rounds ? kinds[i].times : (unsigned)rounds;
		u32 median = measure(&kinds[i], times, base[kinds[i].base]);
		if (i < 2)
			base[i + 1] = median;
	}
	CHECK(taken > 0);
}
