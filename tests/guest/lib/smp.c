/* Starting CPUs and giving them work (smp.h). */
#include "lib/smp.h"

extern u8 smp_trampoline[];
extern u8 smp_gdt_register[];
u8 smp_stacks[CPUS_MAX][16384] __attribute__((aligned(4096)));
volatile u32 smp_next = 1;
unsigned smp_cpus = 1;

static struct cpu cpus[CPUS_MAX];
static struct tss task_states[CPUS_MAX] __attribute__((aligned(128)));
static u8 exception_stacks[CPUS_MAX][4096] __attribute__((aligned(16)));
static volatile u64 arrived, finished;
static volatile unsigned work_round;
static void (*volatile work_now)(unsigned index);

/* The first CPU keeps the framework's task state and stack. */
static void set_up(unsigned index)
{
	struct cpu *cpu = &cpus[index];
	cpu->self = cpu;
	cpu->index = index;
	cpu->stack_top = smp_stacks[index] + sizeof(smp_stacks[index]);
	cpu->tss = index ? &task_states[index] : &tss;
	if (index) {
		for (unsigned i = 0; i < 7; i++)
			cpu->tss->ist[i] = (ulong)exception_stacks[index] + sizeof(exception_stacks[index]);
		cpu->tss->rsp[0] = cpu->tss->ist[0];
		cpu->tss->iomap = offsetof(struct tss, io_bitmap);
		memset(cpu->tss->io_bitmap, 0xff, sizeof(cpu->tss->io_bitmap));
		load_gdt();
		gdt_set_system(SEL_FREE + 16 * index, (ulong)cpu->tss, sizeof(*cpu->tss) - 1, ACCESS_TSS);
		write_tr(SEL_FREE + 16 * index);
		load_idt();
	}
	wrmsr(MSR_GS_BASE, (ulong)cpu);
	write_cr0((read_cr0() | CR0_MP) & ~CR0_EM);
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	asm volatile("fninit");
	apic_init();
	if (index)
		apic_write(APIC_LVT_LINT0, LVT_MASKED);
	cpu->apic_id = apic_read(APIC_ID) & 0xff000000u;
}

_Noreturn void smp_enter(unsigned index);
_Noreturn void smp_enter(unsigned index)
{
	set_up(index);
	unsigned seen = work_round;
	atomic_add(&arrived, 1);
	for (;; seen++) {
		while (work_round == seen)
			pause();
		work_now(index);
		atomic_add(&finished, 1);
	}
}

u32 smp_apic_id(unsigned index)
{
	return cpus[index].apic_id;
}

void smp_send(u32 apic_id, u32 command)
{
	ulong flags = read_flags();
	cli();
	apic_write(APIC_ICR_HIGH, apic_id);
	apic_write(APIC_ICR, command | ICR_ASSERT);
	while (apic_read(APIC_ICR) & 0x1000)
		pause();
	if (flags & FLAG_IF)
		sti();
}

bool smp_start(void)
{
	u64 wanted = 1;
	command_option("cpus", &wanted);
	set_up(0);
	/* The trampoline loads the same GDT: limit, then the low half of the base. */
	struct table_register gdtr = { .limit = sizeof(gdt) - 1, .base = (ulong)gdt };
	memcpy(smp_gdt_register, &gdtr, 6);
	smp_send(0, ICR_OTHERS | ICR_INIT);
	spin(30000000); /* 10 ms and more */
	smp_send(0, ICR_OTHERS | ICR_STARTUP | (ulong)smp_trampoline >> 12);
	u64 end = rdtsc() + (10ull << 30);
	while (arrived < wanted - 1 && rdtsc() < end)
		pause();
	CHECK_EQ(arrived, wanted - 1);
	smp_cpus = arrived + 1;
	return smp_cpus == wanted;
}

u64 smp_came(void)
{
	return arrived;
}

void smp_stop(unsigned index)
{
	smp_send(smp_apic_id(index), ICR_INIT);
}

void smp_startup(unsigned index)
{
	smp_next = index;
	smp_send(smp_apic_id(index), ICR_STARTUP | (ulong)smp_trampoline >> 12);
}

bool smp_restart(unsigned index)
{
	u64 before = arrived;
	smp_stop(index);
	smp_startup(index);
	u64 end = rdtsc() + (10ull << 30);
	while (arrived == before && rdtsc() < end)
		pause();
	atomic_add(&finished, 1);
	return arrived == before + 1;
}

void smp_start_work(void (*work)(unsigned index))
{
	finished = 0;
	work_now = work;
	work_round++;
}

void smp_run(void (*work)(unsigned index))
{
	smp_start_work(work);
	work(0);
	while (finished < smp_cpus - 1)
		pause();
}

void barrier_wait(struct barrier *b, unsigned count)
{
	unsigned round = b->round;
	unsigned waiting = 1;
	asm volatile("lock xaddl %0, %1" : "+r"(waiting), "+m"(b->waiting) : : "memory");
	if (waiting + 1 == count) {
		b->waiting = 0;
		b->round = round + 1;
		return;
	}
	while (b->round == round)
		pause();
}
