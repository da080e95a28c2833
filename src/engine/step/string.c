/* String instructions, with and without REP. One call does as many elements as lie in the current pages (or one element
 * by the slow path), then gives the engine a chance to look at interrupts; registers are right after each element, so a
 * fault is precise. Intel SDM volume 2, REP, MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS. */
#include "cpu/control.h"
#include "engine/step/handlers.h"
#include "engine/step/memory.h"

static unsigned address_bytes(const struct op *op)
{
	return 8 - op->address_shift / 8;
}

static u64 address_of(const struct vcpu *vcpu, const struct op *op, unsigned reg)
{
	return vcpu->gpr[reg] << op->address_shift >> op->address_shift;
}

static bool repeats(const struct op *op)
{
	return op->flags & (OP_REP | OP_REPNE);
}

/* Elements still to do; 1 without REP. */
static u64 elements_left(const struct vcpu *vcpu, const struct op *op)
{
	return repeats(op) ? address_of(vcpu, op, RCX) : 1;
}

static void advance(struct vcpu *vcpu, const struct op *op, unsigned reg, u64 elements)
{
	u64 delta = elements * op->size;
	if (vcpu->rflags & RFLAGS_DF)
		delta = -delta;
	gpr_set(vcpu, reg, address_bytes(op), vcpu->gpr[reg] + delta);
}

/* `elements` are done: count them off and say whether the instruction is. */
static int finish(struct vcpu *vcpu, const struct op *op, u64 elements)
{
	if (!repeats(op))
		return OP_DONE;
	gpr_set(vcpu, RCX, address_bytes(op), vcpu->gpr[RCX] - elements);
	return address_of(vcpu, op, RCX) ? OP_AGAIN : OP_DONE;
}

/* A run of elements inside one page of RAM, upwards in memory. */
struct run {
	u8 *hva;
	u64 elements;
};

/* How many elements at gva can be reached directly; 0 sends the caller to the slow path. */
static struct run run_at(struct vcpu *vcpu, const struct op *op, unsigned segment, gva_t gva, unsigned kind)
{
	struct run run = { 0 };
	gla_t gla;
	u64 room;
	if ((vcpu->rflags & RFLAGS_DF) || CHECKS(vcpu))
		return run;
	if (op->flags & OP_LONG) {
		gla = gva + (segment == SEG_FS || segment == SEG_GS ? vcpu->seg[segment].base : 0);
		room = ~0ull;
	} else {
		if (!segment_plain(vcpu, segment, gva, op->size, &gla))
			return run;
		room = (u64)vcpu->seg[segment].limit - gva + 1;
	}
	run.hva = tlb_lookup_explicit(vcpu->mmu, gla, op->size, kind);
	if (!run.hva)
		return run;
	room = MIN(room, PAGE_SIZE - (gla & ~PAGE_MASK));
	if (op->address_shift)
		room = MIN(room, (~0ull >> op->address_shift) - gva + 1);
	run.elements = room / op->size;
	return run;
}

/* The host's own string instructions have the guest's semantics for overlapping operands too. */
#define HOST_REP(insn, ...) __asm__ volatile("rep " insn:__VA_ARGS__ : : "memory")

static void host_movs(u8 *to, const u8 *from, u64 count, unsigned size)
{
	switch (size) {
	case 1:
		HOST_REP("movsb", "+D"(to), "+S"(from), "+c"(count));
		break;
	case 2:
		HOST_REP("movsw", "+D"(to), "+S"(from), "+c"(count));
		break;
	case 4:
		HOST_REP("movsl", "+D"(to), "+S"(from), "+c"(count));
		break;
	default:
		HOST_REP("movsq", "+D"(to), "+S"(from), "+c"(count));
		break;
	}
}

static void host_stos(u8 *to, u64 value, u64 count, unsigned size)
{
	switch (size) {
	case 1:
		__asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
		break;
	case 2:
		__asm__ volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(value) : "memory");
		break;
	case 4:
		__asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(value) : "memory");
		break;
	default:
		__asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
		break;
	}
}

static bool element_read(struct vcpu *vcpu, const struct op *op, unsigned segment, unsigned reg, u64 *value)
{
	*value = 0;
	return memory_read_slow(vcpu, segment, address_of(vcpu, op, reg), value, op->size);
}

static bool element_write(struct vcpu *vcpu, const struct op *op, u64 value)
{
	return memory_write_slow(vcpu, SEG_ES, address_of(vcpu, op, RDI), &value, op->size);
}

int op_movs(struct vcpu *vcpu, const struct op *op)
{
	u64 n = elements_left(vcpu, op), value;
	if (!n)
		return OP_DONE;
	struct run from = run_at(vcpu, op, op->segment, address_of(vcpu, op, RSI), ACCESS_READ);
	struct run to = run_at(vcpu, op, SEG_ES, address_of(vcpu, op, RDI), ACCESS_WRITE);
	n = MIN(n, MIN(from.elements, to.elements));
	if (n) {
		host_movs(to.hva, from.hva, n, op->size);
		mmu_stored_at(vcpu, to.hva);
	} else {
		n = 1;
		if (!element_read(vcpu, op, op->segment, RSI, &value) || !element_write(vcpu, op, value))
			return OP_FAULT;
	}
	advance(vcpu, op, RSI, n);
	advance(vcpu, op, RDI, n);
	return finish(vcpu, op, n);
}

int op_stos(struct vcpu *vcpu, const struct op *op)
{
	u64 n = elements_left(vcpu, op);
	if (!n)
		return OP_DONE;
	struct run to = run_at(vcpu, op, SEG_ES, address_of(vcpu, op, RDI), ACCESS_WRITE);
	n = MIN(n, to.elements);
	if (n) {
		host_stos(to.hva, vcpu->gpr[RAX], n, op->size);
		mmu_stored_at(vcpu, to.hva);
	} else {
		n = 1;
		if (!element_write(vcpu, op, vcpu->gpr[RAX]))
			return OP_FAULT;
	}
	advance(vcpu, op, RDI, n);
	return finish(vcpu, op, n);
}

int op_lods(struct vcpu *vcpu, const struct op *op)
{
	u64 value;
	if (!elements_left(vcpu, op))
		return OP_DONE;
	if (!op_read_at(vcpu, op, address_of(vcpu, op, RSI), op->size, &value))
		return OP_FAULT;
	gpr_set(vcpu, RAX, op->size, value);
	advance(vcpu, op, RSI, 1);
	return finish(vcpu, op, 1);
}

/* ---- comparing ---- */

#define HOST_CMP(suffix, type)                                                                                         \
	__asm__("cmp" suffix " %2, %1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "q"((type)a), "q"((type)b) : "cc")

/* The status flags of CMP a, b, by the real CPU. */
static void compare(struct vcpu *vcpu, u64 a, u64 b, unsigned size)
{
	u32 ax;
	switch (size) {
	case 1:
		HOST_CMP("b", u8);
		break;
	case 2:
		HOST_CMP("w", u16);
		break;
	case 4:
		HOST_CMP("l", u32);
		break;
	default:
		HOST_CMP("q", u64);
		break;
	}
	u64 low = ax >> 8 & 0xff & RFLAGS_STATUS, overflow = ax & 1 ? RFLAGS_OF : 0;
	vcpu->rflags = (vcpu->rflags & ~RFLAGS_STATUS) | low | overflow;
}

/* After an element was compared: REPE goes on while equal, REPNE while not. */
static int finish_compare(struct vcpu *vcpu, const struct op *op, u64 elements)
{
	int result = finish(vcpu, op, elements);
	bool equal = vcpu->rflags & RFLAGS_ZF;
	if (result == OP_AGAIN && equal != !!(op->flags & OP_REP))
		return OP_DONE;
	return result;
}

/* How many elements from the start until the comparison's end, with `equal` as the condition to go on: at most n. */
static u64 compare_run(const u8 *a, const u8 *b, u64 step_b, u64 n, unsigned size, bool equal)
{
	u64 i = 0;
	while (i + 1 < n && (load_sized(a + i * size, size) == load_sized(b + i * step_b, size)) == equal)
		i++;
	return i + 1;
}

int op_scas(struct vcpu *vcpu, const struct op *op)
{
	u64 n = elements_left(vcpu, op), value;
	if (!n)
		return OP_DONE;
	struct run at = run_at(vcpu, op, SEG_ES, address_of(vcpu, op, RDI), ACCESS_READ);
	n = MIN(n, at.elements);
	if (n) {
		n = compare_run(at.hva, (const u8 *)&vcpu->gpr[RAX], 0, n, op->size, op->flags & OP_REP);
		value = load_sized(at.hva + (n - 1) * op->size, op->size);
	} else {
		n = 1;
		if (!element_read(vcpu, op, SEG_ES, RDI, &value))
			return OP_FAULT;
	}
	compare(vcpu, vcpu->gpr[RAX], value, op->size);
	advance(vcpu, op, RDI, n);
	return finish_compare(vcpu, op, n);
}

int op_cmps(struct vcpu *vcpu, const struct op *op)
{
	u64 n = elements_left(vcpu, op), a, b;
	if (!n)
		return OP_DONE;
	struct run from = run_at(vcpu, op, op->segment, address_of(vcpu, op, RSI), ACCESS_READ);
	struct run to = run_at(vcpu, op, SEG_ES, address_of(vcpu, op, RDI), ACCESS_READ);
	n = MIN(n, MIN(from.elements, to.elements));
	if (n) {
		n = compare_run(from.hva, to.hva, op->size, n, op->size, op->flags & OP_REP);
		a = load_sized(from.hva + (n - 1) * op->size, op->size);
		b = load_sized(to.hva + (n - 1) * op->size, op->size);
	} else {
		n = 1;
		if (!element_read(vcpu, op, op->segment, RSI, &a) || !element_read(vcpu, op, SEG_ES, RDI, &b))
			return OP_FAULT;
	}
	compare(vcpu, a, b, op->size);
	advance(vcpu, op, RSI, n);
	advance(vcpu, op, RDI, n);
	return finish_compare(vcpu, op, n);
}

/* ---- ports ---- */

static void port_watch(struct vcpu *vcpu, u16 port, unsigned size)
{
	u64 hit = control_debug_armed(vcpu) ? control_debug_match(vcpu, DEBUG_IO, port, size) : 0;
	if (!hit)
		return;
	if (!(vcpu_pending(vcpu) & PENDING_TRAP))
		vcpu->trap = (struct guest_fault){ .vector = VEC_DB };
	vcpu->trap.payload |= hit;
	vcpu_set_pending(vcpu, PENDING_TRAP);
}

static u32 port_access(struct vcpu *vcpu, u16 port, unsigned size, bool write, u32 value)
{
	struct exit exit = { .reason = EXIT_IO,
			     .io = { .port = port, .size = (u8)size, .write = write, .value = value } };
	vcpu->ops->exit(vcpu, &exit);
	port_watch(vcpu, port, size);
	return exit.io.value;
}

int op_ins(struct vcpu *vcpu, const struct op *op)
{
	u16 port = (u16)vcpu->gpr[RDX];
	gla_t gla;
	vector_sync(vcpu);
	if (!control_check_io(vcpu, port, op->size))
		return OP_FAULT;
	if (!elements_left(vcpu, op))
		return OP_DONE;
	if (!memory_linear(vcpu, SEG_ES, address_of(vcpu, op, RDI), op->size, ACCESS_WRITE, &gla) ||
	    !mmu_probe_write(vcpu, gla, op->size, ACCESS_WRITE))
		return OP_FAULT;
	if (!element_write(vcpu, op, port_access(vcpu, port, op->size, false, 0)))
		return OP_FAULT;
	advance(vcpu, op, RDI, 1);
	return finish(vcpu, op, 1);
}

int op_outs(struct vcpu *vcpu, const struct op *op)
{
	u16 port = (u16)vcpu->gpr[RDX];
	u64 value;
	vector_sync(vcpu);
	if (!control_check_io(vcpu, port, op->size))
		return OP_FAULT;
	if (!elements_left(vcpu, op))
		return OP_DONE;
	if (!element_read(vcpu, op, op->segment, RSI, &value))
		return OP_FAULT;
	port_access(vcpu, port, op->size, true, (u32)value);
	advance(vcpu, op, RSI, 1);
	return finish(vcpu, op, 1);
}

/* IN and OUT: the port is imm if OP_REGISTER is clear, else DX. */
static u16 port_of(const struct vcpu *vcpu, const struct op *op)
{
	return op->flags & OP_REGISTER ? (u16)vcpu->gpr[RDX] : (u16)(op->imm & 0xff);
}

int op_in(struct vcpu *vcpu, const struct op *op)
{
	u16 port = port_of(vcpu, op);
	vector_sync(vcpu);
	if (!control_check_io(vcpu, port, op->size))
		return OP_FAULT;
	gpr_set(vcpu, RAX, op->size, port_access(vcpu, port, op->size, false, 0));
	return OP_DONE;
}

int op_out(struct vcpu *vcpu, const struct op *op)
{
	u16 port = port_of(vcpu, op);
	vector_sync(vcpu);
	if (!control_check_io(vcpu, port, op->size))
		return OP_FAULT;
	port_access(vcpu, port, op->size, true, (u32)gpr_get(vcpu, RAX, op->size));
	return OP_DONE;
}
