/* The run loop of hardware engines with a processor that is a list of what it does at each entry; and what engine/svm keeps in tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch/exception.h"
#include "engine/hw/hw.h"
#include "engine/step/step.h"
#include "engine/svm/svm.h"
#include "flat_guest.h"
#include "irq/lapic.h"

#include <string.h>

#define CODE 0x10000
#define SEEN_MAX 16

/* ---- the processor ---- */

/* What the guest does until it leaves, and the answer to that. */
struct act {
	void (*guest)(struct vcpu *v);
	enum hw_next (*answer)(struct vcpu *v, struct exit *exit);
};

static struct {
	const struct act *act;
	unsigned entries;
	struct {
		u32 event, error;
		bool window;
		u64 rflags;
	} seen[SEEN_MAX];
} cpu;

static bool enter(struct vcpu *v, const char **what)
{
	struct hw_vcpu *hw = hw_of(v);
	assert_true(cpu.entries < SEEN_MAX);
	cpu.seen[cpu.entries].event = hw->event;
	cpu.seen[cpu.entries].error = hw->event_error;
	cpu.seen[cpu.entries].window = hw->window;
	cpu.seen[cpu.entries].rflags = v->rflags;
	hw->event = 0;
	hw->next_rip = 0;
	const struct act *act = &cpu.act[cpu.entries++];
	if (act->guest)
		act->guest(v);
	*what = "refused";
	return act->answer != NULL;
}

static enum hw_next answer(struct vcpu *v, struct exit *exit)
{
	return cpu.act[cpu.entries - 1].answer(v, exit);
}

static void nothing(struct vcpu *v, u32 groups)
{
}

static const struct hw_ops ops = { .fetch = nothing, .write = nothing, .enter = enter, .answer = answer };

static enum hw_next leave(struct vcpu *v, struct exit *exit)
{
	exit->reason = EXIT_PAUSE;
	return HW_LEAVE;
}

/* ---- the machine ---- */

static struct flat_guest *guest;
static struct vcpu *v;
static int vector;
static struct exit last;

static void on_exit_of_guest(struct vcpu *vcpu, struct exit *e)
{
	last = *e;
	if (e->reason == EXIT_IO && !e->io.write)
		e->io.value = last.io.value = 0xa5a5a5a5;
	if (e->reason == EXIT_WRMSR)
		e->msr.fault = true;
}

static int acknowledge(struct vcpu *vcpu)
{
	int taken = vector;
	vcpu_clear_pending(vcpu, PENDING_INTERRUPT);
	vector = -1;
	return taken;
}

/* Of a processor that delivers by itself: what is posted is taken; `extint`: the 8259 pair asks. */
static struct lapic lapic;
static struct posted posted;
static bool extint;
static unsigned refreshed;

static bool refresh(struct vcpu *vcpu)
{
	u64 vectors[4], level[4];
	vcpu_clear_pending(vcpu, PENDING_INTERRUPT);
	posted_drain(&posted, vectors, level);
	refreshed++;
	return extint;
}

static int create(struct vcpu *vcpu)
{
	if (step_create(vcpu, 1u << 20))
		return -1;
	step_of(vcpu)->translator = host_alloc(sizeof(struct hw_vcpu));
	hw_init(vcpu, &ops, hw_memory_nested.create(vcpu, &hw_format_npt));
	return 0;
}

static void destroy(struct vcpu *vcpu)
{
	struct hw_vcpu *hw = hw_of(vcpu);
	hw->memory->ops->destroy(hw->memory);
	host_free(hw);
	step_destroy(vcpu);
}

static const struct engine_ops engine = {
	.name = "fake", .vcpu_create = create, .vcpu_destroy = destroy, .run = hw_run, .sync = hw_sync, .state_changed = hw_state_changed,
};

static int set_up(void **state)
{
	static const struct vcpu_ops vm = { .exit = on_exit_of_guest, .interrupt_acknowledge = acknowledge, .interrupt_refresh = refresh };
	guest = flat_create_on(&engine, "x86-64");
	v = &guest->vcpu;
	v->ops = &vm;
	flat_map(guest, CODE, CODE, PTE_P | PTE_W);
	flat_mode(guest, 64, 0);
	v->rip = CODE;
	v->rflags = RFLAGS_FIXED1 | RFLAGS_IF;
	vector = -1;
	memset(&cpu, 0, sizeof(cpu));
	memset(&last, 0, sizeof(last));
	memset(&posted, 0, sizeof(posted));
	extint = false;
	refreshed = 0;
	return 0;
}

static int tear_down(void **state)
{
	flat_destroy(guest);
	return 0;
}

static enum exit_reason run(const struct act *acts)
{
	struct exit e = { .reason = EXIT_NONE };
	cpu.act = acts;
	cpu.entries = 0;
	hw_run(v, &e);
	return e.reason;
}

#define EVENT(type, number) ((u32)HW_EVENT_VALID | HW_EVENT_TYPE(HW_EVENT_##type) | (number))

/* ---- pending ---- */

static void interrupts_are_injected_once(void **state)
{
	static const struct act acts[] = { { NULL, hw_nothing }, { NULL, leave } };
	vector = 0x31;
	vcpu_set_pending(v, PENDING_INTERRUPT);
	assert_int_equal(run(acts), EXIT_PAUSE);
	assert_int_equal(cpu.seen[0].event, EVENT(EXTERNAL, 0x31));
	assert_int_equal(cpu.seen[1].event, 0);
	assert_false(cpu.seen[1].window);
}

static void sti(struct vcpu *vcpu)
{
	vcpu->rflags |= RFLAGS_IF;
}

static void interrupts_wait_for_their_window(void **state)
{
	static const struct act acts[] = { { NULL, hw_nothing }, { sti, hw_nothing }, { NULL, leave } };
	v->rflags &= ~RFLAGS_IF;
	vector = 0x31;
	vcpu_set_pending(v, PENDING_INTERRUPT);
	assert_int_equal(run(acts), EXIT_PAUSE);
	for (unsigned i = 0; i < 2; i++) {
		assert_true(cpu.seen[i].window);
		assert_int_equal(cpu.seen[i].event, 0);
	}
	assert_int_equal(cpu.seen[2].event, EVENT(EXTERNAL, 0x31));
	assert_false(cpu.seen[2].window);
}

/* Where the processor delivers the local APIC's interrupts: no window, and nothing is injected but what the 8259 pair has. */
static void the_processor_delivers(void **state)
{
	static const struct act acts[] = { { NULL, hw_nothing }, { sti, hw_nothing }, { NULL, leave } };
	hw_of(v)->delivers = true;
	v->rflags &= ~RFLAGS_IF;
	vector = 0x31;
	vcpu_set_pending(v, PENDING_INTERRUPT);
	assert_int_equal(run(acts), EXIT_PAUSE);
	assert_true(refreshed && !cpu.seen[0].window && !cpu.seen[0].event && !cpu.seen[2].event);
	assert_int_equal(vector, 0x31);
	v->rflags &= ~RFLAGS_IF;
	extint = true;
	vcpu_set_pending(v, PENDING_INTERRUPT);
	assert_int_equal(run(acts), EXIT_PAUSE);
	assert_true(cpu.seen[0].window && cpu.seen[1].window && !cpu.seen[1].event);
	assert_int_equal(cpu.seen[2].event, EVENT(EXTERNAL, 0x31));
}

static bool told;

static void post_inside(struct vcpu *vcpu)
{
	assert_true(posted_post(&posted, 0x41, false));
	told = hw_notify(vcpu);
}

/* What is posted while the guest runs is the processor's to take; else it is looked at before the next entry, whoever was told. */
static void posted_interrupts_find_the_guest(void **state)
{
	static const struct act acts[] = { { post_inside, hw_nothing }, { NULL, leave } };
	hw_of(v)->delivers = true;
	v->lapic = &lapic;
	v->posted = &posted;
	lapic.posted = true;
	assert_false(hw_notify(v));
	assert_int_equal(run(acts), EXIT_PAUSE);
	assert_true(told);
	assert_int_equal(refreshed, 1); /* no processor took it */
	assert_false(posted_outstanding(&posted));
	assert_false(hw_notify(v));
	lapic.posted = false;
	v->lapic = NULL;
}

static void what_waits_is_pending_after_a_run(void **state)
{
	static const struct act acts[] = { { NULL, leave } };
	v->rflags &= ~RFLAGS_IF;
	v->nmi_blocked = true;
	vcpu_set_pending(v, PENDING_INTERRUPT | PENDING_NMI);
	assert_int_equal(run(acts), EXIT_PAUSE);
	assert_int_equal(vcpu_pending(v), PENDING_INTERRUPT | PENDING_NMI);
}

static void iret(struct vcpu *vcpu)
{
	vcpu->nmi_blocked = false;
}

static void nmis_wait_for_iret(void **state)
{
	static const struct act acts[] = { { NULL, hw_nothing }, { iret, hw_nothing }, { NULL, leave } };
	v->nmi_blocked = true;
	vcpu_set_pending(v, PENDING_NMI);
	assert_int_equal(run(acts), EXIT_PAUSE);
	assert_int_equal(cpu.seen[0].event | cpu.seen[1].event, 0);
	assert_int_equal(cpu.seen[2].event, EVENT(NMI, VEC_NMI));
	assert_true(v->nmi_blocked);
}

static void a_kick_enters_nothing(void **state)
{
	vcpu_set_pending(v, PENDING_KICK);
	assert_int_equal(run(NULL), EXIT_INTERRUPTED);
	assert_int_equal(cpu.entries, 0);
}

/* ---- events under way ---- */

static void under_way(struct vcpu *vcpu)
{
	hw_of(vcpu)->event = EVENT(EXCEPTION, VEC_PF) | (u32)HW_EVENT_ERROR;
	hw_of(vcpu)->event_error = 6;
}

static void events_under_way_are_injected_again(void **state)
{
	static const struct act acts[] = { { under_way, hw_nothing }, { NULL, leave } };
	vector = 0x31;
	vcpu_set_pending(v, PENDING_INTERRUPT);
	assert_int_equal(run(acts), EXIT_PAUSE);
	assert_int_equal(cpu.seen[1].event, EVENT(EXCEPTION, VEC_PF) | (u32)HW_EVENT_ERROR);
	assert_int_equal(cpu.seen[1].error, 6);
}

/* Without an IDT: what cannot be delivered is a triple fault, whoever finds out. */
static void events_under_way_are_delivered_before_anybody_looks(void **state)
{
	static const struct act acts[] = { { under_way, hw_step } };
	v->idtr.limit = 0;
	assert_int_equal(run(acts), EXIT_SHUTDOWN);
}

static enum hw_next raise_ac(struct vcpu *vcpu, struct exit *exit)
{
	return hw_raise(vcpu, VEC_AC, true, 0);
}

static enum hw_next raise_db(struct vcpu *vcpu, struct exit *exit)
{
	return hw_raise(vcpu, VEC_DB, false, 0);
}

static void faults_push_rf(void **state)
{
	static const struct act acts[] = { { NULL, raise_db }, { NULL, raise_ac }, { NULL, leave } };
	assert_int_equal(run(acts), EXIT_PAUSE);
	assert_int_equal(cpu.seen[1].event, EVENT(EXCEPTION, VEC_DB));
	assert_false(cpu.seen[1].rflags & RFLAGS_RF);
	assert_int_equal(cpu.seen[2].event, EVENT(EXCEPTION, VEC_AC) | (u32)HW_EVENT_ERROR);
	assert_true(cpu.seen[2].rflags & RFLAGS_RF);
}

/* ---- answers ---- */

static void tell_next(struct vcpu *vcpu)
{
	hw_of(vcpu)->next_rip = vcpu->rip + 2;
}

static enum hw_next in_word(struct vcpu *vcpu, struct exit *exit)
{
	return hw_io(vcpu, exit, 0x60, 2, false);
}

static void port_reads_leave_the_rest_of_rax(void **state)
{
	static const struct act acts[] = { { tell_next, in_word }, { NULL, leave } };
	v->gpr[RAX] = 0x1122334455667788;
	assert_int_equal(run(acts), EXIT_PAUSE);
	assert_int_equal(last.io.port, 0x60);
	assert_int_equal(v->gpr[RAX], 0x112233445566a5a5);
	assert_int_equal(v->rip, CODE + 2);
}

static void msrs_that_fault_inject_gp(void **state)
{
	static const struct act acts[] = { { tell_next, hw_wrmsr }, { NULL, leave } };
	assert_int_equal(run(acts), EXIT_PAUSE);
	assert_int_equal(cpu.seen[1].event, EVENT(EXCEPTION, VEC_GP) | (u32)HW_EVENT_ERROR);
	assert_int_equal(v->rip, CODE);
}

static void hlt_leaves_behind_itself(void **state)
{
	static const struct act acts[] = { { tell_next, hw_hlt } };
	assert_int_equal(run(acts), EXIT_HLT);
	assert_int_equal(v->activity, ACTIVITY_HLT);
	assert_int_equal(v->rip, CODE + 2);
}

static void a_refused_entry_is_an_error(void **state)
{
	static const struct act acts[] = { { NULL, NULL } };
	assert_int_equal(run(acts), EXIT_ERROR);
}

/* The guest's code has become something else, or goes on in another page. */
static void what_cannot_be_read_is_stepped(void **state)
{
	static const struct act acts[] = { { NULL, hw_cpuid }, { NULL, leave } };
	v->rip = CODE + PAGE_SIZE - 1;
	flat_map(guest, CODE + PAGE_SIZE, CODE + PAGE_SIZE, PTE_P | PTE_W);
	memcpy(guest->memory + v->rip, "\x0f\xa2", 2);
	assert_int_equal(run(acts), EXIT_PAUSE);
	assert_int_equal(last.reason, EXIT_CPUID);
	assert_int_equal(v->rip, CODE + PAGE_SIZE + 1);
	assert_int_equal(hw_of(v)->stepped, 1);
}

/* Where the processor does not tell what is behind an instruction, its bytes do, from wherever the guest's tables say that they are now. */
static void code_is_read_where_it_is_now(void **state)
{
	static const struct act acts[] = { { NULL, hw_cpuid }, { NULL, leave } };
	memcpy(guest->memory + CODE, "\x66\x0f\xa2", 3);
	memcpy(guest->memory + CODE + PAGE_SIZE, "\x0f\xa2", 2);
	for (unsigned i = 0; i < 4; i++) {
		flat_map(guest, CODE, i & 1 ? CODE + PAGE_SIZE : CODE, PTE_P | PTE_W);
		v->rip = CODE;
		assert_int_equal(run(acts), EXIT_PAUSE);
		assert_int_equal(last.reason, EXIT_CPUID);
		assert_int_equal(v->rip, CODE + (i & 1 ? 2 : 3));
	}
	assert_int_equal(hw_of(v)->stepped, 0);
}

#define DEVICE 0xfee00000

static u64 device_value;

static void device_exit(struct vcpu *vcpu, struct exit *e)
{
	assert_int_equal(e->reason, EXIT_MMIO);
	if (!e->mmio.write)
		e->mmio.value = device_value & size_mask(e->mmio.size);
	last = *e;
}

static bool is_store;

static enum hw_next by_decoding(struct vcpu *vcpu, struct exit *exit)
{
	return hw_device(vcpu, exit, DEVICE + 0x80, is_store ? PF_WR | PF_P : PF_P);
}

struct outcome {
	u64 gpr[GPR_COUNT], rip;
	struct exit exit;
};

static void run_device(const struct act *acts, const char *bytes, size_t size, struct outcome *out)
{
	static const struct vcpu_ops vm = { .exit = device_exit, .interrupt_acknowledge = acknowledge };
	v->ops = &vm;
	memcpy(guest->memory + CODE, bytes, size);
	for (unsigned i = 0; i < GPR_COUNT; i++)
		v->gpr[i] = 0x8192a3b4c5d6e7f8 + i * 0x0101010101010101;
	v->gpr[RDI] = DEVICE + 0x80;
	v->rip = CODE;
	memset(&last, 0, sizeof(last));
	assert_int_equal(run(acts), EXIT_PAUSE);
	memcpy(out->gpr, v->gpr, sizeof(out->gpr));
	out->rip = v->rip;
	out->exit = last;
}

/* Registers behind moves to and from devices are what the step engine makes of them, and no step was needed. */
static void moves_of_devices_are_steps(void **state)
{
	static const struct act step[] = { { NULL, hw_step }, { NULL, leave } }, decode[] = { { NULL, by_decoding }, { NULL, leave } };
	static const struct {
		const char *bytes;
		u8 size;
		bool store;
	} moves[] = {
#define MOVE(bytes, store) { bytes, sizeof(bytes) - 1, store }
		MOVE("\x89\x07", true), MOVE("\x88\x27", true), MOVE("\x40\x88\x27", true), MOVE("\x66\x89\x1f", true), MOVE("\x4c\x89\x3f", true),
		MOVE("\x8b\x07", false), MOVE("\x8a\x27", false), MOVE("\x44\x8a\x27", false), MOVE("\x66\x8b\x0f", false), MOVE("\x4c\x8b\x17", false),
		MOVE("\x0f\xb6\x07", false), MOVE("\x0f\xbe\x27", false), MOVE("\x48\x0f\xbe\x07", false), MOVE("\x66\x0f\xb6\x3f", false),
		MOVE("\x0f\xb7\x07", false), MOVE("\x4c\x0f\xbf\x0f", false), MOVE("\xc6\x07\x95", true), MOVE("\xc7\x07\x91\x02\x03\x84", true),
		MOVE("\x48\xc7\x07\x91\x02\x03\x84", true), MOVE("\x66\xc7\x07\x91\x02", true), MOVE("\x67\x89\x07", true),
		MOVE("\xa1\x80\x00\xe0\xfe\x00\x00\x00\x00", false), MOVE("\x48\xa3\x80\x00\xe0\xfe\x00\x00\x00\x00", true),
		MOVE("\xa2\x80\x00\xe0\xfe\x00\x00\x00\x00", true),
#undef MOVE
	};
	flat_map(guest, DEVICE, DEVICE, PTE_P | PTE_W);
	for (unsigned i = 0; i < ARRAY_SIZE(moves); i++) {
		struct outcome wanted, got;
		device_value = 0x91a2b3c4d5e6f788;
		is_store = moves[i].store;
		run_device(step, moves[i].bytes, moves[i].size, &wanted);
		u64 stepped = hw_of(v)->stepped;
		run_device(decode, moves[i].bytes, moves[i].size, &got);
		assert_int_equal(hw_of(v)->stepped, stepped);
		assert_memory_equal(wanted.gpr, got.gpr, sizeof(got.gpr));
		assert_int_equal(wanted.rip, got.rip);
		assert_int_equal(wanted.exit.mmio.size, got.exit.mmio.size);
		assert_int_equal(wanted.exit.mmio.write, got.exit.mmio.write);
		assert_int_equal(wanted.exit.mmio.gpa, got.exit.mmio.gpa);
		if (is_store)
			assert_int_equal(wanted.exit.mmio.value & size_mask(wanted.exit.mmio.size), got.exit.mmio.value);
	}
}

/* Moves to and from control and debug registers, INVLPG: without step. */
static void moves_are_answered(void **state)
{
	static const struct act acts[] = { { NULL, hw_move }, { NULL, leave } };
	v->cpl = 0;
	v->cr0 |= CR0_TS;
	memcpy(guest->memory + CODE, "\x0f\x06\x0f\x20\xc0\x41\x0f\x22\xd9\x0f\x23\xc3\x0f\x01\x3c\x8b\x0f\x01\xf2", 19);
	v->gpr[R9] = v->cr3 | 0x18;
	v->gpr[RBX] = 0x5000;
	v->gpr[RCX] = 0x400;
	v->gpr[RDX] = CR0_TS | CR0_MP;
	static const u8 ends[] = { 2, 5, 9, 12, 16, 19 };
	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
		v->mmu->invalid = (struct invalid){ 0 };
		assert_int_equal(run(acts), EXIT_PAUSE);
		assert_int_equal(v->rip, CODE + ends[i]);
		assert_int_equal(!(v->cr0 & CR0_TS), i != 5);
		assert_true(hw_of(v)->memory->invalid == (i == 2 || i == 4) || i < 2);
		hw_of(v)->memory->invalid = false;
	}
	assert_int_equal(v->gpr[RAX], v->cr0 & ~CR0_TS);
	assert_int_equal(v->cr3 & 0xfff, 0x18);
	assert_int_equal(v->dr[0], 0x5000);
	assert_int_equal(hw_of(v)->stepped, 0);
}

/* ---- AMD-V ---- */

static struct svm_vcpu *svm_create(void)
{
	struct svm_vcpu *s = host_alloc(sizeof(*s));
	s->vmcb = host_alloc(sizeof(*s->vmcb));
	s->hw = *hw_of(v);
	host_free(hw_of(v));
	step_of(v)->translator = &s->hw;
	return s;
}

static void svm_groups_come_back_as_written(void **state)
{
	struct svm_vcpu *s = svm_create();
	struct vcpu *before = host_alloc(sizeof(*before));
	v->msr.lstar = 0x1234;
	v->dr7 = DR7_FIXED1 | 1;
	v->cr0 |= CR0_CD;
	v->cr2 = 0x5678;
	s->vmcb->clean = CLEAN_ALL;
	*before = *v;
	svm_write(v, HW_ALL & ~HW_VECTORS);
	assert_int_equal(s->vmcb->clean, CLEAN_ASID | CLEAN_INTERRUPT | BIT(1)); /* CR0 is not what the guest reads */
	assert_true(s->vmcb->efer & EFER_SVME);
	assert_true(s->vmcb->cr4 & CR4_MCE);
	assert_false(s->vmcb->cr0 & CR0_CD);
	assert_int_equal((s->vmcb->ss.attr & SEG_ATTR_DPL) >> SEG_ATTR_DPL_SHIFT, v->cpl);
	memset(v->seg, 0, sizeof(v->seg));
	v->msr.lstar = v->dr7 = v->cr2 = v->gdtr.base = 0;
	svm_fetch(v, HW_ALL & ~HW_VECTORS);
	for (unsigned i = 0; i < SEG_COUNT; i++) {
		assert_int_equal(v->seg[i].attr, before->seg[i].attr);
		assert_int_equal(v->seg[i].selector, before->seg[i].selector);
		assert_int_equal(v->seg[i].limit, before->seg[i].limit);
	}
	assert_int_equal(v->msr.lstar, before->msr.lstar);
	assert_int_equal(v->dr7, before->dr7);
	assert_int_equal(v->cr2, before->cr2);
	assert_int_equal(v->cr0, before->cr0);
	assert_int_equal(v->gdtr.base, before->gdtr.base);
	host_free(before);
	host_free(s->vmcb);
}

static void asids_begin_anew_with_a_flush(void **state)
{
	struct svm_vcpu *s = svm_create();
	struct svm_cpu one = { .asids = 4, .next_asid = 1, .generation = 1 };
	u32 first = 0;
	for (unsigned i = 0; i < 3; i++) {
		svm_choose_asid(s, &one, i);
		assert_int_equal(s->vmcb->tlb_control, TLB_KEEP);
		assert_int_equal(s->vmcb->asid, ++first);
	}
	svm_choose_asid(s, &one, true); /* all used */
	assert_int_equal(s->vmcb->tlb_control, TLB_FLUSH_ALL);
	assert_int_equal(s->vmcb->asid, 1);
	svm_choose_asid(s, &one, false);
	assert_int_equal(s->vmcb->tlb_control, TLB_KEEP);
	s->features = SVM_FLUSH_BY_ASID;
	svm_choose_asid(s, &one, true);
	assert_int_equal(s->vmcb->tlb_control, TLB_FLUSH_ASID);
	assert_int_equal(s->vmcb->asid, 1);
	host_free(s->vmcb);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(interrupts_are_injected_once),
		TEST(interrupts_wait_for_their_window),
		TEST(the_processor_delivers),
		TEST(posted_interrupts_find_the_guest),
		TEST(what_waits_is_pending_after_a_run),
		TEST(nmis_wait_for_iret),
		TEST(a_kick_enters_nothing),
		TEST(events_under_way_are_injected_again),
		TEST(events_under_way_are_delivered_before_anybody_looks),
		TEST(faults_push_rf),
		TEST(port_reads_leave_the_rest_of_rax),
		TEST(msrs_that_fault_inject_gp),
		TEST(hlt_leaves_behind_itself),
		TEST(a_refused_entry_is_an_error),
		TEST(what_cannot_be_read_is_stepped),
		TEST(code_is_read_where_it_is_now),
		TEST(moves_of_devices_are_steps),
		TEST(moves_are_answered),
		TEST(svm_groups_come_back_as_written),
		TEST(asids_begin_anew_with_a_flush),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
