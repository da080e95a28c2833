/* The edges of translated code: the function that enters it, and the stubs by which it leaves. */
#include "engine/bt/emit.h"
#include "engine/bt/state.h"

static const u8 callee_saved[] = { RBX, RBP, R12, R13, R14, R15 };

static void emit_push(struct emitter *e, unsigned reg)
{
	emit_rex(e, false, 0, NO_REGISTER, reg);
	emit8(e, (u8)(0x50 | (reg & 7)));
}

static void emit_pop(struct emitter *e, unsigned reg)
{
	emit_rex(e, false, 0, NO_REGISTER, reg);
	emit8(e, (u8)(0x58 | (reg & 7)));
}

/* Guest registers that live in host registers, but for RAX. */
static void move_registers(struct emitter *e, void (*move)(struct emitter *e, unsigned reg, u32 offset))
{
	for (unsigned reg = RCX; reg < GPR_COUNT; reg++) {
		if (reg == RSP)
			move(e, HOST_SP, VCPU_GPR(RSP));
		else if (reg < R8 || reg > R11)
			move(e, reg, VCPU_GPR(reg));
	}
}

#define RETURN_STACK_SIZE 8192
#define RETURN_FRAME 16

/* The stack of return addresses begins: below its bottom frame no RET goes, see emit_bottom. */
static void emit_begin_returns(struct bt_cache *c, struct emitter *e)
{
	EMIT(e, 0x6a, 0); /* push 0 */
	EMIT(e, 0x48, 0x8d, 0x05); /* lea rax, [rip + bottom] */
	emit32(e, (u32)(bt_rw(c, c->return_bottom) - (e->at + 4)));
	emit_push(e, RAX);
	emit_store_gs(e, RSP, VCPU(return_base));
	EMIT(e, 0x48, 0x8d, 0x84, 0x24); /* lea rax, [rsp - RETURN_STACK_SIZE] */
	emit32(e, (u32)-RETURN_STACK_SIZE);
	emit_store_gs(e, RAX, VCPU(return_limit));
}

/* Forget all return addresses. */
static void emit_forget_returns(struct emitter *e)
{
	emit_load_gs(e, RSP, VCPU(return_base));
}

/* enter(RDI = code) */
static void emit_enter(struct bt_cache *c, struct emitter *e)
{
	for (unsigned i = 0; i < ARRAY_SIZE(callee_saved); i++)
		emit_push(e, callee_saved[i]);
	emit_begin_returns(c, e);
	emit_mov(e, T0, RDI);
	move_registers(e, emit_load_gs);
	emit_load_gs(e, TLB_BASE, VCPU(tlb));
	emit_gs(e, false, 0x8b, RAX, VCPU(flags_image));
	EMIT(e, 0x04, 0x7f, 0x9e); /* add al, 127; sahf */
	emit_load_gs(e, RAX, VCPU_GPR(RAX));
	EMIT(e, 0x41, 0xff, 0xe2); /* jmp r10 */
}

/* Back to C from enter(). */
static void emit_pop_saved(struct emitter *e)
{
	emit_forget_returns(e);
	emit_lea(e, true, RSP, RSP, NO_REGISTER, 0, RETURN_FRAME);
	for (unsigned i = ARRAY_SIZE(callee_saved); i-- > 0;)
		emit_pop(e, callee_saved[i]);
	emit8(e, 0xc3);
}

/* The return address is the site; T0 goes to scratch[0]. */
static void emit_leave(struct emitter *e, bool saved)
{
	emit_store_gs(e, RAX, VCPU_GPR(RAX));
	if (!saved)
		emit_flags_image(e);
	emit_store_gs(e, T0, VCPU(scratch));
	move_registers(e, emit_store_gs);
	emit_pop(e, RAX);
	emit_pop_saved(e);
}

static void emit_load_registers(struct emitter *e)
{
	move_registers(e, emit_load_gs);
	emit_load_gs(e, TLB_BASE, VCPU(tlb));
	emit_load_gs(e, RAX, VCPU_GPR(RAX));
}

/* On by the jump cache at vcpu->rip; status flags are in the image. */
static void emit_dispatch(struct emitter *e)
{
	emit_load_gs(e, T0, VCPU(rip));
	emit_jump_index(e);
	emit_load_gs(e, T1, VCPU(jump_cache));
	emit_lea(e, true, T1, T1, T0, 3, 0);
	EMIT(e, 0x41, 0xff, 0xa3); /* jmp [r11 + codes] */
	emit32(e, JUMP_CACHE_ENTRIES * 8);
}

/* A RET that found RIP 0, T0, in a frame that is not a CALL's: on by the jump cache. */
static void emit_bottom(struct emitter *e)
{
	emit_forget_returns(e);
	emit_store_gs(e, T0, VCPU(rip));
	emit_dispatch(e);
}

/* CALLed when there is no room for a frame more. Clobbers T1. */
static void emit_restart_returns(struct emitter *e)
{
	emit_pop(e, T1);
	emit_forget_returns(e);
	EMIT(e, 0x41, 0xff, 0xe3); /* jmp r11 */
}

/* CALLed by translated code with T1 = the call-out. RAX and the flags' image are in struct vcpu. The stack is aligned as C wants it. */
static void emit_callout_common(struct bt_cache *c, struct emitter *e)
{
	move_registers(e, emit_store_gs);
	emit_load_gs(e, RDI, VCPU(self));
	emit_mov(e, RSI, T1);
	EMIT(e, 0x48, 0xb8); /* mov rax, imm64 */
	u64 function = (u64)(uintptr_t)callout_run;
	emit_bytes(e, (const u8 *)&function, sizeof(function));
	EMIT(e, 0xff, 0xd0, 0x85, 0xc0); /* call rax; test eax, eax */
	u8 *other = emit_jcc(e, 0x5);
	emit_load_registers(e);
	emit8(e, 0xc3);
	emit_fix32(other, e->at);
	emit_forget_returns(e);
	EMIT(e, 0x83, 0xf8, CALLOUT_DISPATCH); /* cmp eax, DISPATCH */
	u8 *leave = emit_jcc(e, 0x5);
	emit_load_registers(e);
	emit_dispatch(e);
	emit_fix32(leave, e->at);
	static const struct site site = { .kind = SITE_CALLOUT };
	EMIT(e, 0x48, 0x8d, 0x05); /* lea rax, [rip + site] */
	emit32(e, 0);
	u8 *field = e->at - 4;
	emit_pop_saved(e);
	emit_fix32(field, e->at);
	emit_bytes(e, (const u8 *)&site, sizeof(site));
}

static void emit_callouts(struct bt_cache *c, struct emitter *e)
{
	c->callout_host = bt_rx(c, e->at);
	emit_store_gs(e, RAX, VCPU_GPR(RAX));
	emit_flags_image(e);
	u8 *common = emit_jump(e, 0xe9, e->at);
	c->callout_saved = bt_rx(c, e->at);
	emit_store_gs(e, RAX, VCPU_GPR(RAX));
	emit_fix32(common, e->at);
	emit_callout_common(c, e);
}

/* An instruction with a register and the entry of index T1. */
static void emit_entry(struct emitter *e, u8 opcode, unsigned reg, size_t array)
{
	emit_at(e, true, opcode, reg, &(struct place){ TLB_BASE, T1, 3, (s32)array });
}

static void emit_site_byte(struct emitter *e, unsigned to, size_t field)
{
	emit_rex(e, false, to, NO_REGISTER, RCX);
	EMIT(e, 0x0f, 0xb6); /* movzx to, byte [rcx + field] */
	emit_address(e, to, RCX, NO_REGISTER, 0, (s32)field);
}

/* T0 is a linear address that is not in the TLB, RCX the site, which is the last argument; RAX and RCX are saved. Have the page entered. */
static void emit_fill(struct bt_cache *c, struct emitter *e, const u8 *again)
{
	static const u8 saved[] = { RDX, RSI, RDI, HOST_SP };
	for (unsigned i = 0; i < ARRAY_SIZE(saved); i++)
		emit_push(e, saved[i]);
	emit_load_gs(e, RDI, VCPU(self));
	emit_load_gs(e, RSI, VCPU(scratch));
	emit_site_byte(e, RDX, offsetof(struct access_site, detail));
	EMIT(e, 0x48, 0xb8); /* mov rax, access_fill */
	u64 target = (u64)(uintptr_t)access_fill;
	emit_bytes(e, (const u8 *)&target, sizeof(target));
	EMIT(e, 0xff, 0xd0, 0x48, 0x85, 0xc0); /* call rax; test rax, rax */
	for (unsigned i = ARRAY_SIZE(saved); i-- > 0;)
		emit_pop(e, saved[i]);
	emit_load_gs(e, TLB_BASE, VCPU(tlb));
	emit_load_gs(e, T0, VCPU(scratch));
	EMIT(e, 0x48, 0x8b, 0x4c, 0x24, 16); /* mov rcx, [rsp + 16] */
	u8 *refused = emit_jcc(e, 0x4);
	EMIT(e, 0x48, 0x83, 0xf8, FILL_DONE); /* cmp rax, FILL_DONE */
	emit_fix32(emit_jcc(e, 0x4), again);
	emit_mov(e, T1, RAX);
	EMIT(e, 0x49, 0x83, 0xca, 0xff); /* or r10, -1 */
	emit_pop(e, RCX);
	emit_pop(e, RAX);
	emit8(e, 0xc3);
	emit_fix32(refused, e->at);
	emit_pop(e, RCX);
	emit_pop(e, RAX);
	emit_jump(e, 0xe9, bt_rw(c, c->leave_saved));
}

/* T0, a linear address, is looked up: T0 = what struct known wants, T1 = addend. What cannot be in the TLB leaves. The flags are saved. */
static void emit_look_up(struct bt_cache *c, struct emitter *e, size_t tags, bool known)
{
	emit_store_gs(e, T0, VCPU(scratch));
	const u8 *again = e->at;
	emit_rr(e, false, 0x89, T0, T1);
	EMIT(e, 0x41, 0xc1, 0xeb, PAGE_SHIFT); /* shr r11d, 12 */
	emit_site_byte(e, RAX, offsetof(struct access_site, detail));
	EMIT(e, 0x83, 0xe0, SITE_WRITE - 1, 0x48, 0xf7, 0xd8, 0x48, 0x05); /* and eax, 127; neg rax; add rax, imm32 */
	emit32(e, PAGE_SIZE);
	emit_entry(e, 0x2b, T0, tags);
	emit_rr(e, true, 0x39, RAX, T0);
	u8 *miss = emit_jcc(e, 0x7);
	emit_entry(e, 0x8b, T1, offsetof(struct tlb_table, addend));
	emit_site_byte(e, RAX, offsetof(struct access_site, delta));
	emit_rr(e, true, 0x29, RAX, T0);
	if (!known)
		EMIT(e, 0x49, 0x83, 0xca, 0xff); /* or r10, -1 */
	emit_pop(e, RCX);
	emit_pop(e, RAX);
	emit8(e, 0xc3);
	emit_fix32(miss, e->at);
	emit_fill(c, e, again);
}

static void emit_site_load(struct emitter *e)
{
	emit_push(e, RAX);
	emit_push(e, RCX);
	EMIT(e, 0x48, 0x8b, 0x4c, 0x24, 16); /* mov rcx, [rsp + 16] */
}

/* An entry with T0 = address checked - tag: the operand's is made of it. */
static void emit_first_entry(struct bt_cache *c, struct emitter *e, enum access_entry entry, bool write)
{
	bool tag = write || entry == ACCESS_BY_WRITE;
	c->access[entry][write] = bt_rx(c, e->at);
	emit_entry(e, 0x03, T0, tag ? offsetof(struct tlb_table, write) : offsetof(struct tlb_table, read));
	emit_site_load(e);
	emit_site_byte(e, RAX, offsetof(struct access_site, delta));
	emit_rr(e, true, 0x01, RAX, T0);
}

/* CALLed behind a check that failed. What is looked up for a read is not known for stores. */
static void emit_access_stubs(struct bt_cache *c, struct emitter *e, enum access_entry first, enum access_entry again, bool write)
{
	emit_first_entry(c, e, first, write);
	u8 *join = emit_jump(e, 0xe9, e->at);
	c->access[again][write] = bt_rx(c, e->at);
	emit_site_load(e);
	emit_fix32(join, e->at);
	emit_look_up(c, e, write ? offsetof(struct tlb_table, write) : offsetof(struct tlb_table, read), first == ACCESS_FIRST);
}

static void emit_fixed_site(struct bt_cache *c, struct emitter *e, const u8 *leave, enum site_kind kind)
{
	emit_jump(e, 0xe8, bt_rw(c, leave));
	const struct site site = { .kind = (u8)kind };
	emit_bytes(e, (const u8 *)&site, sizeof(site));
}

/* CALLed by translated code that reads flags out of a flags_image that is a recipe. Clobbers the host's. */
static void emit_complete(struct bt_cache *c, struct emitter *e)
{
	static const u8 clobbered[] = { RAX, RCX, RDX, RSI, RDI };
	c->complete = bt_rx(c, e->at);
	emit_push(e, T0);
	emit_push(e, T1);
	for (unsigned i = 0; i < ARRAY_SIZE(clobbered); i++)
		emit_store_gs(e, clobbered[i], VCPU_GPR(clobbered[i]));
	emit_store_gs(e, HOST_SP, VCPU_GPR(RSP));
	emit_load_gs(e, RDI, VCPU(self));
	EMIT(e, 0x48, 0xb8); /* mov rax, flags_complete */
	u64 target = (u64)(uintptr_t)flags_complete;
	emit_bytes(e, (const u8 *)&target, sizeof(target));
	EMIT(e, 0xff, 0xd0); /* call rax */
	for (unsigned i = 0; i < ARRAY_SIZE(clobbered); i++)
		emit_load_gs(e, clobbered[i], VCPU_GPR(clobbered[i]));
	emit_load_gs(e, HOST_SP, VCPU_GPR(RSP));
	emit_load_gs(e, TLB_BASE, VCPU(tlb));
	emit_pop(e, T1);
	emit_pop(e, T0);
	emit8(e, 0xc3);
}

/* rip is not in the jump cache: have its code found, and try again. The flags are saved. */
static void emit_miss(struct bt_cache *c, struct emitter *e)
{
	static const u8 clobbered[] = { RAX, RCX, RDX, RSI, RDI };
	for (unsigned i = 0; i < ARRAY_SIZE(clobbered); i++)
		emit_store_gs(e, clobbered[i], VCPU_GPR(clobbered[i]));
	emit_store_gs(e, HOST_SP, VCPU_GPR(RSP));
	emit_load_gs(e, RDI, VCPU(self));
	EMIT(e, 0x48, 0x83, 0xec, 8, 0x48, 0xb8); /* sub rsp, 8; mov rax, miss_fill */
	u64 target = (u64)(uintptr_t)miss_fill;
	emit_bytes(e, (const u8 *)&target, sizeof(target));
	EMIT(e, 0xff, 0xd0, 0x48, 0x83, 0xc4, 8, 0x84, 0xc0); /* call rax; add rsp, 8; test al, al */
	for (unsigned i = 0; i < ARRAY_SIZE(clobbered); i++)
		emit_load_gs(e, clobbered[i], VCPU_GPR(clobbered[i]));
	emit_load_gs(e, HOST_SP, VCPU_GPR(RSP));
	emit_load_gs(e, TLB_BASE, VCPU(tlb));
	u8 *leave = emit_jcc(e, 0x4);
	emit_dispatch(e);
	emit_fix32(leave, e->at);
	emit_fixed_site(c, e, c->leave_saved, SITE_MISS);
}

u32 stubs_emit(struct bt_cache *c)
{
	struct emitter e = { c->code.rw };
	c->return_bottom = bt_rx(c, e.at);
	emit_bottom(&e);
	c->return_restart = bt_rx(c, e.at);
	emit_restart_returns(&e);
	c->enter = (const struct site *(*)(const void *))(uintptr_t)bt_rx(c, e.at);
	emit_enter(c, &e);
	c->leave_host = bt_rx(c, e.at);
	emit_leave(&e, false);
	c->leave_saved = bt_rx(c, e.at);
	emit_leave(&e, true);
	c->miss = bt_rx(c, e.at);
	emit_miss(c, &e);
	emit_callouts(c, &e);
	emit_complete(c, &e);
	emit_access_stubs(c, &e, ACCESS_FIRST, ACCESS_AGAIN, false);
	emit_access_stubs(c, &e, ACCESS_FIRST, ACCESS_AGAIN, true);
	emit_access_stubs(c, &e, ACCESS_BY_WRITE, ACCESS_AGAIN_BY_WRITE, false);
	c->trap_host = bt_rx(c, e.at);
	emit_fixed_site(c, &e, c->leave_host, SITE_TRAP);
	c->trap_saved = bt_rx(c, e.at);
	emit_fixed_site(c, &e, c->leave_saved, SITE_TRAP);
	return ((u32)(e.at - c->code.rw) + 63) & ~63u;
}
