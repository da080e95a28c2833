/* What a CPU needs before it can run guests, and ASIDs, which name the guests' translations in its TLB.
 * AMD APM volume 2, "Enabling SVM", "Host State-Save Area", "TLB Control". */
#include "engine/svm/svm.h"

#include "arch/asm.h"
#include "arch/msr.h"
#include "arch/regs.h"
#include "cpu/host_cpuid.h"

/* On the CPU itself. */
static void enable(void *opaque)
{
	struct svm_cpu *cpu = opaque;
	cpu->asids = host_cpuid(0x8000000a, 0).reg[CPUID_EBX];
	cpu->next_asid = 1;
	cpu->generation = 1;
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
	wrmsr(MSR_VM_HSAVE_PA, host_physical(cpu->save_area));
	*host_cpu_slot() = cpu;
}

static void is_enabled(void *opaque)
{
	*(bool *)opaque = *host_cpu_slot() != NULL;
}

static bool init(unsigned number)
{
	bool done;
	host_cpu_call(number, is_enabled, &done);
	if (done)
		return true;
	struct svm_cpu *cpu = host_alloc(sizeof(*cpu));
	u8 *pages = host_pages_create(2);
	if (!cpu || !pages) {
		host_free(cpu);
		host_pages_destroy(pages, 2);
		return false;
	}
	cpu->host = host_physical(pages);
	cpu->save_area = pages + PAGE_SIZE;
	host_cpu_call(number, enable, cpu);
	return true;
}

bool svm_cpus_init(void)
{
	for (unsigned i = 0; i < host_cpus(); i++)
		if (!init(i))
			return false;
	return true;
}

/* One that no guest has used since everything was flushed. */
static void take_asid(struct svm_vcpu *s, struct svm_cpu *cpu)
{
	if (cpu->next_asid >= cpu->asids) {
		cpu->generation++;
		cpu->next_asid = 1;
		s->vmcb->tlb_control = TLB_FLUSH_ALL;
	}
	s->vmcb->asid = cpu->next_asid++;
	s->vmcb->clean &= ~(u32)CLEAN_ASID;
	s->cpu = cpu;
	s->generation = cpu->generation;
}

void svm_choose_asid(struct svm_vcpu *s, struct svm_cpu *cpu, bool flush)
{
	s->vmcb->tlb_control = TLB_KEEP;
	if (s->cpu != cpu || s->generation != cpu->generation)
		take_asid(s, cpu);
	else if (flush && (s->features & SVM_FLUSH_BY_ASID))
		s->vmcb->tlb_control = TLB_FLUSH_ASID;
	else if (flush)
		take_asid(s, cpu);
}
