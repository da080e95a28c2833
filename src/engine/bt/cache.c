/* Where translated code is kept, found and dropped.
 *
 * Blocks are found by guest physical address. The code area is a ring of regions, filled in turn; when one is to be filled again, its blocks
 * are forgotten and jumps chained to them go to their stubs again. A page that was written drops all its blocks, which only they jump to; the
 * prologue of each becomes a jump to the miss stub, for the jump cache may still know it. */
#include "engine/bt/emit.h"
#include "engine/bt/state.h"

/* After so many drops by writes a page counts as one of code and data. */
#define CHURN_MAX 12

static unsigned hash_of(gpa_t gpa)
{
	return (unsigned)(gpa * 0x9e3779b97f4a7c15 >> (64 - BT_HASH_BITS));
}

static unsigned page_hash_of(gpa_t gpa)
{
	return (unsigned)((gpa >> PAGE_SHIFT ^ gpa >> 23) & (BT_PAGE_HASH_SIZE - 1));
}

static struct bt_page *page_find(struct bt *bt, gpa_t gpa)
{
	struct bt_page *page = bt->page_hash[page_hash_of(gpa)];
	while (page && page->gpa != gpa)
		page = page->next;
	return page;
}

struct bt_page *cache_page(struct bt *bt, const struct translation *t)
{
	gpa_t gpa = t->gpa & PAGE_MASK;
	struct bt_page *page = page_find(bt, gpa);
	if (page)
		return page;
	page = host_alloc(sizeof(*page));
	if (!page)
		return NULL;
	struct bt_page **head = &bt->page_hash[page_hash_of(gpa)];
	*page = (struct bt_page){ .next = *head, .gpa = gpa, .generation = t->generation, .flags = t->flags };
	*head = page;
	return page;
}

struct bt_block *cache_find(struct bt *bt, gpa_t gpa)
{
	struct bt_block *block = bt->hash[hash_of(gpa)];
	while (block && block->gpa != gpa)
		block = block->next;
	return block;
}

void cache_publish(struct bt *bt, struct bt_block *block)
{
	struct bt_block **head = &bt->hash[hash_of(block->gpa)];
	block->next = *head;
	*head = block;
	block->page_next = block->page->blocks;
	block->page->blocks = block;
	bt->used[bt->region] += (block->size + 63u) & ~63u;
}

static void unlink_block(struct bt *bt, struct bt_block *block)
{
	struct bt_block **p = &bt->hash[hash_of(block->gpa)];
	while (*p && *p != block)
		p = &(*p)->next;
	if (*p)
		*p = block->next;
}

void cache_drop_page(struct bt *bt, struct bt_page *page)
{
	for (struct bt_block *block = page->blocks; block; block = block->page_next) {
		unlink_block(bt, block);
		block->page = NULL;
		struct emitter e = { (u8 *)block + block->prologue };
		emit_jump(&e, 0xe9, bt_rw(bt, bt->miss));
		bt->count[COUNT_DROPPED]++;
	}
	page->blocks = NULL;
	bt->epoch++;
}

/* ---- the ring of regions ---- */

static u8 *region_start(struct bt *bt, unsigned region)
{
	return bt->code.rw + (size_t)region * BT_REGION_SIZE;
}

/* Where blocks begin: after the stubs in region 0. */
static size_t region_first(const struct bt *bt, unsigned region)
{
	return region ? 0 : bt->stubs_size;
}

/* The jump cache forgets code in [from, to) of the executable mapping. */
static void forget_jumps(struct vcpu *vcpu, const u8 *from, const u8 *to)
{
	u64 *tags = vcpu->jump_cache, *codes = tags + JUMP_CACHE_ENTRIES;
	for (unsigned i = 0; i < JUMP_CACHE_ENTRIES; i++) {
		const u8 *code = (const u8 *)(uintptr_t)codes[i];
		if (code < from || code >= to)
			continue;
		tags[i] = 1;
		codes[i] = (u64)(uintptr_t)bt_of(vcpu)->miss;
	}
}

static bool lies_in(const void *p, const u8 *start)
{
	return (const u8 *)p - start >= 0 && (const u8 *)p - start < BT_REGION_SIZE;
}

/* Jumps of a block that stays, chained to code of the region, go to their stubs again. */
static void unchain(struct bt_block *block, const u8 *start)
{
	for (unsigned i = 0; i < block->links; i++) {
		u8 *field = (u8 *)block + block->link[i].field;
		s32 to;
		__builtin_memcpy(&to, field, sizeof(to));
		if (lies_in(field + 4 + to, start))
			emit_fix32(field, (u8 *)block + block->link[i].stub);
	}
}

/* The page forgets its blocks in the region. */
static void page_evict(struct bt *bt, struct bt_page *page, const u8 *start)
{
	struct bt_block **p = &page->blocks;
	if (page->swept == bt->sweep)
		return;
	page->swept = bt->sweep;
	while (*p) {
		if (lies_in(*p, start)) {
			unlink_block(bt, *p);
			*p = (*p)->page_next;
		} else {
			unchain(*p, start);
			p = &(*p)->page_next;
		}
	}
}

static void region_evict(struct vcpu *vcpu, unsigned region)
{
	struct bt *bt = bt_of(vcpu);
	size_t first = region_first(bt, region);
	u8 *start = region_start(bt, region);
	bt->sweep++;
	bt->epoch++;
	for (size_t at = first; at < bt->used[region];) {
		struct bt_block *block = (struct bt_block *)(void *)(start + at);
		if (block->page)
			page_evict(bt, block->page, start);
		at += (block->size + 63u) & ~63u;
	}
	forget_jumps(vcpu, bt_rx(bt, start + first), bt_rx(bt, start + BT_REGION_SIZE));
	bt->count[COUNT_EVICTED] += bt->used[region] > first;
	bt->used[region] = first;
}

u8 *cache_room(struct vcpu *vcpu)
{
	struct bt *bt = bt_of(vcpu);
	if (bt->used[bt->region] + BT_BLOCK_ROOM > BT_REGION_SIZE) {
		bt->region = (bt->region + 1) % BT_REGIONS;
		region_evict(vcpu, bt->region);
	}
	return region_start(bt, bt->region) + bt->used[bt->region];
}

struct bt_block *cache_block_of(struct bt *bt, const u8 *pc)
{
	size_t offset = (size_t)(pc - bt->code.rx);
	unsigned region = (unsigned)(offset / BT_REGION_SIZE);
	if (offset >= bt->code.size)
		return NULL;
	offset %= BT_REGION_SIZE;
	for (size_t at = region_first(bt, region); at < bt->used[region];) {
		struct bt_block *block = (struct bt_block *)(void *)(region_start(bt, region) + at);
		size_t size = (block->size + 63u) & ~63u;
		if (offset >= at && offset < at + size)
			return block;
		at += size;
	}
	return NULL;
}

void cache_clear_jumps(struct vcpu *vcpu)
{
	for (unsigned i = 0; i < JUMP_CACHE_ENTRIES; i++) {
		vcpu->jump_cache[i] = 1;
		vcpu->jump_cache[JUMP_CACHE_ENTRIES + i] = (u64)(uintptr_t)bt_of(vcpu)->miss;
	}
}

void cache_drop_all(struct vcpu *vcpu)
{
	struct bt *bt = bt_of(vcpu);
	for (unsigned i = 0; i < BT_PAGE_HASH_SIZE; i++)
		for (struct bt_page *page = bt->page_hash[i]; page; page = page->next)
			if (page->blocks)
				cache_drop_page(bt, page);
}

/* ---- writes to pages with code ---- */

static void page_written(struct bt *bt, struct bt_page *page)
{
	page->interpreted = 0;
	if (!page->blocks)
		return;
	cache_drop_page(bt, page);
	if (++page->churn < CHURN_MAX)
		return;
	page->mixed = true;
	__atomic_fetch_or(page->flags, PAGE_MIXED, __ATOMIC_SEQ_CST);
}

static void check_all_pages(struct bt *bt)
{
	for (unsigned i = 0; i < BT_PAGE_HASH_SIZE; i++)
		for (struct bt_page *page = bt->page_hash[i]; page; page = page->next)
			if (page->blocks && page->seen != __atomic_load_n(page->generation, __ATOMIC_SEQ_CST))
				page_written(bt, page);
}

void cache_follow_log(struct vcpu *vcpu)
{
	struct bt *bt = bt_of(vcpu);
	struct ram *ram = vcpu->ram;
	u64 end = __atomic_load_n(&ram->code_logged, __ATOMIC_SEQ_CST);
	const u64 number_mask = BIT(40) - 1;
	if (end - bt->logged >= CODE_LOG_SIZE / 2) {
		check_all_pages(bt);
		bt->logged = end;
	}
	for (; bt->logged != end; bt->logged++) {
		u64 entry = __atomic_load_n(&ram->code_log[bt->logged % CODE_LOG_SIZE], __ATOMIC_SEQ_CST);
		if (entry >> 40 != (bt->logged & (BIT(24) - 1))) {
			check_all_pages(bt);
			continue;
		}
		struct bt_page *page = page_find(bt, (entry & number_mask) << PAGE_SHIFT);
		if (page)
			page_written(bt, page);
	}
}
