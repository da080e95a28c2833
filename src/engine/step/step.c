/* The engine's loop: look at what is pending, find the block, run its operations.
 *
 * The fast loop runs whole blocks and looks at vcpu->pending after each operation. Everything rare (single step,
 * breakpoints, RF, the interrupt shadow, alignment checks) makes the loop careful: one instruction at a time with all
 * checks. Intel SDM volume 3, "Priority Among Simultaneous Exceptions and Interrupts", "Single-Step Exception
 * Condition". */
#include "engine/step/step.h"

#include "cpu/control.h"
#include "cpu/event.h"
#include "cpu/xstate.h"
#include "engine/step/handlers.h"
#include "engine/step/memory.h"
#include "engine/step/x87.h"

/* ---- events at an instruction boundary ---- */

enum boundary { BOUNDARY_RUN, BOUNDARY_LEAVE };

static enum boundary shut_down(struct exit *exit)
{
	exit->reason = EXIT_SHUTDOWN;
	return BOUNDARY_LEAVE;
}

static enum boundary deliver_fault(struct vcpu *vcpu, struct exit *exit)
{
	vector_sync(vcpu);
	return event_deliver_fault(vcpu) ? BOUNDARY_RUN : shut_down(exit);
}

static bool nmi_open(const struct vcpu *vcpu)
{
	return !vcpu->nmi_blocked && !vcpu->shadow;
}

static bool interrupts_open(const struct vcpu *vcpu)
{
	return (vcpu->rflags & RFLAGS_IF) && !vcpu->shadow;
}

static enum boundary deliver_nmi(struct vcpu *vcpu, struct exit *exit)
{
	vcpu_clear_pending(vcpu, PENDING_NMI);
	vcpu->activity = ACTIVITY_ACTIVE;
	return event_deliver(vcpu, VEC_NMI, EVENT_NMI) ? BOUNDARY_RUN : shut_down(exit);
}

static enum boundary deliver_interrupt(struct vcpu *vcpu, struct exit *exit)
{
	int vector = vcpu->ops->interrupt_acknowledge(vcpu);
	if (vector < 0)
		return BOUNDARY_RUN;
	vcpu->activity = ACTIVITY_ACTIVE;
	return event_deliver(vcpu, (u8)vector, EVENT_EXTERNAL) ? BOUNDARY_RUN : shut_down(exit);
}

static enum boundary leave_for_debugger(struct vcpu *vcpu, struct exit *exit)
{
	const struct debug_points *d = &vcpu->debug;
	exit->reason = EXIT_DEBUG;
	exit->debug.step = !d->hit.size;
	exit->debug.kind = (u8)d->hit.kind;
	exit->debug.gla = d->hit.gla;
	return BOUNDARY_LEAVE;
}

/* What is pending, in the manual's order: debug traps of the last instruction, NMI, interrupts; a kick and a
 * debugger first of all, since these only leave. */
static enum boundary look_at_pending(struct vcpu *vcpu, struct exit *exit)
{
	u32 pending = vcpu_pending(vcpu);
	vector_sync(vcpu);
	if (pending & PENDING_KICK) {
		vcpu_clear_pending(vcpu, PENDING_KICK);
		exit->reason = EXIT_INTERRUPTED;
		return BOUNDARY_LEAVE;
	}
	if (pending & PENDING_DEBUG) {
		vcpu_clear_pending(vcpu, PENDING_DEBUG);
		return leave_for_debugger(vcpu, exit);
	}
	if (pending & PENDING_CODE)
		vcpu_clear_pending(vcpu, PENDING_CODE);
	if ((pending & PENDING_TRAP) && !(vcpu->shadow & SHADOW_MOV_SS)) {
		vcpu_clear_pending(vcpu, PENDING_TRAP);
		return event_deliver_trap(vcpu) ? BOUNDARY_RUN : shut_down(exit);
	}
	if (unlikely(vcpu->debug.step && vcpu->debug.quiet))
		return BOUNDARY_RUN;
	if ((pending & PENDING_NMI) && nmi_open(vcpu))
		return deliver_nmi(vcpu, exit);
	if ((pending & PENDING_INTERRUPT) && interrupts_open(vcpu))
		return deliver_interrupt(vcpu, exit);
	return BOUNDARY_RUN;
}

/* Which pending bits stop the fast loop: those that could be acted upon. */
static u32 watched(const struct vcpu *vcpu)
{
	u32 mask = PENDING_KICK | PENDING_CODE | PENDING_TRAP | PENDING_DEBUG;
	if (vcpu->rflags & RFLAGS_IF)
		mask |= PENDING_INTERRUPT;
	if (!vcpu->nmi_blocked)
		mask |= PENDING_NMI;
	return mask;
}

/* A vCPU that is not active stays so until an event wakes it. */
static enum boundary stay_inactive(struct vcpu *vcpu, struct exit *exit)
{
	if (vcpu->activity == ACTIVITY_SHUTDOWN)
		return shut_down(exit);
	exit->reason = vcpu->activity == ACTIVITY_HLT ? EXIT_HLT : EXIT_INTERRUPTED;
	return BOUNDARY_LEAVE;
}

/* ---- careful execution: one instruction with every check ---- */

static bool alignment_checked(const struct vcpu *vcpu)
{
	return vcpu->cpl == 3 && (vcpu->rflags & RFLAGS_AC) && (vcpu->cr0 & CR0_AM);
}

static bool needs_care(const struct vcpu *vcpu)
{
	return (vcpu->rflags & (RFLAGS_TF | RFLAGS_RF)) || vcpu->shadow || alignment_checked(vcpu) || vcpu->debug.step;
}

static gla_t linear_rip(const struct vcpu *vcpu)
{
	return vcpu_64bit(vcpu) ? vcpu->rip : (u32)(vcpu->seg[SEG_CS].base + vcpu->rip);
}

static bool execute_breakpoint(struct vcpu *vcpu)
{
	if (!control_debug_armed(vcpu) || (vcpu->rflags & RFLAGS_RF) || (vcpu->shadow & SHADOW_MOV_SS))
		return false;
	u64 hit = control_debug_match(vcpu, DEBUG_EXECUTE, linear_rip(vcpu), 1);
	if (hit)
		vcpu->fault = (struct guest_fault){ .vector = VEC_DB, .payload = hit };
	return hit != 0;
}

void step_raise_single_step(struct vcpu *vcpu)
{
	if (!(vcpu_pending(vcpu) & PENDING_TRAP))
		vcpu->trap = (struct guest_fault){ .vector = VEC_DB };
	vcpu->trap.payload |= DR6_BS;
	vcpu_set_pending(vcpu, PENDING_TRAP);
}

/* The debugger's step ends, however the instruction did; a point that was hit says more. */
static void end_step(struct vcpu *vcpu)
{
	struct debug_points *d = &vcpu->debug;
	d->step = false;
	if (!(vcpu_pending(vcpu) & PENDING_DEBUG))
		d->hit = (struct debug_point){ 0 };
	vcpu_set_pending(vcpu, PENDING_DEBUG);
}

static enum boundary settle(struct vcpu *vcpu, int result, struct exit *exit)
{
	switch (result) {
	case OP_FAULT:
		return deliver_fault(vcpu, exit);
	case OP_AGAIN:
		return BOUNDARY_RUN;
	case OP_LEAVE:
		vcpu->rip = vcpu->next_rip;
		return BOUNDARY_LEAVE;
	default:
		return BOUNDARY_LEAVE;
	}
}

void step_trace(struct vcpu *vcpu, const char *what)
{
	vector_sync(vcpu);
	host_log(LOG_DEBUG, "%llx: %s, CS %x CPL %u RSP %llx", (unsigned long long)vcpu->rip, what, vcpu->seg[SEG_CS].selector, vcpu->cpl,
		 (unsigned long long)vcpu->gpr[RSP]);
}

/* pieces: a string goes element by element, and nothing is logged. */
static enum boundary execute(struct vcpu *vcpu, struct exit *exit, bool pieces)
{
	struct step *step = step_of(vcpu);
	bool trap = vcpu->rflags & RFLAGS_TF;
	if (execute_breakpoint(vcpu))
		return deliver_fault(vcpu, exit);
	if (unlikely(vcpu->trace & TRACE_EXEC) && !pieces)
		step_trace(vcpu, "instruction");
	struct block *block = block_find(vcpu, true);
	vcpu->shadow = 0;
	if (!block)
		return deliver_fault(vcpu, exit);
	const struct op *op = block->op;
	bool string = op->kind >= KIND_STRING_MOVS && op->kind <= KIND_STRING_OUTS;
	/* A step of a string is one element. */
	CHECKS(vcpu) = trap || (pieces && string) || alignment_checked(vcpu) || control_debug_armed(vcpu) || vcpu->debug.step;
	vcpu->next_rip = (vcpu->rip + op->length) & step->rip_mask;
	int result = op->run(vcpu, op);
	CHECKS(vcpu) = 0;
	if (result == OP_JUMP)
		result = OP_DONE;
	bool done = result == OP_DONE || result == OP_LEAVE || result == OP_AGAIN;
	if (done && !(op->flags & OP_NEXT_RF))
		vcpu->rflags &= ~RFLAGS_RF;
	/* SYSCALL that clears TF, as SFMASK says, is followed by no trap: no kernel expects one at its entry. */
	if (op->kind == KIND_SYSCALL)
		trap = trap && (vcpu->rflags & RFLAGS_TF);
	if (done && trap && !(op->flags & OP_INT))
		step_raise_single_step(vcpu);
	if (result == OP_DONE) {
		vcpu->rip = vcpu->next_rip;
		return BOUNDARY_RUN;
	}
	return settle(vcpu, result, exit);
}

static enum boundary execute_one(struct vcpu *vcpu, struct exit *exit, bool pieces)
{
	if (unlikely(vcpu->debug.points) && debug_stop(vcpu, linear_rip(vcpu)))
		return leave_for_debugger(vcpu, exit);
	enum boundary boundary = execute(vcpu, exit, pieces);
	if (unlikely(vcpu->debug.step))
		end_step(vcpu);
	return boundary;
}

/* ---- the loop ---- */

/* Run the operations of a block. False: its end was not reached in the ordinary way, *result says why and rip is
 * settled but for that. */
static bool run_block(struct vcpu *vcpu, const struct block *block, u64 mask, u32 watch, int *result)
{
	const struct op *op = block->op, *end = op + block->ops;
	u64 rip = vcpu->rip;
	for (;;) {
		vcpu->rip = rip;
		rip = (rip + op->length) & mask;
		vcpu->next_rip = rip;
		*result = op->run(vcpu, op);
		if (unlikely(*result != OP_DONE))
			break;
		if (++op == end) {
			vcpu->rip = vcpu->next_rip;
			return true;
		}
		if (unlikely(vcpu_pending(vcpu) & watch)) {
			vcpu->rip = rip;
			return false;
		}
	}
	if (*result != OP_JUMP)
		return false;
	vcpu->rip = vcpu->next_rip;
	return true;
}

/* Block after block, as long as nothing happens that the caller must look at. */
static enum boundary execute_blocks(struct vcpu *vcpu, struct exit *exit)
{
	struct step *step = step_of(vcpu);
	struct block *block = block_find(vcpu, false);
	if (unlikely(!block))
		return deliver_fault(vcpu, exit);
	u32 watch = watched(vcpu), key = block_key(vcpu, false);
	int result;
	do {
		if (unlikely(!run_block(vcpu, block, step->rip_mask, watch, &result)))
			return result == OP_DONE ? BOUNDARY_RUN : settle(vcpu, result, exit);
		if (block->sensitive || unlikely(vcpu_pending(vcpu) & watch))
			break;
		block = block_cached(vcpu, step, key);
	} while (likely(block));
	return BOUNDARY_RUN;
}

static void set_rip_mask(struct vcpu *vcpu)
{
	step_of(vcpu)->rip_mask = vcpu_64bit(vcpu) ? ~0ull : 0xffffffffull;
}

static enum boundary next(struct vcpu *vcpu, struct exit *exit, bool single)
{
	if (unlikely(vcpu_pending(vcpu)) && look_at_pending(vcpu, exit) == BOUNDARY_LEAVE)
		return BOUNDARY_LEAVE;
	if (unlikely(vcpu->activity != ACTIVITY_ACTIVE))
		return stay_inactive(vcpu, exit);
	set_rip_mask(vcpu);
	if (unlikely(single || needs_care(vcpu) || control_debug_armed(vcpu)))
		return execute_one(vcpu, exit, false);
	return execute_blocks(vcpu, exit);
}

void step_enter(struct vcpu *vcpu, struct exit *exit, host_trap_handler handler)
{
	host_set_gs_base(vcpu);
	host_set_trap_handler(handler);
	step_of(vcpu)->exit = exit;
	vcpu->scratch[7] = 0; /* ZERO_SLOT */
	exit->reason = EXIT_NONE;
}

bool step_next(struct vcpu *vcpu, struct exit *exit, bool single)
{
	return next(vcpu, exit, single) == BOUNDARY_RUN;
}

bool step_instruction(struct vcpu *vcpu, struct exit *exit)
{
	set_rip_mask(vcpu);
	return execute_one(vcpu, exit, true) == BOUNDARY_RUN;
}

bool step_deliver_fault(struct vcpu *vcpu, struct exit *exit)
{
	return deliver_fault(vcpu, exit) == BOUNDARY_RUN;
}

bool step_needs_care(const struct vcpu *vcpu)
{
	return needs_care(vcpu);
}

static void step_run(struct vcpu *vcpu, struct exit *exit)
{
	bool traced = vcpu->trace & TRACE_EXEC;
	step_enter(vcpu, exit, snippet_trap);
	while (next(vcpu, exit, traced) == BOUNDARY_RUN)
		;
	vector_sync(vcpu);
}

bool step_one(struct vcpu *vcpu, struct exit *exit)
{
	step_enter(vcpu, exit, snippet_trap);
	enum boundary b = next(vcpu, exit, true);
	vector_sync(vcpu);
	return b == BOUNDARY_RUN;
}

/* ---- life ---- */

static bool is_amd(struct vcpu *vcpu)
{
	u32 eax, ebx, ecx, edx;
	cpuid_answer(vcpu, 0, 0, &eax, &ebx, &ecx, &edx);
	return ebx == 0x68747541; /* "Auth" of AuthenticAMD */
}

static void init_image(struct step *step)
{
	u32 mxcsr = 0x1f80;
	__builtin_memcpy(step->init_image + 24, &mxcsr, sizeof(mxcsr));
}

int step_create(struct vcpu *vcpu, size_t code_size)
{
	struct step *step = host_alloc(sizeof(*step));
	if (!step)
		return -1;
	vcpu->engine_state = step;
	step->build = host_alloc(block_build_size());
	step->hash = host_table_create(BLOCK_HASH_SIZE * sizeof(struct block *));
	step->jump_cache = host_table_create(JUMP_CACHE_SIZE * sizeof(struct block *));
	if (!step->build || !step->hash || !step->jump_cache || host_code_create(&step->code, code_size)) {
		step_destroy(vcpu);
		return -1;
	}
	insn_decoder_init(&step->decoder, vcpu->cpuid, is_amd(vcpu));
	init_image(step);
	step->chunks_max = (unsigned)MIN((size_t)ARENA_CHUNKS, 4 * code_size / ARENA_CHUNK);
	step->xstate_mask = xstate_host_mask();
	return 0;
}

void step_destroy(struct vcpu *vcpu)
{
	struct step *step = step_of(vcpu);
	if (!step)
		return;
	while (step->chunks)
		host_table_destroy(step->chunk[--step->chunks], ARENA_CHUNK);
	if (step->hash)
		host_table_destroy(step->hash, BLOCK_HASH_SIZE * sizeof(struct block *));
	if (step->jump_cache)
		host_table_destroy(step->jump_cache, JUMP_CACHE_SIZE * sizeof(struct block *));
	if (step->code.rw)
		host_code_destroy(&step->code);
	host_free(step->build);
	host_free(step);
	vcpu->engine_state = NULL;
}

static bool step_available(const char **why)
{
	return true;
}

static void step_state_changed(struct vcpu *vcpu)
{
	vcpu->shadow = 0;
	x87_reload(vcpu, step_of(vcpu));
}

void step_rest(struct vcpu *vcpu, bool all)
{
	block_rest(step_of(vcpu));
}

static int create_alone(struct vcpu *vcpu)
{
	return step_create(vcpu, CODE_SIZE);
}

const struct engine_ops engine_step = {
	.name = "step",
	.description = "one instruction at a time on the real CPU; works everywhere",
	.available = step_available,
	.vcpu_create = create_alone,
	.vcpu_destroy = step_destroy,
	.run = step_run,
	.rest = step_rest,
	.state_changed = step_state_changed,
};
