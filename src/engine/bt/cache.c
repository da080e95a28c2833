/* Where translated code is kept, found and dropped.
 *
 * Blocks are found by guest physical address. The code area is a ring of regions, filled in turn: code from below, records from above. When
 * one is to be filled again, its blocks are forgotten and jumps chained to them go to their stubs again. Only blocks of the same page jump to a
 * block. The prologue of one that is dropped becomes a jump to the miss stub, for the jump cache may still know it. */
#include "engine/bt/emit.h"
#include "engine/bt/state.h"

static u32 tag_of(gpa_t gpa, u16 key)
{
	return (u32)((gpa ^ (u64)key << 48) * 0x9e3779b97f4a7c15 >> 32);
}

static unsigned home_of(const struct bt *bt, u32 tag)
{
	return tag >> (32 - bt->hash_bits);
}

static unsigned hash_size(const struct bt *bt)
{
	return 1u << bt->hash_bits;
}

static unsigned slot_after(const struct bt *bt, unsigned slot)
{
	return (slot + 1) & (hash_size(bt) - 1);
}

static unsigned page_hash_of(gpa_t gpa)
{
	return (unsigned)((gpa >> PAGE_SHIFT ^ gpa >> 23) & (BT_PAGE_HASH_SIZE - 1));
}

/* ---- pages ---- */

struct bt_page *cache_page_find(struct bt *bt, gpa_t gpa)
{
	struct bt_page *page = bt->page_hash[page_hash_of(gpa)];
	while (page && page->gpa != gpa)
		page = page->next;
	return page;
}

static void page_forget(struct bt *bt, struct bt_page *page)
{
	struct bt_page **p = &bt->page_hash[page_hash_of(page->gpa)];
	while (*p != page)
		p = &(*p)->next;
	*p = page->next;
	if (page->copy)
		bt->copy_of[page->copy] = NULL;
	*page = (struct bt_page){ .next = bt->page_free };
	bt->page_free = page;
}

/* Those without blocks, of which only the history is known, are forgotten. */
static void forget_idle(struct bt *bt)
{
	for (unsigned i = 0; i < bt->pages; i++)
		if (bt->page[i].generation && !bt->page[i].blocks && !bt->page[i].mixed)
			page_forget(bt, &bt->page[i]);
}

static struct bt_page *page_take(struct vcpu *vcpu)
{
	struct bt *bt = bt_of(vcpu);
	if (bt->pages < BT_PAGES)
		return &bt->page[bt->pages++];
	if (!bt->page_free)
		forget_idle(bt);
	if (!bt->page_free) {
		cache_drop_all(vcpu);
		forget_idle(bt);
	}
	struct bt_page *page = bt->page_free;
	if (page)
		bt->page_free = page->next;
	return page;
}

struct bt_page *cache_page(struct vcpu *vcpu, const struct translation *t)
{
	struct bt *bt = bt_of(vcpu);
	gpa_t gpa = t->gpa & PAGE_MASK;
	struct bt_page *page = cache_page_find(bt, gpa);
	if (page)
		return page;
	page = page_take(vcpu);
	if (!page)
		return NULL;
	struct bt_page **head = &bt->page_hash[page_hash_of(gpa)];
	*page = (struct bt_page){ .next = *head, .gpa = gpa, .generation = t->generation, .flags = t->flags };
	*head = page;
	return page;
}

/* ---- blocks ---- */

static struct bt_block *find_from(struct bt *bt, unsigned slot, gpa_t gpa, u16 key)
{
	u32 tag = tag_of(gpa, key);
	for (; bt->hash[slot].place; slot = slot_after(bt, slot)) {
		if (bt->hash[slot].tag != tag)
			continue;
		struct bt_block *block = bt_block_at(bt, bt->hash[slot].place);
		if (bt_gpa(block) == gpa && block->key == key)
			return block;
	}
	return NULL;
}

static unsigned slot_of(struct bt *bt, const struct bt_block *block)
{
	u32 place = bt_place(bt, block);
	unsigned slot = home_of(bt, tag_of(bt_gpa(block), block->key));
	while (bt->hash[slot].place != place)
		slot = slot_after(bt, slot);
	return slot;
}

struct bt_block *cache_find(struct bt *bt, gpa_t gpa, u16 key)
{
	return find_from(bt, home_of(bt, tag_of(gpa, key)), gpa, key);
}

struct bt_block *cache_find_next(struct bt *bt, const struct bt_block *block, gpa_t gpa)
{
	return find_from(bt, slot_after(bt, slot_of(bt, block)), gpa, block->key);
}

static void hash_insert(struct bt *bt, const struct bt_block *block)
{
	u32 tag = tag_of(bt_gpa(block), block->key);
	unsigned slot = home_of(bt, tag);
	while (bt->hash[slot].place)
		slot = slot_after(bt, slot);
	bt->hash[slot] = (struct bt_slot){ .tag = tag, .place = bt_place(bt, block) };
	bt->blocks++;
}

/* What lies behind the slot that gets free moves up if its search would end there. */
static void hash_remove(struct bt *bt, const struct bt_block *block)
{
	unsigned free = slot_of(bt, block);
	for (unsigned slot = slot_after(bt, free); bt->hash[slot].place; slot = slot_after(bt, slot)) {
		unsigned home = home_of(bt, bt->hash[slot].tag);
		if (((slot - home) & (hash_size(bt) - 1)) < ((slot - free) & (hash_size(bt) - 1)))
			continue;
		bt->hash[free] = bt->hash[slot];
		free = slot;
	}
	bt->hash[free].place = 0;
	bt->blocks--;
}

void cache_drop_block(struct bt *bt, struct bt_block *block)
{
	struct emitter e = { bt_code(bt, block) + block->prologue };
	hash_remove(bt, block);
	block->page = NULL;
	emit_jump(&e, 0xe9, bt_rw(bt, bt->miss));
	bt->count[COUNT_DROPPED]++;
	bt->epoch++;
}

void cache_drop_page(struct bt *bt, struct bt_page *page)
{
	for (struct bt_block *block = bt_block_at(bt, page->blocks); block; block = bt_block_at(bt, block->page_next))
		cache_drop_block(bt, block);
	page->blocks = 0;
	page->stale = false;
}

void cache_link(struct bt *bt, struct bt_block *block, unsigned link, struct bt_block *to)
{
	if (bt->unchained)
		return;
	block->link[link].to = bt_place(bt, to);
	emit_fix32(bt_code(bt, block) + block->link[link].field, bt_body(bt, to));
}

void cache_unlink(struct bt *bt, struct bt_block *block, unsigned link)
{
	block->link[link].to = 0;
	emit_fix32(bt_code(bt, block) + block->link[link].field, bt_code(bt, block) + block->link[link].stub);
}

/* ---- the ring of regions ---- */

/* Where code begins: after the stubs in region 0. */
static u32 region_first(const struct bt *bt, unsigned region)
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

static unsigned region_of(u32 place)
{
	return place / BT_REGION_SIZE;
}

/* Jumps of a block that stays, chained to code of the region, go to their stubs again. */
static void unchain(struct bt *bt, struct bt_block *block, unsigned region)
{
	for (unsigned i = 0; i < block->links; i++) {
		if (!block->link[i].to || region_of(block->link[i].to) != region)
			continue;
		cache_unlink(bt, block, i);
	}
}

/* The page forgets its blocks in the region. */
static void page_evict(struct bt *bt, struct bt_page *page, unsigned region)
{
	u32 *p = &page->blocks;
	if (page->swept == bt->sweep)
		return;
	page->swept = bt->sweep;
	while (*p) {
		struct bt_block *block = bt_block_at(bt, *p);
		if (region_of(*p) == region) {
			hash_remove(bt, block);
			*p = block->page_next;
		} else {
			unchain(bt, block, region);
			p = &block->page_next;
		}
	}
}

static struct bt_block *region_top(const struct bt *bt, unsigned region)
{
	return bt_block_at(bt, (region + 1) * BT_REGION_SIZE - (u32)sizeof(struct bt_block));
}

/* The record made after this one: below its map. */
static struct bt_block *record_after(struct bt_block *block)
{
	size_t map = (block->map_size * sizeof(struct bt_map_entry) + 7) & ~7ull;
	return (struct bt_block *)(void *)((u8 *)block - map) - 1;
}

static void region_evict(struct vcpu *vcpu, unsigned region)
{
	struct bt *bt = bt_of(vcpu);
	u32 start = region * BT_REGION_SIZE, first = start + region_first(bt, region);
	const struct bt_block *end = bt_block_at(bt, start + bt->records[region]);
	bt->sweep++;
	bt->epoch++;
	for (struct bt_block *block = region_top(bt, region); block >= end; block = record_after(block))
		if (block->page)
			page_evict(bt, block->page, region);
	forget_jumps(vcpu, bt->code.rx + first, bt->code.rx + start + BT_REGION_SIZE);
	bt->count[COUNT_EVICTED] += bt->used[region] > region_first(bt, region);
	bt->used[region] = region_first(bt, region);
	bt->records[region] = BT_REGION_SIZE;
	__builtin_memset(bt->chunk[region], 0, sizeof(bt->chunk[region]));
}

struct bt_block *cache_begin(struct vcpu *vcpu, struct bt_page *page, gpa_t gpa, u16 key)
{
	struct bt *bt = bt_of(vcpu);
	while (bt->used[bt->region] + BT_BLOCK_ROOM > bt->records[bt->region] || bt->blocks >= hash_size(bt) / 4 * 3) {
		bt->region = (bt->region + 1) % bt->regions;
		region_evict(vcpu, bt->region);
	}
	u32 start = bt->region * BT_REGION_SIZE;
	struct bt_block *block = bt_block_at(bt, start + bt->records[bt->region]) - 1;
	*block = (struct bt_block){ .page = page, .code = start + bt->used[bt->region], .offset = (u16)(gpa & ~PAGE_MASK), .lines = ~0u, .key = key };
	return block;
}

void cache_publish(struct bt *bt, struct bt_block *block, const u8 *end)
{
	u32 place = bt_place(bt, block), start = bt->region * BT_REGION_SIZE;
	u32 *chunk = &bt->chunk[bt->region][(block->code - start) / BT_CHUNK_SIZE];
	block->size = (u16)(end - bt_code(bt, block));
	hash_insert(bt, block);
	block->page_next = block->page->blocks;
	block->page->blocks = place;
	if (!*chunk)
		*chunk = place;
	bt->used[bt->region] = (block->code - start + block->size + 7u) & ~7u;
	bt->records[bt->region] = bt_place(bt, record_after(block) + 1) - start;
}

struct bt_block *cache_of_prologue(struct bt *bt, const u8 *prologue)
{
	u32 place;
	__builtin_memcpy(&place, prologue - sizeof(place), sizeof(place));
	return bt_block_at(bt, place);
}

/* ---- life ---- */

/* Large programs need room (60 MiB hold all of a C compiler's code, and less means to translate it over and over), but beside a guest of
 * 512 MiB all of the VMM is to take 32 MiB at most. */
static unsigned regions_for(const struct ram *ram)
{
	return (unsigned)(translation_budget(ram, (u64)BT_REGIONS_MAX * BT_REGION_SIZE) / BT_REGION_SIZE);
}

static u64 hash_bytes(const struct bt *bt)
{
	return hash_size(bt) * sizeof(struct bt_slot);
}

int cache_create(struct bt *bt, const struct ram *ram)
{
	unsigned regions = regions_for(ram);
	while (hash_size(bt) < regions * BT_REGION_SLOTS)
		bt->hash_bits++;
	bt->hash = host_table_create(hash_bytes(bt));
	bt->copy = host_table_create(BT_COPIES * PAGE_SIZE);
	if (!bt->hash || !bt->copy || host_code_create(&bt->code, (size_t)regions * BT_REGION_SIZE))
		return -1;
	bt->used[0] = bt->stubs_size = stubs_emit(bt);
	for (unsigned i = 0; i < regions; i++)
		bt->records[i] = BT_REGION_SIZE;
	return 0;
}

void cache_destroy(struct bt *bt)
{
	if (bt->hash)
		host_table_destroy(bt->hash, hash_bytes(bt));
	if (bt->copy)
		host_table_destroy(bt->copy, BT_COPIES * PAGE_SIZE);
	if (bt->code.rw)
		host_code_destroy(&bt->code);
}

/* Several vCPUs together get up to twice as much as one. */
void cache_start(struct bt *bt, const struct ram *ram)
{
	bt->regions = MAX(2 * regions_for(ram) / (ram->users + 1), 4u);
}

/* ---- from host code to guest code ---- */

static struct bt_map_entry *map_entry(struct bt_block *block, unsigned i)
{
	return (struct bt_map_entry *)block - 1 - i;
}

void cache_map(struct bt_block *block, unsigned host, unsigned guest, bool saved)
{
	for (; host >= MAP_FAR; host -= MAP_FAR)
		*map_entry(block, block->map_size++) = (struct bt_map_entry){ .host = MAP_FAR };
	*map_entry(block, block->map_size++) = (struct bt_map_entry){ .host = (u8)host, .guest = (u8)(guest | (saved ? MAP_SAVED : 0)) };
}

static struct bt_block *block_of(struct bt *bt, u32 place)
{
	unsigned region = region_of(place);
	u32 start = region * BT_REGION_SIZE, chunk = (place - start) / BT_CHUNK_SIZE;
	const struct bt_block *end = bt_block_at(bt, start + bt->records[region]);
	while (chunk && (!bt->chunk[region][chunk] || bt_block_at(bt, bt->chunk[region][chunk])->code > place))
		chunk--;
	struct bt_block *block = bt_block_at(bt, bt->chunk[region][chunk]);
	for (; block && block >= end && block->code <= place; block = record_after(block))
		if (place - block->code < block->size)
			return block;
	return NULL;
}

bool cache_insn_at(struct bt *bt, const u8 *pc, u16 *offset)
{
	size_t place = (size_t)(pc - bt->code.rx);
	struct bt_block *block = place < bt->code.size ? block_of(bt, (u32)place) : NULL;
	if (!block)
		return false;
	unsigned host = (unsigned)place - block->code, at = 0;
	bool found = false;
	*offset = block->offset;
	for (unsigned i = 0; i < block->map_size; i++) {
		const struct bt_map_entry *entry = map_entry(block, i);
		at += entry->host;
		if (at > host)
			break;
		if (entry->host == MAP_FAR)
			continue;
		found = true;
		*offset = (u16)((*offset & ~(MAP_SAVED << 8)) + (entry->guest & ~MAP_SAVED)) | (u16)((entry->guest & MAP_SAVED) << 8);
	}
	return found;
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
