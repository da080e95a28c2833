/* The step engine on hostile code: any bytes as code, tables and data, in every mode. Nothing a guest does may crash
 * the engine; what the vCPU looks like after each instruction must make sense. */
#include "engine/step/step.h"
#include "arch/paging.h"
#include "cpu/control.h"
#include "cpu/cpuid.h"
#include "cpu/segment.h"
#include "host/linux/trap.h"
#include "host/port.h"
#include "input.h"
#include "lib/string.h"
#include "mmu/mmu.h"

#define RAM_BYTES 0x18000u
#define TABLES 0x10000u /* page tables; what is below is mapped to itself */
#define CODE 0x1000u
#define STEPS 100

static struct vcpu *vcpu;
static struct ram ram;
static u8 *memory;

static void answer(struct vcpu *v, struct exit *exit)
{
	if (exit->reason == EXIT_CPUID)
		cpuid_answer(v, exit->cpuid.leaf, exit->cpuid.subleaf, &exit->cpuid.eax, &exit->cpuid.ebx,
			     &exit->cpuid.ecx, &exit->cpuid.edx);
}

static int no_interrupt(struct vcpu *v)
{
	vcpu_clear_pending(v, PENDING_INTERRUPT);
	return 0x20;
}

static void create(void)
{
	static const struct vcpu_ops ops = { .exit = answer, .interrupt_acknowledge = no_interrupt };
	char error[200];
	vcpu = host_alloc(sizeof(*vcpu));
	memory = host_ram_create(RAM_BYTES);
	struct cpuid_policy *policy = cpuid_policy_create("host", 1, host_tsc_hz(), error, sizeof(error));
	vcpu->ops = &ops;
	vcpu->ram = &ram;
	vcpu->engine = &engine_step;
	CHECK(policy && memory && !ram_add(&ram, 0, RAM_BYTES, memory, false));
	cpuid_apply(vcpu, policy);
	CHECK(!mmu_create(vcpu));
	trap_thread_init();
	CHECK(!engine_step.vcpu_create(vcpu));
}

static void set_segments(u32 size, u8 cpl)
{
	for (unsigned i = 0; i < SEG_COUNT; i++)
		vcpu->seg[i] = (struct segment){
			.selector = (u16)(0x10 | cpl),
			.limit = 0xfffff,
			.attr = SEG_ATTR_P | SEG_ATTR_S | (u32)cpl << SEG_ATTR_DPL_SHIFT |
				(i == SEG_CS ? 0xb | size : 3 | SEG_ATTR_DB),
		};
	cpu_set_cpl(vcpu, cpl);
}

/* Long mode: pages with all kinds of rights. */
static void make_tables(void)
{
	u64 *table = (u64 *)(void *)(memory + TABLES);
	for (unsigned level = 0; level < 3; level++)
		table[level * 512] = (TABLES + (level + 1) * PAGE_SIZE) | PTE_P | PTE_W | PTE_U;
	for (unsigned page = 0; page < TABLES / PAGE_SIZE; page++)
		table[3 * 512 + page] = page * PAGE_SIZE | PTE_P | (page % 7 ? PTE_W : 0) | (page % 5 ? PTE_U : 0) |
					(page % 11 == 10 ? PTE_NX : 0);
}

static void set_mode(struct input *in)
{
	u8 mode = input_u8(in), cpl = mode >> 4 & 3;
	vcpu->cr4 |=
		CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | (mode & 0x80 ? CR4_SMAP | CR4_SMEP | CR4_UMIP | CR4_DE : 0);
	vcpu->xcr0 = vcpu->xcr0_valid;
	if ((mode & 7) == 0)
		return; /* real mode */
	vcpu->cr0 |= CR0_PE | CR0_NE | CR0_MP;
	if ((mode & 7) == 1) {
		set_segments(0, cpl);
	} else if ((mode & 7) == 2) {
		set_segments(SEG_ATTR_DB, cpl);
	} else {
		vcpu->cr3 = TABLES;
		vcpu->cr4 |= CR4_PAE | CR4_FSGSBASE;
		vcpu->efer |= EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
		vcpu->cr0 |= CR0_PG | CR0_WP;
		set_segments((mode & 7) == 3 ? SEG_ATTR_DB : SEG_ATTR_L, cpl);
	}
	if (mode & 0x40)
		vcpu->rflags |= RFLAGS_AC;
	if (mode & 8)
		vcpu->cr0 |= CR0_AM;
}

static void start(struct input *in)
{
	cpu_reset(vcpu, false);
	vcpu->activity = ACTIVITY_ACTIVE;
	vcpu->pending = 0;
	vcpu->rflags |= input_take(in, 2) & (RFLAGS_STATUS | RFLAGS_DF | RFLAGS_TF | RFLAGS_IF);
	set_mode(in);
	for (unsigned i = 0; i < GPR_COUNT; i++)
		vcpu->gpr[i] = input_take(in, 2) << (i & 1 ? 0 : 4);
	vcpu->gdtr = (struct table_register){ 0x4000, 0xfff };
	vcpu->idtr = (struct table_register){ vcpu->cr0 & CR0_PE ? 0x5000 : 0, 0xfff };
	vcpu->dr7 = input_u8(in) & 8 ? input_take(in, 4) & 0xffff00ff : 0x400;
	vcpu->dr[0] = input_take(in, 2);
	vcpu->seg[SEG_CS].base = 0;
	vcpu->rip = CODE;
	/* The rest of the input is memory, over and over. */
	size_t left = MIN(in->left, 4096u);
	memset(memory, 0, RAM_BYTES);
	for (unsigned at = 0; left && at + left <= TABLES; at += left)
		memcpy(memory + at, in->bytes, left);
	memcpy(memory + CODE, in->bytes, left);
	if (vcpu->cr0 & CR0_PG)
		make_tables();
	ram_written(&ram, 0, RAM_BYTES);
	mmu_update_view(vcpu);
	mmu_load_cr3(vcpu, false);
	mmu_flush_all(vcpu);
	engine_step.state_changed(vcpu);
}

static void check(void)
{
	CHECK(vcpu->cpl <= 3);
	CHECK((vcpu->rflags & (RFLAGS_FIXED1 | BIT(3) | BIT(5) | BIT(15))) == RFLAGS_FIXED1);
	CHECK(!(vcpu->rflags >> 22));
	CHECK(!(vcpu->cr0 & CR0_PG) || (vcpu->cr0 & CR0_PE));
	CHECK(vcpu_64bit(vcpu) || vcpu->rip <= 0x100000000);
	CHECK(!(vcpu->cr0 & CR0_PG) || !!(vcpu->efer & EFER_LMA) == !!(vcpu->efer & EFER_LME));
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct exit exit;
	if (!vcpu)
		create();
	start(&in);
	u8 run = size & 1;
	for (unsigned i = 0; i < STEPS; i++) {
		if (run && i == STEPS / 2)
			vcpu_set_pending(vcpu, PENDING_INTERRUPT | PENDING_NMI);
		bool go_on = step_one(vcpu, &exit);
		check();
		if (!go_on && exit.reason != EXIT_HLT)
			break;
		if (!go_on)
			vcpu->activity = ACTIVITY_ACTIVE;
	}
	return 0;
}
