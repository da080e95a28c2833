/* Blocks of decoded operations, cached by guest physical address and mode.
 *
 * A block is valid while the generation of its page stands where it was when the bytes were read: PAGE_CODE is set
 * before reading, and every store into such a page counts the generation up. If it moved but the bytes are the same
 * (data beside code), the block is kept. Memory is given out in order and freed all at once when full. */
#include "engine/step/handlers.h"
#include "engine/step/memory.h"

/* Mode bits of a block's key. */
#define KEY_SINGLE 8

/* ---- memory ---- */

void block_flush_all(struct step *step)
{
	host_table_discard(step->hash, BLOCK_HASH_SIZE * sizeof(struct block *));
	host_table_discard(step->jump_cache, JUMP_CACHE_SIZE * sizeof(struct block *));
	step->chunk_current = 0;
	step->chunk_used = 0;
	step->code_used = 0;
	step->flushes++;
}

void block_rest(struct step *step)
{
	block_flush_all(step);
	while (step->chunks)
		host_table_destroy(step->chunk[--step->chunks], ARENA_CHUNK);
	host_code_discard(&step->code, 0, step->code.size);
}

void *block_alloc(struct step *step, size_t size)
{
	size = (size + 63) & ~63ull;
	if (step->chunks && step->chunk_used + size <= ARENA_CHUNK) {
		void *p = step->chunk[step->chunk_current] + step->chunk_used;
		step->chunk_used += size;
		return p;
	}
	unsigned next = step->chunks ? step->chunk_current + 1 : 0;
	if (next >= step->chunks_max || size > ARENA_CHUNK)
		return NULL;
	if (next == step->chunks) {
		step->chunk[next] = host_table_create(ARENA_CHUNK);
		if (!step->chunk[next])
			return NULL;
		step->chunks++;
	}
	step->chunk_current = next;
	step->chunk_used = size;
	return step->chunk[next];
}

/* ---- where the code is ---- */

/* The code at rip: linear address, its page, and how many bytes may be fetched. */
struct fetch {
	gla_t gla;
	struct translation page;
	u32 seen;
	unsigned room; /* bytes to the end of the page or of the segment */
	bool limited;  /* the segment ends first */
};

static bool fetch_linear(struct vcpu *vcpu, gla_t *gla)
{
	if (vcpu_64bit(vcpu)) {
		*gla = vcpu->rip;
		return true;
	}
	*gla = (u32)(vcpu->seg[SEG_CS].base + vcpu->rip);
	return vcpu->rip <= vcpu->seg[SEG_CS].limit || vcpu_raise_gp(vcpu, 0);
}

static bool translate_code(struct vcpu *vcpu, gla_t gla, struct translation *out, u32 *seen)
{
	vector_sync(vcpu);
	if (vcpu_64bit(vcpu) && !is_canonical(gla, vcpu_linear_bits(vcpu)))
		return vcpu_raise_gp(vcpu, 0);
	if (!mmu_translate(vcpu, gla, ACCESS_EXEC, out))
		return false;
	if (out->hva) {
		do {
			mmu_protect_code(vcpu, out);
			*seen = __atomic_load_n(out->generation, __ATOMIC_SEQ_CST);
		} while (!(__atomic_load_n(out->flags, __ATOMIC_SEQ_CST) & PAGE_CODE));
	}
	return true;
}

static bool fetch_start(struct vcpu *vcpu, struct fetch *f)
{
	if (!fetch_linear(vcpu, &f->gla) || !translate_code(vcpu, f->gla, &f->page, &f->seen))
		return false;
	f->room = (unsigned)(PAGE_SIZE - (f->gla & ~PAGE_MASK));
	f->limited = false;
	if (!vcpu_64bit(vcpu)) {
		u64 left = (u64)vcpu->seg[SEG_CS].limit - vcpu->rip + 1;
		f->limited = left <= f->room;
		f->room = (unsigned)MIN(f->room, left);
	}
	return true;
}

/* ---- building ---- */

struct build {
	struct step *step;
	struct fetch at;
	struct translation second; /* page, if the instruction crosses */
	u32 second_seen;
	bool crosses;
	struct insn fused[12];
	unsigned fused_count;
	struct op ops[BLOCK_OPS_MAX];
	unsigned count, length;
	bool sensitive;
	u8 bytes[PAGE_SIZE + INSN_LENGTH_MAX +
		 1]; /* the code as it was when decoded: another vCPU may be changing it */
};

size_t block_build_size(void)
{
	return sizeof(struct build);
}

/* The next bytes to decode. */
static const u8 *build_bytes(struct vcpu *vcpu, struct build *b, unsigned *available)
{
	u8 *bytes = b->bytes + b->length;
	unsigned n = *available = MIN(b->at.room - b->length, INSN_LENGTH_MAX + 1u);
	if (b->at.page.hva) {
		__builtin_memcpy(bytes, b->at.page.hva + b->length, n);
		return bytes;
	}
	/* Code outside RAM is read as data is, byte by byte. */
	n = *available = MIN(n, INSN_LENGTH_MAX);
	return mmu_read(vcpu, b->at.gla + b->length, bytes, n, ACCESS_EXEC) ? bytes : NULL;
}

/* The first instruction does not end in its page: fetch what the second page has. */
static bool decode_crossing(struct vcpu *vcpu, struct build *b, enum insn_mode mode, enum decode_result *result)
{
	gla_t next = (b->at.gla | ~PAGE_MASK) + 1;
	unsigned first = b->at.room;
	if (b->at.limited)
		return vcpu_raise_gp(vcpu, 0);
	if (!vcpu_64bit(vcpu))
		next = (u32)next;
	if (!translate_code(vcpu, next, &b->second, &b->second_seen))
		return false;
	u8 bytes[INSN_LENGTH_MAX];
	__builtin_memcpy(bytes, b->bytes, first);
	if (b->second.hva)
		__builtin_memcpy(bytes + first, b->second.hva, INSN_LENGTH_MAX - first);
	else if (!mmu_read(vcpu, next, bytes + first, INSN_LENGTH_MAX - first, ACCESS_EXEC))
		return false;
	*result = insn_decode(&b->step->decoder, mode, bytes, INSN_LENGTH_MAX, &b->step->insn);
	__builtin_memcpy(b->bytes, bytes, INSN_LENGTH_MAX);
	b->crosses = true;
	if (!vcpu_64bit(vcpu) && *result == DECODE_OK &&
	    vcpu->rip + b->step->insn.z.length - 1 > vcpu->seg[SEG_CS].limit)
		return vcpu_raise_gp(vcpu, 0);
	return true;
}

/* Turn the instructions waiting to be fused into one operation. */
static bool flush_fused(struct vcpu *vcpu, struct build *b)
{
	if (!b->fused_count)
		return true;
	struct op *op = &b->ops[b->count++];
	*op = (struct op){ .run = op_native_register, .kind = KIND_NATIVE, .xstate = INSN_NO_XSTATE };
	for (unsigned i = 0; i < b->fused_count; i++)
		op->length += b->fused[i].z.length;
	unsigned count = b->fused_count;
	b->fused_count = 0;
	return snippet_emit(b->step, b->fused, count, op);
}

/* Bytes that are no instruction are so by all that the decoder looked at: the block stands and falls with those. */
static void add_fault(struct build *b, op_fn run, unsigned looked_at)
{
	struct op *op = &b->ops[b->count++];
	*op = (struct op){ .run = run, .kind = KIND_REFUSED, .xstate = INSN_NO_XSTATE };
	b->length += looked_at;
}

enum build_step { BUILD_GO_ON, BUILD_END, BUILD_FAULT, BUILD_FULL };

static enum build_step build_one(struct vcpu *vcpu, struct build *b, enum insn_mode mode, bool single)
{
	struct step *step = b->step;
	enum decode_result result = DECODE_MORE;
	unsigned available;
	const u8 *bytes = build_bytes(vcpu, b, &available);
	if (!bytes)
		return BUILD_FAULT;
	if (available)
		result = insn_decode(&step->decoder, mode, bytes, available, &step->insn);
	if (result == DECODE_MORE) {
		if (b->count || b->fused_count)
			return BUILD_END;
		if (!decode_crossing(vcpu, b, mode, &result))
			return BUILD_FAULT;
	}
	if (result != DECODE_OK) {
		if (!flush_fused(vcpu, b))
			return BUILD_FULL;
		add_fault(b, result == DECODE_LONG ? op_run_gp : op_run_ud,
			  b->crosses ? INSN_LENGTH_MAX : MIN(available, INSN_LENGTH_MAX));
		return BUILD_END;
	}
	b->length += step->insn.z.length;
	if (!single && op_fusable(&step->insn)) {
		b->fused[b->fused_count++] = step->insn;
		if (b->fused_count == ARRAY_SIZE(b->fused) && !flush_fused(vcpu, b))
			return BUILD_FULL;
	} else {
		if (!flush_fused(vcpu, b) || !op_prepare(vcpu, &b->ops[b->count++]))
			return BUILD_FULL;
	}
	b->sensitive = op_is_sensitive(&step->insn);
	if (single || b->crosses || op_ends_block(&step->insn) || b->count >= BLOCK_OPS_MAX - 2)
		return BUILD_END;
	return BUILD_GO_ON;
}

static unsigned hash_of(gpa_t gpa, u32 key)
{
	return (unsigned)((gpa ^ (u64)key << 40) * 0x9e3779b97f4a7c15ull >> (64 - BLOCK_HASH_BITS));
}

static struct block *block_publish(struct build *b, u32 key)
{
	size_t ops_size = b->count * sizeof(struct op);
	struct block *block = block_alloc(b->step, sizeof(*block) + ops_size + b->length);
	if (!block)
		return NULL;
	*block = (struct block){ .gpa = b->at.page.gpa,
				 .generation = b->at.page.generation,
				 .seen = b->at.seen,
				 .key = key,
				 .length = (u16)b->length,
				 .ops = (u8)b->count,
				 .crosses = b->crosses };
	for (unsigned i = 0; i < b->count; i++)
		block->op[i] = b->ops[i];
	block->bytes = (u8 *)&block->op[b->count];
	if (b->crosses) {
		block->gpa2 = b->second.gpa;
		block->generation2 = b->second.generation;
		block->seen2 = b->second_seen;
	}
	block->sensitive = b->sensitive;
	block->uncached = !b->at.page.hva || (b->crosses && !b->second.hva) || b->at.limited;
	for (unsigned i = 0; i < b->length && !block->uncached; i++)
		block->bytes[i] = b->bytes[i];
	if (!block->uncached) {
		unsigned h = hash_of(block->gpa, key);
		block->next = b->step->hash[h];
		b->step->hash[h] = block;
	}
	b->step->blocks_built++;
	return block;
}

/* False: out of memory for code, flush and try again. */
static bool block_build(struct vcpu *vcpu, const struct fetch *at, u32 key, bool single, struct block **block)
{
	struct step *step = step_of(vcpu);
	struct build *b = step->build;
	b->step = step;
	b->at = *at;
	b->crosses = b->sensitive = false;
	b->fused_count = b->count = b->length = 0;
	enum build_step state;
	*block = NULL;
	do {
		state = build_one(vcpu, b, vcpu_insn_mode(vcpu), single);
	} while (state == BUILD_GO_ON);
	if (state == BUILD_FAULT)
		return true;
	if (state == BUILD_FULL || !flush_fused(vcpu, b))
		return false;
	*block = block_publish(b, key);
	return *block != NULL;
}

/* ---- finding ---- */

static bool same_bytes(const u8 *a, const u8 *b, unsigned n)
{
	while (n && *a == *b) {
		a++;
		b++;
		n--;
	}
	return !n;
}

/* Whether the block is what memory holds; its page may have been written. */
static bool block_current(const struct step *step, struct block *block, const struct fetch *f)
{
	if (block->generation != f->page.generation)
		return false;
	if (block->seen == f->seen && !step->shared)
		return true;
	unsigned first = block->crosses ? (unsigned)(PAGE_SIZE - (block->gpa & ~PAGE_MASK)) : block->length;
	if (!same_bytes(block->bytes, f->page.hva, first))
		return false;
	block->seen = f->seen;
	return true;
}

/* The second page of a crossing block: mapped where it was, and unchanged. NULL with a fault raised, or with none:
 * build anew. */
static bool second_page_current(struct vcpu *vcpu, struct block *block, gla_t gla, bool *fault)
{
	struct translation t;
	u32 seen;
	gla_t next = (gla | ~PAGE_MASK) + 1;
	*fault = !translate_code(vcpu, vcpu_64bit(vcpu) ? next : (u32)next, &t, &seen);
	if (*fault || !t.hva || t.gpa != block->gpa2 || t.generation != block->generation2)
		return false;
	if (block->seen2 == seen && !step_of(vcpu)->shared)
		return true;
	unsigned first = (unsigned)(PAGE_SIZE - (block->gpa & ~PAGE_MASK));
	if (!same_bytes(block->bytes + first, t.hva, block->length - first))
		return false;
	block->seen2 = seen;
	return true;
}

static void hash_remove(struct step *step, struct block *block)
{
	for (struct block **p = &step->hash[hash_of(block->gpa, block->key)]; *p; p = &(*p)->next) {
		if (*p != block)
			continue;
		*p = block->next;
		return;
	}
}

static struct block *hash_find(struct step *step, gpa_t gpa, u32 key)
{
	struct block *block = step->hash[hash_of(gpa, key)];
	while (block && (block->gpa != gpa || block->key != key))
		block = block->next;
	return block;
}

static struct block *block_find_slow(struct vcpu *vcpu, u32 key, bool single)
{
	struct step *step = step_of(vcpu);
	struct fetch f;
	if (!fetch_start(vcpu, &f))
		return NULL;
	struct block *block = f.page.hva ? hash_find(step, f.page.gpa, key) : NULL;
	if (block) {
		bool fault = false;
		bool fits = vcpu_64bit(vcpu) || vcpu->rip + block->length - 1 <= vcpu->seg[SEG_CS].limit;
		bool current = fits && block_current(step, block, &f) &&
			       (!block->crosses || second_page_current(vcpu, block, f.gla, &fault));
		if (fault)
			return NULL;
		if (current)
			return block;
		if (fits)
			hash_remove(step, block);
	}
	if (!block_build(vcpu, &f, key, single, &block)) {
		block_flush_all(step);
		if (!block_build(vcpu, &f, key, single, &block))
			host_panic("step: no room for one block");
	}
	return block;
}

u32 block_key(const struct vcpu *vcpu, bool single)
{
	return (u32)vcpu_insn_mode(vcpu) | (single ? KEY_SINGLE : 0);
}

static unsigned jump_slot(u64 rip)
{
	return (unsigned)(rip ^ rip >> 12) & (JUMP_CACHE_SIZE - 1);
}

/* What the jump cache holds is a hint: that this page is executable and where it lies comes from the TLB, that the
 * bytes are the same from the page's generation. */
struct block *block_cached(struct vcpu *vcpu, struct step *step, u32 key)
{
	u64 rip = vcpu->rip;
	gla_t gla = rip;
	struct block *block = step->jump_cache[jump_slot(rip)];
	if (!block)
		return NULL;
	if ((key & ~KEY_SINGLE) != INSN_MODE_64) {
		gla = (u32)(vcpu->seg[SEG_CS].base + rip);
		if (rip + block->length - 1 > vcpu->seg[SEG_CS].limit)
			return NULL;
	}
	const u8 *hva = tlb_lookup_explicit(vcpu->mmu, gla, 1, ACCESS_EXEC);
	if (unlikely(!hva))
		return NULL;
	const struct ram_slot *slot = ram_slot_at(vcpu->ram, hva);
	bool found = block->key == key && block->gpa == slot->base + (u64)(hva - slot->hva) &&
		     block->seen == __atomic_load_n(block->generation, __ATOMIC_RELAXED) && !block->crosses;
	return likely(found) ? block : NULL;
}

struct block *block_find(struct vcpu *vcpu, bool single)
{
	struct step *step = step_of(vcpu);
	u32 key = block_key(vcpu, single);
	struct block *block = step->shared ? NULL : block_cached(vcpu, step, key);
	if (likely(block))
		return block;
	block = block_find_slow(vcpu, key, single);
	step->jump_cache[jump_slot(vcpu->rip)] = block && !block->uncached ? block : NULL;
	return block;
}
