/* The trial of /dev/kvm: make a VM with one vCPU, start the trial guest (probe_guest.S) in 64-bit mode, and follow its
 * steps. Linux documentation, "The Definitive KVM (Kernel-based Virtual Machine) API Documentation".
 *
 * Everything happens in a child process: a KVM that hangs, or kills the process that uses it, is a result like any
 * other. The child reports through a shared page; the parent waits, at most TRIAL_SECONDS. */
#define _GNU_SOURCE
#include "host/linux/probe_kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arch/regs.h"
#include "host/linux/probe_guest.h"

#define TRIAL_SECONDS 3
/* Below this a kernel would need minutes to boot: the host emulates instructions instead of running them. */
#define SLOW_KIPS 50000u

static const char *const steps[] = {
	"entering 64-bit mode and writing to an I/O port",
	"CPUID",
	"loading the descriptor tables and the task register",
	"running at privilege level 0",
	"setting bits of CR0 and CR4",
	"setting bits of EFER",
	"writing the MSRs of SYSCALL, and SWAPGS",
	"running at the addresses where kernels live",
	"running a loop",
	"handling an exception through the IDT",
	"changing the interrupt flag with STI, CLI and POPF",
	"changing a page table, and INVLPG",
	"switching to other page tables",
	"LOCK CMPXCHG16B",
	"floating-point and SSE instructions",
	"a device register in memory",
	"entering user mode, and SYSCALL",
	"HLT",
};
#define STEPS ARRAY_SIZE(steps)
_Static_assert(STEPS == TRIAL_STEPS, "every step has a name");

struct trial {
	struct kvm_report *report;
	int kvm, vm, vcpu;
	u8 *memory;
	struct kvm_run *run;
	u64 loop_started; /* nanoseconds */
	char why[200]; /* what was the matter with the step at hand */
	char first_why[200]; /* with the first that failed */
};

extern const u32 probe_guest_steps[STEPS];

static u64 now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

/* ---- the registers it starts with ---- */

static struct kvm_segment segment(u16 selector, u8 type)
{
	return (struct kvm_segment){ .selector = selector,
				     .limit = 0xffffffff,
				     .type = type,
				     .present = 1,
				     .s = 1,
				     .g = 1,
				     .l = type == 11,
				     .db = type != 11 };
}

static void fill_registers(struct kvm_sregs *s)
{
	s->cs = segment(0x10, 11);
	s->ds = s->es = s->fs = s->gs = s->ss = segment(0x18, 3);
	s->gdt = (struct kvm_dtable){ .base = TRIAL_GDT, .limit = TRIAL_GDT_SIZE - 1 };
	s->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
	s->cr3 = TRIAL_PML4;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA;
}

/* ---- setting KVM up ---- */

static bool failed(struct trial *t, const char *what)
{
	snprintf(t->why, sizeof(t->why), "%s failed (%s)", what, strerror(errno));
	return false;
}

static bool give_cpuid(struct trial *t)
{
	alignas(struct kvm_cpuid2) u8 room[sizeof(struct kvm_cpuid2) + 256 * sizeof(struct kvm_cpuid_entry2)] = { 0 };
	struct kvm_cpuid2 *cpuid = (struct kvm_cpuid2 *)(void *)room;
	cpuid->nent = 256;
	if (ioctl(t->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
		return failed(t, "KVM_GET_SUPPORTED_CPUID");
	if (ioctl(t->vcpu, KVM_SET_CPUID2, cpuid) < 0)
		return failed(t, "KVM_SET_CPUID2");
	return true;
}

static bool create_vm(struct trial *t)
{
	t->vm = ioctl(t->kvm, KVM_CREATE_VM, 0);
	if (t->vm < 0)
		return failed(t, "KVM_CREATE_VM");
	t->memory = mmap(NULL, TRIAL_MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (t->memory == MAP_FAILED)
		return failed(t, "mapping the guest's memory");
	struct kvm_userspace_memory_region region = { .memory_size = TRIAL_MEMORY, .userspace_addr = (u64)t->memory };
	/* Needed by VT-x without unrestricted guest; elsewhere it is harmless. */
	ioctl(t->vm, KVM_SET_TSS_ADDR, 0xfffbd000);
	if (ioctl(t->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return failed(t, "KVM_SET_USER_MEMORY_REGION");
	return true;
}

static bool create_vcpu(struct trial *t)
{
	int size = ioctl(t->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	t->vcpu = ioctl(t->vm, KVM_CREATE_VCPU, 0);
	if (t->vcpu < 0)
		return failed(t, "KVM_CREATE_VCPU");
	t->run = mmap(NULL, size > 0 ? (size_t)size : PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, t->vcpu, 0);
	if (t->run == MAP_FAILED)
		return failed(t, "mapping the vCPU");
	return give_cpuid(t);
}

/* Put the vCPU where a step begins. A later one finds what those before it are to leave behind. */
static bool start_step(struct trial *t, unsigned number)
{
	struct kvm_regs regs = { .rip = TRIAL_CODE + probe_guest_steps[number - 1], .rsp = TRIAL_STACK_TOP, .rflags = RFLAGS_FIXED1 };
	struct kvm_sregs sregs;
	struct kvm_vcpu_events events = { 0 };
	t->report->step = number;
	ioctl(t->vcpu, KVM_SET_VCPU_EVENTS, &events);
	if (ioctl(t->vcpu, KVM_GET_SREGS, &sregs) < 0)
		return failed(t, "KVM_GET_SREGS");
	fill_registers(&sregs);
	if (number > 3)
		sregs.idt = (struct kvm_dtable){ .base = TRIAL_IDT, .limit = 32 * 16 - 1 };
	if (number > 5)
		sregs.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
	if (number > 6)
		sregs.efer |= EFER_SCE | EFER_NXE;
	if (ioctl(t->vcpu, KVM_SET_SREGS, &sregs) < 0)
		return failed(t, "KVM_SET_SREGS");
	if (ioctl(t->vcpu, KVM_SET_REGS, &regs) < 0)
		return failed(t, "KVM_SET_REGS");
	return true;
}

static bool prepare(struct trial *t)
{
	if (!create_vm(t) || !create_vcpu(t))
		return false;
	probe_guest_build(t->memory);
	return start_step(t, 1);
}

/* ---- running it ---- */

enum verdict { GO_ON, DONE, STOP };

static enum verdict stop(struct trial *t, const char *why)
{
	snprintf(t->why, sizeof(t->why), "%s", why);
	return STOP;
}

static enum verdict answer_io(struct trial *t)
{
	u32 value = *(const u32 *)((const u8 *)t->run + t->run->io.data_offset);
	if (t->run->io.port == TRIAL_PORT_EXCEPTION)
		return stop(t, "the guest took an exception that no processor raises there");
	if (t->run->io.port != TRIAL_PORT_PASSED || value != t->report->step)
		return stop(t, "the guest saw another result than a processor gives");
	t->report->steps_passed++;
	t->report->step = value + 1;
	if (value == TRIAL_SPEED_STEP - 1)
		t->loop_started = now();
	if (value == TRIAL_SPEED_STEP)
		t->report->kinstructions_per_s = TRIAL_LOOP * 3 * 1000000ull / (now() - t->loop_started + 1);
	return GO_ON;
}

static enum verdict answer_mmio(struct trial *t)
{
	u32 value = 0x87654321;
	if (t->run->mmio.phys_addr != TRIAL_MMIO_GPA + (TRIAL_MMIO & 0xfff) || t->run->mmio.len != 4)
		return stop(t, "KVM reported another access than the guest made");
	if (!t->run->mmio.is_write)
		memcpy(t->run->mmio.data, &value, sizeof(value));
	return GO_ON;
}

static enum verdict emulation_failed(struct trial *t)
{
	struct kvm_regs regs = { 0 };
	ioctl(t->vcpu, KVM_GET_REGS, &regs);
	snprintf(t->why, sizeof(t->why),
		 "KVM interprets the instruction in software and does not know it (KVM_EXIT_INTERNAL_ERROR %u, offset "
		 "%#llx)",
		 t->run->internal.suberror, regs.rip & 0xffff);
	return STOP;
}

static enum verdict answer(struct trial *t)
{
	switch (t->run->exit_reason) {
	case KVM_EXIT_IO:
		return answer_io(t);
	case KVM_EXIT_MMIO:
		return answer_mmio(t);
	case KVM_EXIT_HLT:
		return t->report->step == STEPS ? DONE : stop(t, "the guest halted too early");
	case KVM_EXIT_SHUTDOWN:
		return stop(t, "the guest ended in a triple fault");
	case KVM_EXIT_INTERNAL_ERROR:
		return emulation_failed(t);
	case KVM_EXIT_FAIL_ENTRY:
		return stop(t, "the processor refused to enter the guest (KVM_EXIT_FAIL_ENTRY)");
	default:
		snprintf(t->why, sizeof(t->why), "KVM left the guest with reason %u", t->run->exit_reason);
		return STOP;
	}
}

static enum verdict enter(struct trial *t)
{
	if (ioctl(t->vcpu, KVM_RUN, 0) == 0)
		return answer(t);
	failed(t, "KVM_RUN");
	return STOP;
}

/* A step that fails is left out, and the others are tried all the same. */
static void run_guest(struct trial *t)
{
	struct kvm_report *r = t->report;
	enum verdict verdict = GO_ON;
	while (verdict != DONE) {
		verdict = enter(t);
		if (verdict != STOP)
			continue;
		if (!r->failed)
			snprintf(t->first_why, sizeof(t->first_why), "%s", t->why);
		r->failed |= 1u << (r->step - 1);
		if (r->step == STEPS || !start_step(t, r->step + 1))
			return;
	}
	r->steps_passed++;
}

static void judge_speed(struct kvm_report *r)
{
	r->usable = r->kinstructions_per_s >= SLOW_KIPS;
	if (r->usable)
		snprintf(r->verdict, sizeof(r->verdict), "it runs what a 64-bit kernel needs at the processor's speed");
	else
		snprintf(r->verdict, sizeof(r->verdict),
			 "it interprets guest code at %llu million instructions a second, so a kernel would take "
			 "minutes to boot",
			 (unsigned long long)r->kinstructions_per_s / 1000);
}

static void trial(struct kvm_report *report, int kvm)
{
	struct trial t = { .report = report, .kvm = kvm };
	if (!prepare(&t))
		snprintf(report->verdict, sizeof(report->verdict), "no virtual CPU can be made: %s", t.why);
	else {
		run_guest(&t);
		if (!report->failed)
			judge_speed(report);
		else
			snprintf(report->verdict, sizeof(report->verdict), "an unmodified 64-bit kernel does not run, since at the step '%s' %s",
				 steps[__builtin_ctz(report->failed)], t.first_why);
	}
}

static const char *step_at_hand(const struct kvm_report *report)
{
	return steps[report->step ? report->step - 1 : 0];
}

/* ---- parent and child ---- */

/* Wait for the child, and kill it when its time is over. */
static void wait_for(pid_t child, struct kvm_report *report)
{
	const struct timespec pause = { .tv_nsec = 5000000 };
	u64 end = now() + TRIAL_SECONDS * 1000000000ull;
	int status = 0;
	pid_t done;
	while ((done = waitpid(child, &status, WNOHANG)) == 0 && now() < end)
		nanosleep(&pause, NULL);
	if (done == 0) {
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
		report->usable = false;
		snprintf(report->verdict, sizeof(report->verdict),
			 "an unmodified 64-bit kernel does not run, since the step '%s' did not end within %d seconds",
			 step_at_hand(report), TRIAL_SECONDS);
	} else if (WIFSIGNALED(status)) {
		report->usable = false;
		snprintf(report->verdict, sizeof(report->verdict),
			 "the process that tried it was killed by signal %d at the step '%s'", WTERMSIG(status),
			 step_at_hand(report));
	}
}

static void try_in_child(struct kvm_report *report, int kvm)
{
	struct kvm_report *shared =
		mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		snprintf(report->verdict, sizeof(report->verdict), "it was not tried: %s", strerror(errno));
		return;
	}
	*shared = *report;
	pid_t parent = getpid(), child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent)
			trial(shared, kvm);
		_exit(0);
	}
	if (child < 0)
		snprintf(shared->verdict, sizeof(shared->verdict), "it was not tried: %s", strerror(errno));
	else
		wait_for(child, shared);
	*report = *shared;
	munmap(shared, sizeof(*shared));
}

void probe_kvm(struct kvm_report *report)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	*report = (struct kvm_report){ .api_version = -1, .steps = STEPS };
	report->present = kvm >= 0 || errno != ENOENT;
	report->opens = kvm >= 0;
	if (!report->present) {
		snprintf(report->verdict, sizeof(report->verdict),
			 "there is no /dev/kvm: the host kernel has no KVM, or the processor nothing that it uses");
		return;
	}
	if (kvm < 0) {
		snprintf(report->verdict, sizeof(report->verdict),
			 "/dev/kvm does not open (%s): join the group that owns it", strerror(errno));
		return;
	}
	report->api_version = ioctl(kvm, KVM_GET_API_VERSION, 0);
	if (report->api_version == KVM_API_VERSION)
		try_in_child(report, kvm);
	else
		snprintf(report->verdict, sizeof(report->verdict), "its API version is %d, and nadir speaks %d",
			 report->api_version, KVM_API_VERSION);
	close(kvm);
}

const char *probe_kvm_step(unsigned number)
{
	return number >= 1 && number <= STEPS ? steps[number - 1] : NULL;
}
