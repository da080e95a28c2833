/* Running what translated code did again by step, and comparing. See lockstep.h. */
#include "engine/bt/lockstep.h"

#include "arch/xsave.h"
#include "engine/bt/state.h"
#include "engine/step/step.h"
#include "lib/string.h"
#include "mmu/journal.h"

/* After so many instructions step does not come to the state any more. */
#define REPLAY_MAX (1ull << 28)
/* How long blocks are tried one by one after a stretch that was wrong. */
#define ALONE_MAX 1000000u

struct lockstep {
	const struct vcpu_ops *real_ops;
	struct vcpu_ops ops; /* real_ops, watched */
	bool open, replaying;
	bool strayed; /* while replaying: step did what translated code cannot have done */
	bool trapped; /* an instruction has trapped at the end: the real CPU may have set flags before, as it will again when it is stepped */
	bool vectors; /* extended state was used since the beginning */
	int live; /* status flags that count at the end, or -1: not known yet */
	unsigned alone; /* blocks are tried one by one, so many more */
	u64 wrong_from, wrong_to; /* the stretch that was wrong as a whole */
	u64 stretches, insns, forgotten;
	u64 replayed; /* instructions of this stretch */
	unsigned nearest; /* registers that differed when step was nearest to the end; more than there are: never at its RIP */
	struct vcpu before, after, near;
};

static struct lockstep *lockstep_of(struct vcpu *vcpu)
{
	return bt_of(vcpu)->lockstep;
}

/* ---- state ---- */

/* What other threads change, and what follows from the rest, is not put back. */
#define STATE_END offsetof(struct vcpu, cr0_valid)
#define AFTER_PENDING (offsetof(struct vcpu, pending) + sizeof(u64))

static void keep(struct vcpu *to, const struct vcpu *vcpu)
{
	memcpy(to, vcpu, sizeof(*to));
}

static void put(struct vcpu *vcpu, const struct vcpu *from)
{
	memcpy(vcpu, from, offsetof(struct vcpu, pending));
	memcpy((u8 *)vcpu + AFTER_PENDING, (const u8 *)from + AFTER_PENDING, STATE_END - AFTER_PENDING);
	memcpy(vcpu->xsave, from->xsave, sizeof(vcpu->xsave));
	vcpu->vector_ready = 0;
	mmu_update_view(vcpu);
}

/* But for `shadow`, which is told to step whether an STI came before or not. */
static const struct field {
	const char *name;
	u16 offset, size;
} fields[] = {
#define FIELD(field) { #field, offsetof(struct vcpu, field), sizeof(((struct vcpu *)0)->field) }
	FIELD(gpr[RAX]), FIELD(gpr[RCX]), FIELD(gpr[RDX]), FIELD(gpr[RBX]), FIELD(gpr[RSP]), FIELD(gpr[RBP]), FIELD(gpr[RSI]),
	FIELD(gpr[RDI]), FIELD(gpr[R8]), FIELD(gpr[R9]), FIELD(gpr[R10]), FIELD(gpr[R11]), FIELD(gpr[R12]), FIELD(gpr[R13]),
	FIELD(gpr[R14]), FIELD(gpr[R15]), FIELD(rip), FIELD(cpl), FIELD(nmi_blocked), FIELD(activity), FIELD(x87.ip),
	FIELD(x87.dp), FIELD(x87.op), FIELD(x87.cs), FIELD(x87.ds), FIELD(seg[SEG_ES]), FIELD(seg[SEG_CS]), FIELD(seg[SEG_SS]),
	FIELD(seg[SEG_DS]), FIELD(seg[SEG_FS]), FIELD(seg[SEG_GS]), FIELD(ldtr), FIELD(tr), FIELD(gdtr), FIELD(idtr), FIELD(cr0), FIELD(cr2),
	FIELD(cr3), FIELD(cr4), FIELD(efer), FIELD(xcr0), FIELD(dr), FIELD(dr6), FIELD(dr7), FIELD(tsc_offset), FIELD(msr),
#undef FIELD
};

static bool field_same(const struct field *field, const struct vcpu *a, const struct vcpu *b)
{
	return !memcmp((const u8 *)a + field->offset, (const u8 *)b + field->offset, field->size);
}

/* Without memcmp: the guest's vector registers may be live. */
static unsigned gprs_different(const struct vcpu *a, const struct vcpu *b)
{
	unsigned different = 0;
	for (unsigned i = 0; i < GPR_COUNT; i++)
		different += a->gpr[i] != b->gpr[i];
	return different;
}

static unsigned fields_different(const struct vcpu *a, const struct vcpu *b)
{
	unsigned different = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
		different += !field_same(&fields[i], a, b);
	return different;
}

/* ---- status flags that no instruction will read ---- */

/* Code at RIP, at most `size` bytes; the number that can be read. */
static size_t read_code(struct vcpu *vcpu, u64 rip, u8 *bytes, size_t size)
{
	size_t n = 0;
	gpa_t gpa;
	for (; n < size; n++) {
		gla_t gla = vcpu_64bit(vcpu) ? rip + n : (u32)(vcpu->seg[SEG_CS].base + rip + n);
		if (!mmu_debug_translate(vcpu, gla, &gpa) || !ram_read(vcpu->ram, gpa, bytes + n, 1))
			break;
	}
	return n;
}

static bool decode_at(struct vcpu *vcpu, u64 rip, struct insn *insn)
{
	u8 bytes[INSN_LENGTH_MAX];
	size_t size = read_code(vcpu, rip, bytes, sizeof(bytes));
	return insn_decode(&step_of(vcpu)->decoder, vcpu_insn_mode(vcpu), bytes, size, insn) == DECODE_OK;
}

static bool is_plain(const struct insn *insn)
{
	enum insn_class class = insn_class_of((enum insn_kind)insn->kind);
	return class == INSN_CLASS_INNOCUOUS || class == INSN_CLASS_MOVE;
}

/* The status flags that may matter at rip, looking through `forks` conditional branches. */
static u16 live_flags(struct vcpu *vcpu, u64 rip, unsigned forks)
{
	u64 mask = vcpu_64bit(vcpu) ? ~0ull : 0xffffffff;
	u16 live = 0, open = RFLAGS_STATUS;
	struct insn insn;
	for (unsigned i = 0; open && i < 100 && decode_at(vcpu, rip, &insn); i++) {
		bool direct = insn.operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
		u64 next = (rip + insn.z.length) & mask, target = (next + (direct ? insn.operand[0].imm.value.u : 0)) & mask;
		live |= insn.flags_tested & open;
		open &= (u16)~insn.flags_killed;
		rip = next;
		if ((insn.kind == KIND_JMP || insn.kind == KIND_CALL) && direct)
			rip = target;
		else if ((insn.kind == KIND_JCC || insn.kind == KIND_JCXZ || insn.kind == KIND_LOOP) && forks)
			return live | (open & (live_flags(vcpu, next, forks - 1) | live_flags(vcpu, target, forks - 1)));
		else if (!is_plain(&insn))
			break;
	}
	return live | open;
}

static bool flags_same(struct lockstep *l, struct vcpu *vcpu)
{
	u64 different = vcpu->rflags ^ l->after.rflags;
	if (!different)
		return true;
	if (l->live < 0)
		l->live = live_flags(vcpu, l->after.rip, 4);
	return !(different & ~(u64)(RFLAGS_STATUS & ~l->live));
}

/* ---- running it again ---- */

static void watched_exit(struct vcpu *vcpu, struct exit *exit)
{
	struct lockstep *l = lockstep_of(vcpu);
	l->strayed = l->replaying;
	if (l->replaying)
		return;
	lockstep_forget(vcpu);
	l->real_ops->exit(vcpu, exit);
}

static int watched_acknowledge(struct vcpu *vcpu)
{
	struct lockstep *l = lockstep_of(vcpu);
	lockstep_forget(vcpu);
	return l->real_ops->interrupt_acknowledge(vcpu);
}

/* What an instruction changes although it traps: MXCSR's flags, and x87's tags and top if it is one of MMX. */
static void share_trap_flags(struct vcpu *to, const struct vcpu *from)
{
	struct fxsave_area *a = (struct fxsave_area *)to->xsave;
	const struct fxsave_area *b = (const struct fxsave_area *)from->xsave;
	a->mxcsr = (a->mxcsr & ~MXCSR_FLAGS) | (b->mxcsr & MXCSR_FLAGS);
	a->fsw = b->fsw;
	a->ftw = b->ftw;
	memcpy(a->st, b->st, sizeof(a->st)); /* counted from the top */
}

/* Whether step, now at the last RIP, has come to the same state. */
static bool arrived(struct lockstep *l, struct vcpu *vcpu)
{
	const u8 *where, *wanted;
	unsigned different = gprs_different(vcpu, &l->after);
	if (different > l->nearest)
		return false;
	l->vectors |= step_of(vcpu)->vector_live;
	vector_sync(vcpu);
	if (l->trapped)
		share_trap_flags(&l->after, vcpu);
	different = fields_different(vcpu, &l->after) + !flags_same(l, vcpu) + (l->vectors && !xstate_same(vcpu, &l->after));
	if (!different && mmu_journal_same(vcpu, &where, &wanted))
		return true;
	if (different < l->nearest) {
		keep(&l->near, vcpu);
		l->nearest = different;
	}
	return false;
}

static bool replay(struct lockstep *l, struct vcpu *vcpu)
{
	const u8 no_fault = 0xff;
	struct exit exit;
	l->live = -1;
	l->nearest = ARRAY_SIZE(fields) + 1;
	l->replaying = true;
	l->strayed = false;
	bool found = false;
	for (l->replayed = 0; l->replayed < REPLAY_MAX; l->replayed++) {
		found = vcpu->rip == l->after.rip && arrived(l, vcpu);
		vcpu->fault.vector = no_fault;
		if (found || !step_instruction(vcpu, &exit) || l->strayed || vcpu->fault.vector != no_fault)
			break;
	}
	l->vectors |= step_of(vcpu)->vector_live;
	vector_sync(vcpu);
	l->replaying = false;
	return found;
}

/* ---- saying what is wrong ---- */

static void say_fields(const struct lockstep *l)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
		const struct field *f = &fields[i];
		u64 value[3] = { 0 };
		const struct vcpu *state[3] = { &l->before, &l->after, &l->near };
		if (field_same(f, &l->after, &l->near))
			continue;
		for (unsigned s = 0; s < 3; s++)
			memcpy(&value[s], (const u8 *)state[s] + f->offset, MIN(f->size, sizeof(u64)));
		host_log(LOG_ERROR, "  %-12s %016llx, by bt %016llx, by step %016llx", f->name, (unsigned long long)value[0],
			 (unsigned long long)value[1], (unsigned long long)value[2]);
	}
	if (l->after.rflags != l->near.rflags)
		host_log(LOG_ERROR, "  %-12s %llx, by bt %llx, by step %llx; of the status flags %x count", "rflags",
			 (unsigned long long)l->before.rflags, (unsigned long long)l->after.rflags, (unsigned long long)l->near.rflags,
			 (unsigned)(l->live & RFLAGS_STATUS));
}

static void say_memory(struct vcpu *vcpu)
{
	const u8 *where, *wanted;
	if (mmu_journal_same(vcpu, &where, &wanted))
		return;
	for (unsigned i = 0; i < vcpu->ram->slots; i++) {
		const struct ram_slot *s = &vcpu->ram->slot[i];
		if (where < s->hva || where >= s->hva + s->size)
			continue;
		unsigned long long gpa = s->base + (u64)(where - s->hva);
		host_log(LOG_ERROR, "  memory at %llx is %02x by bt, %02x by step", gpa, *wanted, *where);
	}
}

static void say_code(struct vcpu *vcpu, u64 rip, u64 end)
{
	ZydisFormatter formatter;
	char text[96];
	struct insn insn;
	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_ATT);
	for (unsigned i = 0; i < BT_INSNS_MAX && decode_at(vcpu, rip, &insn); i++) {
		ZydisFormatterFormatInstruction(&formatter, &insn.z, insn.operand, insn.z.operand_count_visible, text, sizeof(text), rip, NULL);
		host_log(LOG_ERROR, "  %016llx  %s", (unsigned long long)rip, text);
		rip += insn.z.length;
		if (rip == end || insn_class_of((enum insn_kind)insn.kind) == INSN_CLASS_CONTROL)
			break;
	}
}

static void say_extended(struct lockstep *l)
{
	if (xstate_same(&l->after, &l->near))
		return;
	for (unsigned i = 0; i < XSAVE_AREA_SIZE; i += sizeof(u64)) {
		u64 value[2];
		memcpy(&value[0], l->after.xsave + i, sizeof(u64));
		memcpy(&value[1], l->near.xsave + i, sizeof(u64));
		if (value[0] != value[1])
			host_log(LOG_ERROR, "  XSAVE area at %x: by bt %016llx, by step %016llx", i, (unsigned long long)value[0],
				 (unsigned long long)value[1]);
	}
}

static void say(struct lockstep *l, struct vcpu *vcpu)
{
	host_log(LOG_ERROR, "bt and step differ after %llu instructions were compared, between %llx and %llx:", (unsigned long long)l->insns,
		 (unsigned long long)l->before.rip, (unsigned long long)l->after.rip);
	say_code(vcpu, l->before.rip, l->after.rip);
	if (l->nearest > ARRAY_SIZE(fields)) {
		host_log(LOG_ERROR, "  step never comes to %llx; it is at %llx after %llu instructions", (unsigned long long)l->after.rip,
			 (unsigned long long)vcpu->rip, (unsigned long long)l->replayed);
		return;
	}
	say_fields(l);
	if (!l->nearest)
		say_memory(vcpu);
	say_extended(l);
}

static bool give_up(struct exit *exit, bool *go)
{
	*exit = (struct exit){ .reason = EXIT_ERROR, .error = { .what = "translated code does not do what step does", .own = true } };
	return *go = false;
}

/* The stretch was wrong. Go back and try its blocks one by one; if that is what was done, this is the one. */
static bool differ(struct lockstep *l, struct vcpu *vcpu, struct exit *exit, bool *go)
{
	say(l, vcpu);
	if (l->alone)
		return give_up(exit, go);
	host_log(LOG_ERROR, "now block by block:");
	mmu_journal_abandon(vcpu);
	put(vcpu, &l->before);
	cache_lock(vcpu);
	cache_drop_all(bt_of(vcpu)->cache);
	bt_of(vcpu)->cache->unchained = true;
	cache_unlock(vcpu);
	l->alone = ALONE_MAX;
	*go = true;
	return false;
}

/* ---- stretches ---- */

/* Translated code relies on the extended state that was ready when it was left. */
static void ready_again(struct vcpu *vcpu, u8 ready)
{
	for (; ready; ready &= (u8)(ready - 1))
		vector_load(vcpu, step_of(vcpu), (u8)__builtin_ctz(ready));
}

void lockstep_begin(struct vcpu *vcpu)
{
	struct lockstep *l = lockstep_of(vcpu);
	if (l->open)
		return;
	u8 ready = vcpu->vector_ready;
	vector_sync(vcpu);
	keep(&l->before, vcpu);
	l->vectors = ready;
	ready_again(vcpu, ready);
	mmu_journal_begin(vcpu);
	l->open = true;
}

bool lockstep_check(struct vcpu *vcpu, struct exit *exit, bool *go)
{
	struct lockstep *l = lockstep_of(vcpu);
	if (!l->open)
		return true;
	l->open = false;
	u8 ready = vcpu->vector_ready;
	l->vectors |= step_of(vcpu)->vector_live;
	vector_sync(vcpu);
	keep(&l->after, vcpu);
	mmu_journal_undo(vcpu);
	put(vcpu, &l->before);
	if (!replay(l, vcpu))
		return differ(l, vcpu, exit, go);
	l->trapped = false;
	put(vcpu, &l->after);
	ready_again(vcpu, ready);
	l->stretches++;
	l->insns += l->replayed;
	if (l->alone && !--l->alone) {
		host_log(LOG_ERROR, "each block alone is right");
		return give_up(exit, go);
	}
	return true;
}

void lockstep_trapped(struct vcpu *vcpu)
{
	lockstep_of(vcpu)->trapped = true;
}

void lockstep_forget(struct vcpu *vcpu)
{
	struct lockstep *l = lockstep_of(vcpu);
	l->forgotten += l->open;
	l->open = false;
}

static void report_counts(struct vcpu *vcpu, void (*line)(void *opaque, const char *text), void *opaque)
{
	const struct lockstep *l = lockstep_of(vcpu);
	char text[96];
	host_snprintf(text, sizeof(text), "%14llu  instructions compared with step", (unsigned long long)l->insns);
	line(opaque, text);
	host_snprintf(text, sizeof(text), "%14llu  in so many stretches", (unsigned long long)l->stretches);
	line(opaque, text);
	host_snprintf(text, sizeof(text), "%14llu  stretches not compared", (unsigned long long)l->forgotten);
	line(opaque, text);
}

/* ---- the engine ---- */

static void lockstep_destroy(struct vcpu *vcpu)
{
	if (vcpu->engine_state && bt_of(vcpu)) {
		struct lockstep *l = lockstep_of(vcpu);
		if (l)
			vcpu->ops = l->real_ops;
		host_free(l);
	}
	engine_bt.vcpu_destroy(vcpu);
}

static int lockstep_create(struct vcpu *vcpu)
{
	if (engine_bt.vcpu_create(vcpu))
		return -1;
	struct lockstep *l = bt_of(vcpu)->lockstep = host_alloc(sizeof(*l));
	if (!l || mmu_journal_create(vcpu)) {
		lockstep_destroy(vcpu);
		return -1;
	}
	l->real_ops = vcpu->ops;
	l->ops = (struct vcpu_ops){ .exit = watched_exit, .interrupt_acknowledge = watched_acknowledge };
	vcpu->ops = &l->ops;
	return 0;
}

static void lockstep_run(struct vcpu *vcpu, struct exit *exit)
{
	engine_bt.run(vcpu, exit);
}

static void lockstep_state_changed(struct vcpu *vcpu)
{
	lockstep_forget(vcpu);
	engine_bt.state_changed(vcpu);
}

static void lockstep_report_all(struct vcpu *vcpu, void (*line)(void *opaque, const char *text), void *opaque)
{
	engine_bt.report(vcpu, line, opaque);
	report_counts(vcpu, line, opaque);
}

static bool lockstep_available(const char **why)
{
	return engine_bt.available(why);
}

const struct engine_ops engine_lockstep = {
	.name = "lockstep",
	.description = "bt, each stretch of it checked against step: to find mistakes of nadir",
	.one_cpu = true, /* another could see what is taken back */
	.available = lockstep_available,
	.vcpu_create = lockstep_create,
	.vcpu_destroy = lockstep_destroy,
	.run = lockstep_run,
	.state_changed = lockstep_state_changed,
	.report = lockstep_report_all,
};
