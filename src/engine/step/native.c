/* Innocuous instructions: run by their snippets, on registers, directly on guest RAM, or on a bounce buffer where the
 * operand crosses a page or is MMIO.
 *
 * The direct path keeps what the hardware gives: LOCK is atomic between vCPUs, naturally aligned accesses are single.
 * The pages of an operand that crosses may lie apart in host memory; one that is read and written is then accessed
 * through a second mapping, in which they lie side by side, so that LOCK holds there, too. */
#include "engine/step/handlers.h"
#include "engine/step/image.h"
#include "engine/step/memory.h"
#include "engine/step/x87.h"

static int call(struct vcpu *vcpu, const struct op *op, void *memory, gva_t gva)
{
	struct step *step = step_of(vcpu);
	if (op->xstate == INSN_NO_XSTATE)
		return snippet_call(vcpu, step, op, memory);
	if (!vector_ready(vcpu, step, op->xstate))
		return OP_FAULT;
	int result = snippet_call(vcpu, step, op, memory);
	if (result == OP_DONE)
		x87_note(vcpu, step, op, gva);
	return result;
}

int op_native_register(struct vcpu *vcpu, const struct op *op)
{
	return snippet_call(vcpu, step_of(vcpu), op, NULL);
}

int op_native_vector(struct vcpu *vcpu, const struct op *op)
{
	return call(vcpu, op, NULL, 0);
}

/* The operand crosses a page or is MMIO. The buffer lies in its line as the operand does in memory, so that the
 * instruction's own alignment check sees the guest's alignment. */
static int native_bounce(struct vcpu *vcpu, const struct op *op, gva_t gva, gla_t gla)
{
	u8 *buffer = step_of(vcpu)->bounce + (gla & 63);
	if ((op->flags & OP_WRITES) && !mmu_probe_write(vcpu, gla, op->mem_size, ACCESS_WRITE))
		return OP_FAULT;
	unsigned kind = op->flags & OP_WRITES ? ACCESS_RMW : ACCESS_READ;
	if ((op->flags & OP_READS) &&
	    !mmu_read(vcpu, gla, buffer, op->mem_size, kind == ACCESS_RMW ? ACCESS_READ : kind))
		return OP_FAULT;
	int result = call(vcpu, op, buffer, gva);
	if (result != OP_DONE || !(op->flags & OP_WRITES))
		return result;
	vector_sync(vcpu);
	return mmu_write(vcpu, gla, buffer, op->mem_size, ACCESS_WRITE);
}

/* A read-modify-write operand in two pages of RAM. OP_AGAIN: it is not that, or the host cannot map it. */
static int native_pair(struct vcpu *vcpu, const struct op *op, gva_t gva, gla_t gla)
{
	struct translation first, second;
	gla_t next = (gla | ~PAGE_MASK) + 1;
	if ((op->flags & (OP_READS | OP_WRITES)) != (OP_READS | OP_WRITES) || next - gla >= op->mem_size)
		return OP_AGAIN;
	if (!vcpu_64bit(vcpu))
		next = (u32)next;
	if (!mmu_translate(vcpu, gla, ACCESS_WRITE, &first) || !mmu_translate(vcpu, next, ACCESS_WRITE, &second))
		return OP_FAULT;
	if (!first.hva || !second.hva)
		return OP_AGAIN;
	u8 *page = first.hva - (gla & ~PAGE_MASK), *pair = page;
	if (second.hva != page + PAGE_SIZE)
		pair = host_map_pair(page, second.hva);
	if (!pair)
		return OP_AGAIN;
	int result = call(vcpu, op, pair + (gla & ~PAGE_MASK), gva);
	vector_sync(vcpu);
	if (pair != page)
		host_unmap_pair(pair);
	if (result == OP_DONE) {
		mmu_stored(vcpu, first.flags, first.generation);
		mmu_stored(vcpu, second.flags, second.generation);
	}
	return result;
}

static int native_bounce_locked(struct vcpu *vcpu, const struct op *op, gva_t gva, gla_t gla)
{
	u32 *lock = &vcpu->ram->split_lock;
	while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE))
		host_yield();
	int result = native_bounce(vcpu, op, gva, gla);
	__atomic_store_n(lock, 0, __ATOMIC_RELEASE);
	return result;
}

static int native_slow(struct vcpu *vcpu, const struct op *op, gva_t gva)
{
	unsigned kind = op->flags & OP_WRITES ? ACCESS_WRITE : ACCESS_READ;
	gla_t gla;
	if (op->xstate != INSN_NO_XSTATE && !vector_ready(vcpu, step_of(vcpu), op->xstate))
		return OP_FAULT;
	vector_sync(vcpu);
	if ((op->flags & OP_WAITS) && image_x87_pending(vcpu))
		return vcpu_raise(vcpu, VEC_MF);
	if ((op->flags & OP_ALIGNED) && ((gva + vcpu->seg[op->segment].base) & (op->mem_size - 1u)))
		return vcpu_raise_gp(vcpu, 0);
	if (!memory_linear(vcpu, op->segment, gva, op->mem_size, kind, &gla))
		return OP_FAULT;
	int result;
	struct translation t = { 0 };
	if ((gla & ~PAGE_MASK) + op->mem_size <= PAGE_SIZE && !mmu_translate(vcpu, gla, kind, &t))
		return OP_FAULT;
	if (t.hva) {
		result = call(vcpu, op, t.hva, gva);
		if (result == OP_DONE && kind == ACCESS_WRITE)
			mmu_stored(vcpu, t.flags, t.generation);
	} else {
		result = native_pair(vcpu, op, gva, gla);
		if (result == OP_AGAIN)
			result = (op->flags & OP_LOCKED ? native_bounce_locked : native_bounce)(vcpu, op, gva, gla);
	}
	if (result == OP_DONE)
		memory_watch(vcpu, gla, op->mem_size, kind);
	return result;
}

int native_memory_at(struct vcpu *vcpu, const struct op *op, gva_t gva)
{
	unsigned kind = op->flags & OP_WRITES ? ACCESS_WRITE : ACCESS_READ;
	gla_t gla;
	u8 *hva = memory_fast(vcpu, op, gva, op->mem_size, kind, &gla);
	if (unlikely(!hva))
		return native_slow(vcpu, op, gva);
	int result = call(vcpu, op, hva, gva);
	if (kind == ACCESS_WRITE && likely(result == OP_DONE))
		mmu_stored_at(vcpu, hva);
	return result;
}

int op_native_read(struct vcpu *vcpu, const struct op *op)
{
	gva_t gva = op_address(vcpu, op);
	gla_t gla;
	u8 *hva = memory_fast(vcpu, op, gva, op->mem_size, ACCESS_READ, &gla);
	if (unlikely(!hva))
		return native_slow(vcpu, op, gva);
	return snippet_call(vcpu, step_of(vcpu), op, hva);
}

int op_native_write(struct vcpu *vcpu, const struct op *op)
{
	gva_t gva = op_address(vcpu, op);
	gla_t gla;
	u8 *hva = memory_fast(vcpu, op, gva, op->mem_size, ACCESS_WRITE, &gla);
	if (unlikely(!hva))
		return native_slow(vcpu, op, gva);
	int result = snippet_call(vcpu, step_of(vcpu), op, hva);
	if (likely(result == OP_DONE))
		mmu_stored_at(vcpu, hva);
	return result;
}

int op_native_vector_memory(struct vcpu *vcpu, const struct op *op)
{
	return native_memory_at(vcpu, op, op_address(vcpu, op));
}

/* BT, BTS, BTR, BTC with a register bit offset: a signed index of bits from the operand's address. The snippet takes it
 * modulo the operand size, as it does with a register. Intel SDM volume 2, BT, "Bit(BitBase, BitOffset)". */
int op_bit_memory(struct vcpu *vcpu, const struct op *op)
{
	s64 bit = (s64)(reg_get(vcpu, op->reg, op->size) << (64 - op->size * 8)) >> (64 - op->size * 8);
	s64 element = (bit >> (op->size == 8 ? 6 : op->size == 4 ? 5 : 4)) * op->size;
	gva_t gva = op_address(vcpu, op) + (u64)element;
	vcpu->scratch[0] = (u64)bit & (op->size * 8 - 1);
	return native_memory_at(vcpu, op, gva << op->address_shift >> op->address_shift);
}
