/* The KVM engine on a fake KVM: state by groups, exits, interrupts, memory, and what it does where KVM refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_kvm.h"
#include "flat_guest.h"

#include <errno.h>

#define CODE 0x1000ull

static struct fake_kvm kvm;
static struct flat_guest *guest;
static struct vcpu *v;
static struct exit log_of_exits[64];
static unsigned logged;
static u64 answer;
static int vector;

static void on_exit_of_guest(struct vcpu *vcpu, struct exit *e)
{
	if (e->reason == EXIT_IO && !e->io.write)
		e->io.value = (u32)answer;
	if (e->reason == EXIT_MMIO && !e->mmio.write)
		e->mmio.value = answer;
	if (e->reason == EXIT_RDMSR)
		e->msr.value = answer;
	if ((e->reason == EXIT_RDMSR || e->reason == EXIT_WRMSR) && e->msr.index == 0x999)
		e->msr.fault = true;
	if (e->reason == EXIT_WRMSR && e->msr.index == 0xc0000080)
		vcpu->efer = e->msr.value;
	if (e->reason == EXIT_CR_READ)
		e->cr.value = 0;
	assert_true(logged < ARRAY_SIZE(log_of_exits));
	log_of_exits[logged++] = *e;
}

static int acknowledge(struct vcpu *vcpu)
{
	vcpu_clear_pending(vcpu, PENDING_INTERRUPT);
	return vector;
}

static int leave_hlt(struct fake_kvm *k)
{
	k->shared.run.exit_reason = KVM_EXIT_HLT;
	return 0;
}

static const struct vcpu_ops ops = { .exit = on_exit_of_guest, .interrupt_acknowledge = acknowledge };

static int set_up(void **state)
{
	memset(&kvm, 0, sizeof(kvm));
	kvm.guest = leave_hlt;
	fake_kvm_set(&kvm);
	guest = flat_create_on(&engine_kvm, "x86-64");
	v = &guest->vcpu;
	v->ops = &ops;
	v->cr4 &= v->cr4_valid;
	v->efer &= v->efer_valid;
	flat_map(guest, CODE, CODE, PTE_P | PTE_W | PTE_U);
	v->rip = CODE;
	logged = 0;
	answer = 0;
	vector = -1;
	return 0;
}

static int tear_down(void **state)
{
	flat_destroy(guest);
	assert_int_equal(kvm.files, 0);
	fake_kvm_set(NULL);
	return 0;
}

static enum exit_reason run(void)
{
	struct exit e = { .reason = EXIT_NONE };
	v->activity = ACTIVITY_ACTIVE;
	v->engine->run(v, &e);
	return e.reason;
}

/* The guest leaves once for what `first` says, and halts then. */
static int (*first)(struct fake_kvm *k);
static unsigned entered;

static int first_then_hlt(struct fake_kvm *k)
{
	return entered++ ? leave_hlt(k) : first(k);
}

static enum exit_reason run_first(int (*what)(struct fake_kvm *k))
{
	first = what;
	entered = 0;
	kvm.guest = first_then_hlt;
	return run();
}

static void counts_are_reset(void)
{
	memset(kvm.count, 0, sizeof(kvm.count));
}

/* ---- state ---- */

static void fill(void *p, size_t size, u8 seed)
{
	for (size_t i = 0; i < size; i++)
		((u8 *)p)[i] = (u8)(seed + i * 37);
}

static void state_goes_to_kvm(void **state)
{
	fill(v->gpr, sizeof(v->gpr), 1);
	fill(v->xsave, sizeof(v->xsave), 2);
	fill(v->dr, sizeof(v->dr), 3);
	v->cr2 = 0x12345;
	v->msr.lstar = 0xffffffff81000000;
	v->msr.kernel_gs_base = 0x77;
	v->seg[SEG_FS] = (struct segment){ .attr = SEG_ATTR_UNUSABLE, .base = 0x7000, .limit = 0xffff };
	v->gdtr = (struct table_register){ 0x5000, 0x7f };
	v->tsc_offset = 1234;
	v->nmi_blocked = true;
	v->engine->state_changed(v);
	v->shadow = SHADOW_MOV_SS; /* which a change from outside ends otherwise */
	assert_int_equal(run(), EXIT_HLT);
	assert_int_equal(kvm.regs.rax, v->gpr[RAX]);
	assert_int_equal(kvm.regs.rsp, v->gpr[RSP]);
	assert_int_equal(kvm.regs.r15, v->gpr[R15]);
	assert_int_equal(kvm.regs.rip, CODE);
	assert_memory_equal(kvm.xsave.region, v->xsave, sizeof(v->xsave));
	assert_memory_equal(kvm.debug.db, v->dr, sizeof(v->dr));
	assert_int_equal(kvm.sregs.cr2, 0x12345);
	assert_int_equal(kvm.sregs.cr3, v->cr3);
	assert_int_equal(kvm.sregs.efer, v->efer);
	assert_int_equal(kvm.sregs.cs.l, 1);
	assert_int_equal(kvm.sregs.cs.dpl, 3);
	assert_int_equal(kvm.sregs.ss.dpl, 3);
	assert_int_equal(kvm.sregs.fs.unusable, 1);
	assert_int_equal(kvm.sregs.fs.base, 0x7000);
	assert_int_equal(kvm.sregs.gdt.base, 0x5000);
	assert_int_equal(kvm.sregs.gdt.limit, 0x7f);
	assert_int_equal(*fake_kvm_msr(&kvm, 0xc0000082), 0xffffffff81000000);
	assert_int_equal(*fake_kvm_msr(&kvm, 0xc0000102), 0x77);
	assert_int_equal(kvm.tsc_offset, 1234);
	assert_int_equal(kvm.events.nmi.masked, 1);
	assert_int_equal(kvm.events.interrupt.shadow, KVM_X86_SHADOW_INT_MOV_SS);
	assert_true(kvm.cpuid_entries > 20);
}

static int guest_changes_all(struct fake_kvm *k)
{
	fill(&k->regs, sizeof(k->regs), 9);
	k->regs.rflags = RFLAGS_FIXED1 | RFLAGS_IF;
	fill(&k->xsave, sizeof(k->xsave), 8);
	k->debug.db[2] = 0x222;
	k->debug.dr7 = DR7_FIXED1;
	k->sregs.cr2 = 0xabc;
	k->sregs.ss.dpl = k->sregs.cs.dpl = 0;
	k->sregs.gs.base = 0x99;
	k->sregs.idt.limit = 0xfff;
	*fake_kvm_msr(k, 0xc0000102) = 0x55;
	k->events = (struct kvm_vcpu_events){ .nmi.masked = 1, .interrupt.shadow = KVM_X86_SHADOW_INT_STI };
	return leave_hlt(k);
}

static void state_comes_back_when_asked_for(void **state)
{
	kvm.guest = guest_changes_all;
	assert_int_equal(run(), EXIT_HLT);
	assert_int_equal(v->rflags, RFLAGS_FIXED1 | RFLAGS_IF);
	assert_true(v->nmi_blocked);
	assert_int_equal(FAKE_KVM_COUNT(&kvm, KVM_GET_SREGS2), 0);
	assert_int_equal(FAKE_KVM_COUNT(&kvm, KVM_GET_XSAVE), 0);
	v->engine->sync(v);
	assert_int_equal(v->gpr[R8], kvm.regs.r8);
	assert_int_equal(v->rip, kvm.regs.rip);
	assert_memory_equal(v->xsave, kvm.xsave.region, sizeof(v->xsave));
	assert_int_equal(v->dr[2], 0x222);
	assert_int_equal(v->cr2, 0xabc);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->seg[SEG_GS].base, 0x99);
	assert_int_equal(v->idtr.limit, 0xfff);
	assert_int_equal(v->msr.kernel_gs_base, 0x55);
	assert_int_equal(v->shadow, SHADOW_STI);
	counts_are_reset();
	v->engine->sync(v);
	kvm.guest = leave_hlt;
	assert_int_equal(run(), EXIT_HLT);
	/* Nothing was asked or told twice. */
	assert_int_equal(FAKE_KVM_COUNT(&kvm, KVM_GET_SREGS2), 0);
	assert_int_equal(FAKE_KVM_COUNT(&kvm, KVM_SET_REGS), 0);
	assert_int_equal(FAKE_KVM_COUNT(&kvm, KVM_SET_SREGS2), 0);
	assert_int_equal(FAKE_KVM_COUNT(&kvm, KVM_SET_XSAVE), 0);
}

/* An interrupt that was acknowledged but not delivered is delivered when somebody looks, or it would be lost. */
static int leave_with_injected(struct fake_kvm *k)
{
	k->events = (struct kvm_vcpu_events){ .interrupt = { .injected = 1, .nr = 0x40 }, .nmi.pending = 1 };
	k->sregs.cr0 = CR0_ET;
	k->sregs.cr4 = k->sregs.efer = 0;
	k->sregs.cs = k->sregs.ss = (struct kvm_segment){ .limit = 0xffff, .type = 3, .s = 1, .present = 1 };
	k->sregs.idt = (struct kvm_dtable){ .base = 0, .limit = 0x3ff };
	k->regs = (struct kvm_regs){ .rip = 0x500, .rsp = 0x8000, .rflags = RFLAGS_FIXED1 | RFLAGS_IF };
	return -EINTR;
}

static void event_under_way_is_delivered(void **state)
{
	const u32 handler = 0x00001234;
	memcpy(guest->memory + 0x40 * 4, &handler, sizeof(handler));
	vcpu_set_pending(v, 0);
	first = leave_with_injected;
	entered = 0;
	kvm.guest = first_then_hlt;
	assert_int_equal(run(), EXIT_HLT);
	assert_int_equal(v->rip, 0x1234);
	assert_int_equal(v->rflags & RFLAGS_IF, 0);
	assert_true(vcpu_pending(v) & PENDING_NMI);
	u16 pushed[3];
	memcpy(pushed, guest->memory + 0x8000 - 6, sizeof(pushed));
	assert_int_equal(pushed[0], 0x500);
	assert_int_equal(run(), EXIT_HLT);
	assert_int_equal(kvm.regs.rip, 0x1234);
	assert_int_equal(kvm.events.interrupt.injected, 0);
	assert_int_equal(kvm.nmis, 1);
}

/* ---- exits ---- */

static int string_out(struct fake_kvm *k)
{
	struct kvm_run *r = &k->shared.run;
	r->exit_reason = KVM_EXIT_IO;
	r->io.direction = KVM_EXIT_IO_OUT;
	r->io.size = 2;
	r->io.port = 0x1f0;
	r->io.count = 3;
	r->io.data_offset = 4096;
	memcpy(k->shared.page + 4096, "aabbcc", 6);
	return 0;
}

static int port_in(struct fake_kvm *k)
{
	struct kvm_run *r = &k->shared.run;
	r->exit_reason = KVM_EXIT_IO;
	r->io.direction = KVM_EXIT_IO_IN;
	r->io.size = 4;
	r->io.port = 0xcfc;
	r->io.count = 1;
	r->io.data_offset = 4096;
	return 0;
}

static void ports(void **state)
{
	run();
	logged = 0;
	counts_are_reset();
	assert_int_equal(run_first(string_out), EXIT_HLT);
	assert_int_equal(logged, 3);
	assert_int_equal(log_of_exits[2].io.value, 'c' | 'c' << 8);
	assert_int_equal(log_of_exits[2].io.port, 0x1f0);
	answer = 0xcafe1234;
	assert_int_equal(run_first(port_in), EXIT_HLT);
	assert_memory_equal(kvm.shared.page + 4096, "\x34\x12\xfe\xca", 4);
	/* Only the events, for each HLT. */
	assert_int_equal(FAKE_KVM_COUNT(&kvm, KVM_GET_VCPU_EVENTS), 2);
	assert_int_equal(FAKE_KVM_COUNT(&kvm, KVM_GET_REGS) + FAKE_KVM_COUNT(&kvm, KVM_GET_SREGS2) + FAKE_KVM_COUNT(&kvm, KVM_GET_MSRS), 0);
}

static int device_read(struct fake_kvm *k)
{
	k->shared.run.exit_reason = KVM_EXIT_MMIO;
	k->shared.run.mmio.phys_addr = 0xd0000008;
	k->shared.run.mmio.len = 8;
	k->shared.run.mmio.is_write = 0;
	return 0;
}

static void devices(void **state)
{
	answer = 0x1122334455667788;
	assert_int_equal(run_first(device_read), EXIT_HLT);
	assert_int_equal(log_of_exits[logged - 1].mmio.gpa, 0xd0000008);
	assert_memory_equal(kvm.shared.run.mmio.data, &answer, 8);
}

static int write_efer(struct fake_kvm *k)
{
	k->shared.run.exit_reason = KVM_EXIT_X86_WRMSR;
	k->shared.run.msr.index = 0xc0000080;
	k->shared.run.msr.data = EFER_LME | EFER_LMA | EFER_SCE;
	return 0;
}

static int read_unknown(struct fake_kvm *k)
{
	k->shared.run.exit_reason = KVM_EXIT_X86_RDMSR;
	k->shared.run.msr.index = 0x999;
	return 0;
}

static void msrs(void **state)
{
	assert_int_equal(run_first(write_efer), EXIT_HLT);
	assert_int_equal(kvm.sregs.efer, EFER_LME | EFER_LMA | EFER_SCE);
	assert_int_equal(kvm.shared.run.msr.error, 0);
	assert_int_equal(run_first(read_unknown), EXIT_HLT);
	assert_int_equal(kvm.shared.run.msr.error, 1);
}

static int move_to_cr8(struct fake_kvm *k)
{
	k->shared.run.cr8 = 9;
	return leave_hlt(k);
}

static void task_priority(void **state)
{
	kvm.guest = move_to_cr8;
	assert_int_equal(run(), EXIT_HLT);
	assert_int_equal(log_of_exits[logged - 1].reason, EXIT_CR_WRITE);
	assert_int_equal(log_of_exits[logged - 1].cr.value, 9);
}

/* MOV EAX, 5 is done by step, and the guest goes on behind it. */
static int unknown_instruction(struct fake_kvm *k)
{
	k->shared.run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
	k->shared.run.internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
	return 0;
}

static void what_kvm_does_not_know(void **state)
{
	memcpy(guest->memory + CODE, "\xb8\x05\x00\x00\x00", 5);
	assert_int_equal(run_first(unknown_instruction), EXIT_HLT);
	assert_int_equal(kvm.regs.rax, 5);
	assert_int_equal(kvm.regs.rip, CODE + 5);
	/* The same place holds other code now, written by the guest: nobody said so. */
	memcpy(guest->memory + CODE, "\xb8\x06\x00\x00\x00", 5);
	kvm.regs.rip = CODE;
	assert_int_equal(run_first(unknown_instruction), EXIT_HLT);
	assert_int_equal(kvm.regs.rax, 6);
}

static int triple_fault(struct fake_kvm *k)
{
	k->shared.run.exit_reason = KVM_EXIT_SHUTDOWN;
	k->sregs.cr2 = 0x4711;
	return 0;
}

static int strange(struct fake_kvm *k)
{
	k->shared.run.exit_reason = 77;
	return 0;
}

static void other_ends(void **state)
{
	assert_int_equal(run_first(triple_fault), EXIT_SHUTDOWN);
	assert_int_equal(v->cr2, 0x4711);
	assert_int_equal(run_first(strange), EXIT_ERROR);
}

/* ---- what is pending ---- */

static int kicked_meanwhile(struct fake_kvm *k)
{
	vcpu_set_pending(v, PENDING_KICK);
	assert_int_equal(k->shared.run.immediate_exit, 1);
	return -EINTR;
}

static void kick(void **state)
{
	assert_int_equal(run_first(kicked_meanwhile), EXIT_INTERRUPTED);
	assert_int_equal(vcpu_pending(v), 0);
	assert_int_equal(kvm.shared.run.immediate_exit, 0);
	vcpu_set_pending(v, PENDING_KICK);
	assert_int_equal(run(), EXIT_INTERRUPTED);
}

static int window_opens(struct fake_kvm *k)
{
	assert_int_equal(k->shared.run.request_interrupt_window, 1);
	assert_int_equal(k->interrupt, -1);
	k->shared.run.exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
	k->shared.run.ready_for_interrupt_injection = 1;
	return 0;
}

static void interrupt_waits_for_its_window(void **state)
{
	vector = 0x31;
	vcpu_set_pending(v, PENDING_INTERRUPT);
	assert_int_equal(run_first(window_opens), EXIT_HLT);
	assert_int_equal(kvm.interrupt, 0x31);
	assert_int_equal(kvm.shared.run.request_interrupt_window, 0);
	assert_int_equal(vcpu_pending(v), 0);
}

/* One that waited when the run ended for another reason waits in the next run. */
static void waiting_interrupt_is_kept(void **state)
{
	vector = 0x31;
	vcpu_set_pending(v, PENDING_INTERRUPT);
	assert_int_equal(run(), EXIT_HLT);
	assert_int_equal(kvm.interrupt, -1);
	assert_int_equal(vcpu_pending(v), PENDING_INTERRUPT);
	v->rflags |= RFLAGS_IF;
	v->engine->state_changed(v);
	assert_int_equal(run(), EXIT_HLT);
	assert_int_equal(kvm.interrupt, 0x31);
}

static int completes(struct fake_kvm *k)
{
	k->regs.rip += 2;
	return leave_hlt(k);
}

static int io_that_interrupts(struct fake_kvm *k)
{
	vcpu_set_pending(v, PENDING_KICK);
	k->guest = completes;
	return port_in(k);
}

/* The instruction is completed before anybody sees the registers. */
static void instruction_is_completed_first(void **state)
{
	kvm.guest = io_that_interrupts;
	assert_int_equal(run(), EXIT_INTERRUPTED);
	assert_int_equal(FAKE_KVM_COUNT(&kvm, KVM_SET_REGS), 1);
	assert_int_equal(v->rip, CODE); /* the fake completes nothing when it is stopped at once */
	assert_int_equal(run(), EXIT_HLT);
	assert_int_equal(v->rip, CODE + 2);
}

static void nmi(void **state)
{
	vcpu_set_pending(v, PENDING_NMI);
	assert_int_equal(run(), EXIT_HLT);
	assert_int_equal(kvm.nmis, 1);
	assert_int_equal(vcpu_pending(v), 0);
}

/* ---- a debugger ---- */

static int meets_break(struct fake_kvm *k)
{
	assert_int_equal(k->guest_debug.control, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP);
	assert_int_equal(k->guest_debug.arch.debugreg[0], CODE + 3);
	assert_int_equal(k->guest_debug.arch.debugreg[1], 0x2008);
	assert_int_equal(k->guest_debug.arch.debugreg[7], DR7_FIXED1 | BIT(1) | BIT(3) | 9ull << 20); /* 8 bytes, written */
	k->regs.rip = CODE + 3;
	k->shared.run.exit_reason = KVM_EXIT_DEBUG;
	k->shared.run.debug.arch.dr6 = DR6_B(0);
	return 0;
}

static int meets_watch(struct fake_kvm *k)
{
	assert_int_equal(k->regs.rip, CODE + 4); /* step went past the break point: a NOP */
	k->shared.run.exit_reason = KVM_EXIT_DEBUG;
	k->shared.run.debug.arch.dr6 = DR6_B(1);
	return 0;
}

static void points_in_debug_registers(void **state)
{
	const struct debug_point points[] = { { CODE + 3, 1, DEBUG_EXECUTE }, { 0x2008, 8, DEBUG_WRITE }, { 0x2001, 2, DEBUG_WRITE } };
	struct exit e = { .reason = EXIT_NONE };
	memset(guest->memory + CODE, 0x90, 16);
	debug_insert(v, &points[0]);
	debug_insert(v, &points[1]);
	kvm.guest = meets_break;
	v->engine->run(v, &e);
	assert_int_equal(e.reason, EXIT_DEBUG);
	assert_int_equal(e.debug.kind, DEBUG_EXECUTE);
	assert_int_equal(e.debug.gla, CODE + 3);
	kvm.guest = meets_watch;
	v->engine->run(v, &e);
	assert_int_equal(e.reason, EXIT_DEBUG);
	assert_int_equal(e.debug.kind, DEBUG_WRITE);
	assert_int_equal(e.debug.gla, 0x2008);
	/* One that no register can hold: step runs everything, to the HLT. */
	debug_insert(v, &points[2]);
	guest->memory[CODE + 8] = 0xf4;
	kvm.guest = NULL;
	flat_mode(guest, 64, 0);
	v->engine->state_changed(v);
	v->engine->run(v, &e);
	assert_int_equal(e.reason, EXIT_HLT);
	v->activity = ACTIVITY_ACTIVE;
	debug_clear(v);
	kvm.guest = leave_hlt;
	v->engine->run(v, &e);
	assert_int_equal(kvm.guest_debug.control, 0);
}

/* ---- memory ---- */

static unsigned slots_in_use(void)
{
	unsigned n = 0;
	for (unsigned i = 0; i < FAKE_KVM_SLOTS; i++)
		n += kvm.slot[i].memory_size != 0;
	return n;
}

static void memory(void **state)
{
	run();
	assert_int_equal(slots_in_use(), 1);
	assert_int_equal(kvm.slot[0].memory_size, FLAT_RAM);
	counts_are_reset();
	run();
	assert_int_equal(FAKE_KVM_COUNT(&kvm, KVM_SET_USER_MEMORY_REGION), 0);
	ram_set_readonly(&guest->ram, 0xc0000, 0x8000, true);
	run();
	assert_int_equal(slots_in_use(), 3);
	for (unsigned i = 0; i < 3; i++) {
		const struct kvm_userspace_memory_region *s = &kvm.slot[i];
		assert_int_equal(s->flags, s->guest_phys_addr == 0xc0000 ? KVM_MEM_READONLY : 0);
		assert_int_equal(s->userspace_addr, (u64)(uintptr_t)guest->memory + s->guest_phys_addr);
	}
	/* What does not change is left as it is: out go the middle and the end, in come the wider one and the shorter. */
	ram_set_readonly(&guest->ram, 0xc8000, 0x4000, true);
	counts_are_reset();
	run();
	assert_int_equal(slots_in_use(), 3);
	assert_int_equal(FAKE_KVM_COUNT(&kvm, KVM_SET_USER_MEMORY_REGION), 4);
}

static u64 harvest(u64 *bitmap)
{
	engine_kvm.gather_dirty(v);
	return ram_log_harvest(&guest->ram, memset(bitmap, 0, FLAT_RAM / PAGE_SIZE / 8));
}

static void dirty_log(void **state)
{
	u64 bitmap[FLAT_RAM / PAGE_SIZE / 64];
	guest->ram.memory = guest->memory;
	guest->ram.memory_size = FLAT_RAM;
	run();
	ram_log(&guest->ram, true);
	counts_are_reset();
	run();
	assert_int_equal(kvm.slot[0].flags, KVM_MEM_LOG_DIRTY_PAGES);
	assert_int_equal(FAKE_KVM_COUNT(&kvm, KVM_SET_USER_MEMORY_REGION), 1); /* in place */
	kvm.dirty[0] = 5;
	ram_write(&guest->ram, 0x7000, "x", 1); /* a device */
	assert_int_equal(harvest(bitmap), 3);
	assert_int_equal(bitmap[0], 5 | BIT(7));
	assert_int_equal(harvest(bitmap), 0);
	/* What KVM knew of a slot that is cut goes with it: all its pages count. */
	ram_set_readonly(&guest->ram, 0xc0000, 0x8000, true);
	run();
	assert_int_equal(harvest(bitmap), FLAT_RAM / PAGE_SIZE);
	kvm.refuse = KVM_GET_DIRTY_LOG;
	assert_int_equal(harvest(bitmap), FLAT_RAM / PAGE_SIZE);
	kvm.refuse = 0;
	ram_log(&guest->ram, false);
	run();
	assert_int_equal(kvm.slot[0].flags & KVM_MEM_LOG_DIRTY_PAGES, 0);
	assert_int_equal(harvest(bitmap), 0);
}

/* ---- refusals ---- */

static void what_kvm_refuses(void **state)
{
	static const u64 requests[] = { KVM_SET_SREGS2, KVM_SET_REGS, KVM_SET_XSAVE, KVM_SET_VCPU_EVENTS, KVM_SET_USER_MEMORY_REGION };
	for (unsigned i = 0; i < ARRAY_SIZE(requests); i++) {
		struct exit e = { .reason = EXIT_NONE };
		kvm.refuse = requests[i];
		ram_set_readonly(&guest->ram, 0, PAGE_SIZE, i & 1);
		v->engine->state_changed(v);
		v->engine->run(v, &e);
		assert_int_equal(e.reason, EXIT_ERROR);
		assert_non_null(strstr(e.error.what, "KVM does not take"));
	}
	kvm.refuse = KVM_GET_SREGS2;
	assert_int_equal(run_first(unknown_instruction), EXIT_ERROR);
	kvm.refuse = 0;
}

static void availability(void **state)
{
	const char *why = NULL;
	assert_true(engine_kvm.available(&why));
	kvm.lacking = KVM_CAP_X86_MSR_FILTER;
	assert_false(engine_kvm.available(&why));
	assert_non_null(strstr(why, "KVM_CAP_X86_MSR_FILTER"));
	kvm.lacking = 0;
	fake_kvm_set(NULL);
	assert_false(engine_kvm.available(&why));
	assert_false(engine_kvm.preferred(&why));
	assert_string_equal(why, "the fake host has no KVM");
	fake_kvm_set(&kvm);
}

static void features(void **state)
{
	struct cpuid_policy available;
	engine_kvm.limit(&available, MMU_AUTO);
	assert_true(cpuid_has(&available, FEATURE_AVX));
	assert_true(cpuid_has(&available, FEATURE_X2APIC));
	kvm.refuse = KVM_GET_SUPPORTED_CPUID;
	engine_kvm.limit(&available, MMU_AUTO);
	assert_false(cpuid_has(&available, FEATURE_AVX));
	assert_true(cpuid_has(&available, FEATURE_X2APIC));
	cpuid_policy_limit(guest->policy, &available);
	assert_false(cpuid_has(guest->policy, FEATURE_AVX));
	kvm.refuse = 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(state_goes_to_kvm),
		TEST(state_comes_back_when_asked_for),
		TEST(event_under_way_is_delivered),
		TEST(ports),
		TEST(devices),
		TEST(msrs),
		TEST(task_priority),
		TEST(what_kvm_does_not_know),
		TEST(other_ends),
		TEST(kick),
		TEST(interrupt_waits_for_its_window),
		TEST(waiting_interrupt_is_kept),
		TEST(instruction_is_completed_first),
		TEST(nmi),
		TEST(points_in_debug_registers),
		TEST(memory),
		TEST(dirty_log),
		TEST(what_kvm_refuses),
		TEST(availability),
		TEST(features),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
