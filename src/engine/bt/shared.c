/* What vCPUs need to share a code cache: a lock, a way to wait until none is in the midst of code to be overwritten, and stores into code that
 * others execute. See cache.h. */
#include "engine/bt/emit.h"
#include "engine/bt/state.h"

/* ---- life ---- */

static struct bt_cache *create(const struct ram *ram)
{
	struct bt_cache *c = host_alloc(sizeof(*c));
	if (!c)
		return NULL;
	c->logged = ram->code_logged;
	c->work = host_alloc(translate_work_size());
	if (c->work && !cache_create(c, ram))
		return c;
	host_free(c->work);
	cache_destroy(c);
	host_free(c);
	return NULL;
}

int cache_join(struct vcpu *vcpu)
{
	struct ram *ram = vcpu->ram;
	struct bt_cache *c = ram->translated ? ram->translated : create(ram);
	if (!c)
		return -1;
	ram->translated = c;
	c->users++;
	bt_of(vcpu)->cache = c;
	return 0;
}

void cache_leave(struct vcpu *vcpu)
{
	struct bt_cache *c = bt_of(vcpu)->cache;
	if (!c || --c->users)
		return;
	vcpu->ram->translated = NULL;
	host_free(c->work);
	cache_destroy(c);
	host_free(c);
}

/* ---- the lock ---- */

void cache_lock(struct vcpu *vcpu)
{
	struct bt *bt = bt_of(vcpu);
	struct bt_cache *c = bt->cache;
	while (__atomic_load_n(&c->lock, __ATOMIC_RELAXED) || __atomic_exchange_n(&c->lock, 1, __ATOMIC_ACQUIRE)) {
		mmu_serve(vcpu);
		cache_obey(vcpu);
		host_yield();
	}
	c->holder = bt;
}

void cache_unlock(struct vcpu *vcpu)
{
	__atomic_store_n(&bt_of(vcpu)->cache->lock, 0, __ATOMIC_RELEASE);
}

/* ---- evictions ---- */

/* Jump cache entries that lead to [from, to) of the executable mapping. */
static void forget_jumps(struct vcpu *vcpu, const u8 *from, const u8 *to)
{
	u64 *tags = vcpu->jump_cache, *codes = tags + JUMP_CACHE_ENTRIES;
	for (unsigned i = 0; i < JUMP_CACHE_ENTRIES; i++) {
		const u8 *code = (const u8 *)(uintptr_t)codes[i];
		if (code < from || code >= to)
			continue;
		tags[i] = 1;
		codes[i] = (u64)(uintptr_t)bt_of(vcpu)->cache->miss;
	}
}

#define JUMPS_BYTES (JUMP_CACHE_ENTRIES * 2 * sizeof(u64))

/* Tags included: no tag is equal to a host address, as the salt is in its upper bits. */
static u64 no_jump(struct vcpu *vcpu)
{
	return (u64)(uintptr_t)bt_of(vcpu)->cache->miss;
}

int cache_create_jumps(struct vcpu *vcpu)
{
	vcpu->jump_cache = host_table_create_of(JUMPS_BYTES, no_jump(vcpu));
	return vcpu->jump_cache ? 0 : -1;
}

void cache_destroy_jumps(struct vcpu *vcpu)
{
	if (vcpu->jump_cache)
		host_table_destroy(vcpu->jump_cache, JUMPS_BYTES);
	vcpu->jump_cache = NULL;
}

void cache_clear_jumps(struct vcpu *vcpu)
{
	host_table_discard_of(vcpu->jump_cache, JUMPS_BYTES, no_jump(vcpu));
}

/* What was fetched before of code that others overwrite is not executed. Intel SDM volume 3, "Serializing Instructions". */
static void serialize(void)
{
	u32 a = 0, c = 0;
	__asm__ volatile("cpuid" : "+a"(a), "+c"(c) : : "ebx", "edx", "memory");
}

void cache_obey(struct vcpu *vcpu)
{
	struct bt *bt = bt_of(vcpu);
	const struct bt_cache *c = bt->cache;
	u64 sweep = __atomic_load_n(&c->sweep, __ATOMIC_SEQ_CST);
	if (likely(sweep == bt->swept))
		return;
	const u8 *region = c->code.rx + (sweep & (BIT(SWEEP_SHIFT) - 1)) * BT_REGION_SIZE;
	if ((sweep >> SWEEP_SHIFT) - (bt->swept >> SWEEP_SHIFT) == 1)
		forget_jumps(vcpu, MAX(region, c->code.rx + c->stubs_size), region + BT_REGION_SIZE);
	else
		cache_clear_jumps(vcpu);
	if (c->users > 1)
		serialize();
	bt->entered = NOWHERE;
	__atomic_store_n(&bt->swept, sweep, __ATOMIC_SEQ_CST);
}

/* A vCPU that does not run obeys when it starts. */
static bool is_waited_for(struct vcpu *other, u64 sweep)
{
	return __atomic_load_n(&other->mmu->running, __ATOMIC_SEQ_CST) && __atomic_load_n(&bt_of(other)->swept, __ATOMIC_SEQ_CST) != sweep;
}

void cache_await(struct vcpu *vcpu)
{
	const struct ram *ram = vcpu->ram;
	u64 sweep = bt_of(vcpu)->cache->sweep;
	cache_obey(vcpu);
	for (unsigned i = 0; i < ram->users; i++)
		if (is_waited_for(ram->user[i], sweep))
			vcpu_set_pending(ram->user[i], PENDING_CODE);
	for (unsigned i = 0; i < ram->users; i++) {
		while (is_waited_for(ram->user[i], sweep)) {
			mmu_serve(vcpu);
			host_yield();
		}
	}
}

/* ---- code that others execute ---- */

static void patch(u8 *at, const void *bytes, unsigned size)
{
	u64 *word = (u64 *)((uintptr_t)at & ~7ull), value = *word;
	__builtin_memcpy((u8 *)&value + ((uintptr_t)at & 7), bytes, size);
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

void cache_patch_jump(u8 *field, const u8 *target)
{
	s32 distance = (s32)(target - (field + 4));
	if (cache_at_once(field))
		patch(field, &distance, sizeof(distance));
	else
		__builtin_memcpy(field, &distance, sizeof(distance)); /* nobody else is there to execute it */
}

void cache_shut(struct bt_cache *c, const struct bt_block *block)
{
	u8 jump[5] = { 0xe9 }, *at = bt_code(c, block) + block->prologue;
	s32 distance = (s32)(bt_rw(c, c->miss) - (at + sizeof(jump)));
	__builtin_memcpy(jump + 1, &distance, sizeof(distance));
	patch(at, jump, sizeof(jump));
}

void cache_open(struct bt_cache *c, const struct bt_block *block)
{
	patch(bt_code(c, block) + block->prologue, block->start, sizeof(block->start));
}
