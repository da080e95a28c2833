/* Descriptors and control registers of a CPU, and calls between CPUs. Intel SDM volume 3, "System Architecture Overview". */
#include "host/metal/cpu.h"

#include "arch/exception.h"
#include "cpu/host_cpuid.h"
#include "host/metal/apic.h"
#include "host/metal/map.h"
#include "host/metal/thread.h"
#include "host/port.h"

#define CODE64 0x08
#define DATA 0x10
#define TSS 0x20
#define STACK_SIZE 16384
#define FLUSH_ALL_FROM (64 * PAGE_SIZE)

struct cpu *cpus[CPUS_MAX];
unsigned cpu_count;

extern const u8 trap_entries[]; /* trap.S: 16 bytes each */

struct gate {
	u16 offset_low, selector;
	u8 ist, type;
	u16 offset_middle;
	u32 offset_high, reserved;
};
_Static_assert(sizeof(struct gate) == 16, "64-bit gate");

static struct gate idt[256]; /* the same for all; constant after the first cpu_init */

static unsigned ist_of(unsigned vector)
{
	return vector == VEC_NMI ? IST_NMI :
	       vector == VEC_DF	 ? IST_DOUBLE_FAULT :
	       vector == VEC_MC	 ? IST_MACHINE_CHECK :
	       vector < 32	 ? IST_EXCEPTION :
				   IST_INTERRUPT;
}

static void fill_idt(void)
{
	for (unsigned vector = 0; vector < ARRAY_SIZE(idt); vector++) {
		u64 entry = (u64)(uintptr_t)trap_entries + vector * 16;
		idt[vector] = (struct gate){ (u16)entry, CODE64, (u8)ist_of(vector), 0x8e, (u16)(entry >> 16), (u32)(entry >> 32), 0 };
	}
}

struct cpu *cpu_create(unsigned index, u32 apic_id)
{
	struct cpu *cpu = area_alloc(sizeof(*cpu));
	if (!cpu)
		return NULL;
	cpu->self = cpu;
	cpu->index = index;
	cpu->apic_id = apic_id;
	cpu->tss.io_map = sizeof(cpu->tss);
	for (unsigned i = 0; i < IST_COUNT; i++) {
		u8 *stack = area_alloc(STACK_SIZE);
		if (!stack)
			return NULL;
		cpu->tss.ist[i] = (u64)(uintptr_t)stack + STACK_SIZE;
	}
	u64 tss = (u64)(uintptr_t)&cpu->tss;
	cpu->gdt[CODE64 / 8] = 0x00af9b000000ffff;
	cpu->gdt[DATA / 8] = 0x00cf93000000ffff;
	cpu->gdt[TSS / 8] = (sizeof(cpu->tss) - 1) | (tss & 0xffffff) << 16 | 0x89ull << 40 | (tss >> 24 & 0xff) << 56;
	cpu->gdt[TSS / 8 + 1] = tss >> 32;
	return cpu;
}

static void load_descriptors(struct cpu *cpu)
{
	struct __attribute__((packed)) {
		u16 limit;
		u64 base;
	} gdtr = { sizeof(cpu->gdt) - 1, (u64)(uintptr_t)cpu->gdt }, idtr = { sizeof(idt) - 1, (u64)(uintptr_t)idt };
	__asm__ volatile("lgdt %0" ::"m"(gdtr));
	__asm__ volatile("lidt %0" ::"m"(idtr));
	__asm__ volatile("pushq %0; leaq 1f(%%rip), %%rax; pushq %%rax; lretq; 1:" ::"i"(CODE64) : "rax", "memory");
	__asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss; mov %1, %%fs; mov %1, %%gs" ::"r"(DATA), "r"(0));
	__asm__ volatile("lldt %w0; ltr %w1" ::"r"(0), "r"(TSS));
	wrmsr(MSR_FS_BASE, (u64)(uintptr_t)cpu);
	wrmsr(MSR_GS_BASE, 0);
}

static u64 xcr0; /* the same on all; constant after the first cpu_init */

u64 cpu_xcr0(void)
{
	return xcr0;
}

/* What of XCR0 the CPU has and nadir keeps for guests. */
static u64 find_xcr0(void)
{
	if (!(host_cpuid(1, 0).reg[CPUID_ECX] & BIT(26)))
		return 0;
	struct cpuid_regs r = host_cpuid(0xd, 0);
	u64 have = r.reg[CPUID_EAX] | (u64)r.reg[CPUID_EDX] << 32;
	u64 mask = have & (XCR0_X87 | XCR0_SSE | XCR0_AVX);
	return (have & XCR0_AVX512) == XCR0_AVX512 && (mask & XCR0_AVX) ? mask | XCR0_AVX512 : mask;
}

static void set_control_registers(void)
{
	u32 features = host_cpuid_checked(7, 0).reg[CPUID_EBX];
	xcr0 = find_xcr0();
	write_cr0(CR0_PG | CR0_AM | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE);
	write_cr4(CR4_PAE | CR4_PGE | CR4_MCE | CR4_DE | CR4_OSFXSR | CR4_OSXMMEXCPT | (xcr0 ? CR4_OSXSAVE : 0) |
		  (features & BIT(0) ? CR4_FSGSBASE : 0) | (features & BIT(7) ? CR4_SMEP : 0));
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
	if (xcr0)
		__asm__ volatile("xsetbv" ::"c"(0), "a"((u32)xcr0), "d"((u32)(xcr0 >> 32)));
	__asm__ volatile("fninit");
	u32 mxcsr = 0x1f80;
	__asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));
}

void cpu_init(struct cpu *cpu)
{
	if (!idt[0].type)
		fill_idt();
	set_control_registers();
	load_descriptors(cpu);
}

/* ---- calls ---- */

static struct host_lock call_lock; /* zeroed: not held */

void cpu_called(void)
{
	struct cpu *cpu = this_cpu();
	if (!__atomic_load_n(&cpu->called, __ATOMIC_ACQUIRE))
		return;
	cpu->call(cpu->call_opaque);
	__atomic_store_n(&cpu->called, 0, __ATOMIC_RELEASE);
}

static void ask(struct cpu *cpu, void (*function)(void *opaque), void *opaque)
{
	cpu->call = function;
	cpu->call_opaque = opaque;
	__atomic_store_n(&cpu->called, 1, __ATOMIC_RELEASE);
	apic_send(cpu->apic_id, VECTOR_CALL);
}

static bool is_other(const struct cpu *cpu)
{
	return cpu != this_cpu() && __atomic_load_n(&cpu->online, __ATOMIC_ACQUIRE);
}

void cpu_call_all(void (*function)(void *opaque), void *opaque)
{
	if (cpu_count < 2) {
		u64 held = irq_save();
		function(opaque);
		irq_restore(held);
		return;
	}
	host_lock(&call_lock);
	u64 held = irq_save(); /* so that it stays clear which CPU is this one */
	for (unsigned i = 0; i < cpu_count; i++)
		if (is_other(cpus[i]))
			ask(cpus[i], function, opaque);
	function(opaque);
	irq_restore(held);
	for (unsigned i = 0; i < cpu_count; i++)
		while (__atomic_load_n(&cpus[i]->called, __ATOMIC_ACQUIRE))
			cpu_relax();
	host_unlock(&call_lock);
}

void cpu_call(unsigned index, void (*function)(void *opaque), void *opaque)
{
	host_lock(&call_lock);
	u64 held = irq_save();
	bool other = is_other(cpus[index]);
	if (other)
		ask(cpus[index], function, opaque);
	else
		function(opaque);
	irq_restore(held);
	while (other && __atomic_load_n(&cpus[index]->called, __ATOMIC_ACQUIRE))
		cpu_relax();
	host_unlock(&call_lock);
}

struct range {
	u64 virtual, size;
};

/* Intel SDM volume 3, "Invalidation of TLBs and Paging-Structure Caches": toggling CR4.PGE drops global entries, too. */
static void flush(void *opaque)
{
	const struct range *r = opaque;
	if (r->size > FLUSH_ALL_FROM) {
		u64 cr4 = read_cr4();
		write_cr4(cr4 & ~CR4_PGE);
		write_cr4(cr4);
		return;
	}
	for (u64 offset = 0; offset < r->size; offset += PAGE_SIZE)
		invlpg(r->virtual + offset);
}

void cpu_flush_all(u64 virtual, u64 size)
{
	struct range range = { virtual, size };
	cpu_call_all(flush, &range);
}
