/* Where translated code is kept, found and dropped. How vCPUs share it is told in cache.h and done in shared.c.
 *
 * Blocks are found by guest physical address. The code area is a ring of regions, filled in turn: code from below, records from above. When
 * one is to be filled again, its blocks are forgotten and jumps chained to them go to their stubs again. Only blocks of the same page jump to a
 * block. The prologue of one that is dropped becomes a jump to the miss stub, for jump caches may still know it. */
#include "engine/bt/emit.h"
#include "engine/bt/state.h"

static u32 tag_of(gpa_t gpa, u16 key)
{
	return (u32)((gpa ^ (u64)key << 48) * 0x9e3779b97f4a7c15 >> 32);
}

static unsigned home_of(const struct bt_cache *c, u32 tag)
{
	return tag >> (32 - c->hash_bits);
}

static unsigned hash_size(const struct bt_cache *c)
{
	return 1u << c->hash_bits;
}

static u64 hash_bytes(const struct bt_cache *c)
{
	return hash_size(c) * sizeof(struct bt_slot);
}

#define PAGES_BYTES ((BT_PAGES * sizeof(struct bt_page) + PAGE_SIZE - 1) & PAGE_MASK)
#define WANTED_BYTES ((BT_WANTED_SIZE * sizeof(struct bt_wanted) + PAGE_SIZE - 1) & PAGE_MASK)

static unsigned slot_after(const struct bt_cache *c, unsigned slot)
{
	return (slot + 1) & (hash_size(c) - 1);
}

static unsigned page_hash_of(gpa_t gpa)
{
	return (unsigned)((gpa >> PAGE_SHIFT ^ gpa >> 23) & (BT_PAGE_HASH_SIZE - 1));
}

/* ---- pages ---- */

struct bt_page *cache_page_find(struct bt_cache *c, gpa_t gpa)
{
	struct bt_page *page = c->page_hash[page_hash_of(gpa)];
	while (page && page->gpa != gpa)
		page = page->next;
	return page;
}

static void page_forget(struct bt_cache *c, struct bt_page *page)
{
	struct bt_page **p = &c->page_hash[page_hash_of(page->gpa)];
	while (*p != page)
		p = &(*p)->next;
	*p = page->next;
	if (page->copy)
		c->copy_of[page->copy] = NULL;
	*page = (struct bt_page){ .next = c->page_free };
	c->page_free = page;
}

/* Those without blocks, of which only the history is known, are forgotten. */
static void forget_idle(struct bt_cache *c)
{
	for (unsigned i = 0; i < c->pages; i++)
		if (c->page[i].generation && !c->page[i].blocks && !c->page[i].mixed)
			page_forget(c, &c->page[i]);
}

static struct bt_page *page_take(struct bt_cache *c)
{
	if (c->pages < BT_PAGES)
		return &c->page[c->pages++];
	if (!c->page_free)
		forget_idle(c);
	if (!c->page_free) {
		cache_drop_all(c);
		forget_idle(c);
	}
	struct bt_page *page = c->page_free;
	if (page)
		c->page_free = page->next;
	return page;
}

struct bt_page *cache_page(struct bt_cache *c, const struct translation *t)
{
	gpa_t gpa = t->gpa & PAGE_MASK;
	struct bt_page *page = cache_page_find(c, gpa);
	if (page)
		return page;
	page = page_take(c);
	if (!page)
		return NULL;
	struct bt_page **head = &c->page_hash[page_hash_of(gpa)];
	*page = (struct bt_page){ .next = *head, .gpa = gpa, .generation = t->generation, .flags = t->flags };
	*head = page;
	return page;
}

/* ---- blocks ---- */

static struct bt_block *find_from(struct bt_cache *c, unsigned slot, gpa_t gpa, u16 key)
{
	u32 tag = tag_of(gpa, key);
	for (; c->hash[slot].place; slot = slot_after(c, slot)) {
		if (c->hash[slot].tag != tag)
			continue;
		struct bt_block *block = bt_block_at(c, c->hash[slot].place);
		if (bt_gpa(block) == gpa && block->key == key)
			return block;
	}
	return NULL;
}

static unsigned slot_of(struct bt_cache *c, const struct bt_block *block)
{
	u32 place = bt_place(c, block);
	unsigned slot = home_of(c, tag_of(bt_gpa(block), block->key));
	while (c->hash[slot].place != place)
		slot = slot_after(c, slot);
	return slot;
}

struct bt_block *cache_find(struct bt_cache *c, gpa_t gpa, u16 key)
{
	return find_from(c, home_of(c, tag_of(gpa, key)), gpa, key);
}

struct bt_block *cache_find_next(struct bt_cache *c, const struct bt_block *block, gpa_t gpa)
{
	return find_from(c, slot_after(c, slot_of(c, block)), gpa, block->key);
}

static void hash_insert(struct bt_cache *c, const struct bt_block *block)
{
	u32 tag = tag_of(bt_gpa(block), block->key);
	unsigned slot = home_of(c, tag);
	while (c->hash[slot].place)
		slot = slot_after(c, slot);
	c->hash[slot] = (struct bt_slot){ .tag = tag, .place = bt_place(c, block) };
	c->blocks++;
}

/* What lies behind the slot that gets free moves up if its search would end there. */
static void hash_remove(struct bt_cache *c, const struct bt_block *block)
{
	unsigned free = slot_of(c, block);
	for (unsigned slot = slot_after(c, free); c->hash[slot].place; slot = slot_after(c, slot)) {
		unsigned home = home_of(c, c->hash[slot].tag);
		if (((slot - home) & (hash_size(c) - 1)) < ((slot - free) & (hash_size(c) - 1)))
			continue;
		c->hash[free] = c->hash[slot];
		free = slot;
	}
	c->hash[free].place = 0;
	c->blocks--;
}

void cache_drop_block(struct bt_cache *c, struct bt_block *block)
{
	hash_remove(c, block);
	__atomic_store_n(&block->page, NULL, __ATOMIC_RELEASE);
	cache_shut(c, block);
	c->holder->count[COUNT_DROPPED]++;
	cache_changed(c);
}

void cache_drop_page(struct bt_cache *c, struct bt_page *page)
{
	for (struct bt_block *block = bt_block_at(c, page->blocks); block; block = bt_block_at(c, block->page_next))
		cache_drop_block(c, block);
	page->blocks = 0;
	__atomic_store_n(&page->stale, false, __ATOMIC_RELAXED);
}

void cache_link(struct bt_cache *c, struct bt_block *block, unsigned link, struct bt_block *to)
{
	if (c->unchained)
		return;
	block->link[link].to = bt_place(c, to);
	cache_patch_jump(bt_code(c, block) + block->link[link].field, bt_body(c, to));
}

void cache_unlink(struct bt_cache *c, struct bt_block *block, unsigned link)
{
	block->link[link].to = 0;
	cache_patch_jump(bt_code(c, block) + block->link[link].field, bt_code(c, block) + block->link[link].stub);
}

/* ---- the ring of regions ---- */

/* Where code begins: after the stubs in region 0. */
static u32 region_first(const struct bt_cache *c, unsigned region)
{
	return region ? 0 : c->stubs_size;
}

static unsigned region_of(u32 place)
{
	return place / BT_REGION_SIZE;
}

/* Jumps of a block that stays, chained to code of the region, go to their stubs again. */
static void unchain(struct bt_cache *c, struct bt_block *block, unsigned region)
{
	for (unsigned i = 0; i < block->links; i++) {
		if (!block->link[i].to || region_of(block->link[i].to) != region)
			continue;
		cache_unlink(c, block, i);
	}
}

static u32 next_sweep(const struct bt_cache *c)
{
	return (u32)(c->sweep >> SWEEP_SHIFT) + 1;
}

/* The page forgets its blocks in the region. */
static void page_evict(struct bt_cache *c, struct bt_page *page, unsigned region)
{
	u32 *p = &page->blocks;
	if (page->swept == next_sweep(c))
		return;
	page->swept = next_sweep(c);
	while (*p) {
		struct bt_block *block = bt_block_at(c, *p);
		if (region_of(*p) == region) {
			hash_remove(c, block);
			*p = block->page_next;
		} else {
			unchain(c, block, region);
			p = &block->page_next;
		}
	}
}

static struct bt_block *region_top(const struct bt_cache *c, unsigned region)
{
	return bt_block_at(c, (region + 1) * BT_REGION_SIZE - (u32)sizeof(struct bt_block));
}

/* The record made after this one: below its map. */
static struct bt_block *record_after(struct bt_block *block)
{
	size_t map = (block->map_size * sizeof(struct bt_map_entry) + 7) & ~7ull;
	return (struct bt_block *)(void *)((u8 *)block - map) - 1;
}

/* Nothing leads to the region's blocks any more, but for jump caches and what vCPUs are in the midst of. */
static void region_forget(struct bt_cache *c, unsigned region)
{
	u32 start = region * BT_REGION_SIZE;
	const struct bt_block *end = bt_block_at(c, start + c->records[region]);
	for (struct bt_block *block = region_top(c, region); block >= end; block = record_after(block))
		if (block->page)
			page_evict(c, block->page, region);
}

static void region_evict(struct vcpu *vcpu, unsigned region)
{
	struct bt_cache *c = bt_of(vcpu)->cache;
	if (c->used[region] == region_first(c, region))
		return;
	region_forget(c, region);
	__atomic_store_n(&c->sweep, (u64)next_sweep(c) << SWEEP_SHIFT | region, __ATOMIC_SEQ_CST);
	cache_await(vcpu);
	c->holder->count[COUNT_EVICTED]++;
	c->used[region] = region_first(c, region);
	__atomic_store_n(&c->records[region], BT_REGION_SIZE, __ATOMIC_RELAXED);
	__builtin_memset(c->chunk[region], 0, sizeof(c->chunk[region]));
}

struct bt_block *cache_begin(struct vcpu *vcpu, struct bt_page *page, gpa_t gpa, u16 key)
{
	struct bt_cache *c = bt_of(vcpu)->cache;
	while (c->used[c->region] + BT_BLOCK_ROOM > c->records[c->region] || c->blocks >= hash_size(c) / 4 * 3) {
		c->region = (c->region + 1) % c->regions;
		region_evict(vcpu, c->region);
	}
	u32 start = c->region * BT_REGION_SIZE;
	struct bt_block *block = bt_block_at(c, start + c->records[c->region]) - 1;
	*block = (struct bt_block){ .page = page, .code = start + c->used[c->region], .offset = (u16)(gpa & ~PAGE_MASK), .lines = ~0u, .key = key };
	return block;
}

void cache_publish(struct bt_cache *c, struct bt_block *block, const u8 *end)
{
	u32 place = bt_place(c, block), start = c->region * BT_REGION_SIZE;
	u32 *chunk = &c->chunk[c->region][(block->code - start) / BT_CHUNK_SIZE];
	block->size = (u16)(end - bt_code(c, block));
	hash_insert(c, block);
	block->page_next = block->page->blocks;
	block->page->blocks = place;
	c->used[c->region] = (block->code - start + block->size + 7u) & ~7u;
	__atomic_store_n(&c->records[c->region], bt_place(c, record_after(block) + 1) - start, __ATOMIC_RELEASE);
	if (!*chunk)
		__atomic_store_n(chunk, place, __ATOMIC_RELEASE);
}

/* Pages without blocks, none of which is kept in the copies, move to the front if there is more to know of them. */
static void pages_compact(struct bt_cache *c)
{
	unsigned kept = 0;
	__builtin_memset(c->page_hash, 0, sizeof(c->page_hash));
	__builtin_memset(c->copy_of, 0, sizeof(c->copy_of));
	for (unsigned i = 0; i < c->pages; i++) {
		if (!c->page[i].generation || !c->page[i].mixed)
			continue;
		struct bt_page *page = &c->page[kept++], **head = &c->page_hash[page_hash_of(c->page[i].gpa)];
		*page = c->page[i];
		page->copy = 0;
		page->next = *head;
		*head = page;
	}
	c->page_free = NULL;
	c->pages = kept;
}

static u64 pages_up(u64 size)
{
	return (size + PAGE_SIZE - 1) & PAGE_MASK;
}

void cache_rest(struct vcpu *vcpu)
{
	struct bt_cache *c = bt_of(vcpu)->cache;
	for (unsigned i = 0; i < c->regions; i++)
		region_evict(vcpu, i);
	c->region = 0;
	cache_changed(c);
	pages_compact(c);
	u64 pages = pages_up(c->pages * sizeof(*c->page)), stubs = pages_up(c->stubs_size);
	host_table_discard((u8 *)c->page + pages, PAGES_BYTES - pages);
	host_table_discard(c->wanted, WANTED_BYTES);
	host_table_discard(c->copy, BT_COPIES * PAGE_SIZE);
	host_table_discard(c->hash, hash_bytes(c));
	host_code_discard(&c->code, stubs, c->code.size - stubs);
}

struct bt_block *cache_of_prologue(const struct bt_cache *c, const u8 *prologue)
{
	u32 place;
	__builtin_memcpy(&place, prologue - sizeof(place), sizeof(place));
	return bt_block_at(c, place);
}

/* ---- life ---- */

/* Large programs need room (60 MiB hold all of a C compiler's code, and less means to translate it over and over), but beside a guest of
 * 512 MiB all of the VMM is to take 32 MiB at most. */
static unsigned regions_for(const struct ram *ram)
{
	return (unsigned)(translation_budget(ram, (u64)BT_REGIONS_MAX * BT_REGION_SIZE) / BT_REGION_SIZE);
}

int cache_create(struct bt_cache *c, const struct ram *ram)
{
	c->regions = regions_for(ram);
	while (hash_size(c) < c->regions * BT_REGION_SLOTS)
		c->hash_bits++;
	c->hash = host_table_create(hash_bytes(c));
	c->copy = host_table_create(BT_COPIES * PAGE_SIZE);
	c->page = host_table_create(PAGES_BYTES);
	c->wanted = host_table_create(WANTED_BYTES);
	if (!c->hash || !c->copy || !c->page || !c->wanted || host_code_create(&c->code, (size_t)c->regions * BT_REGION_SIZE))
		return -1;
	c->used[0] = c->stubs_size = stubs_emit(c);
	for (unsigned i = 0; i < c->regions; i++)
		c->records[i] = BT_REGION_SIZE;
	return 0;
}

void cache_destroy(struct bt_cache *c)
{
	if (c->hash)
		host_table_destroy(c->hash, hash_bytes(c));
	if (c->copy)
		host_table_destroy(c->copy, BT_COPIES * PAGE_SIZE);
	if (c->page)
		host_table_destroy(c->page, PAGES_BYTES);
	if (c->wanted)
		host_table_destroy(c->wanted, WANTED_BYTES);
	if (c->code.rw)
		host_code_destroy(&c->code);
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

/* The lock is not held: what others add meanwhile is not what is looked for. */
static struct bt_block *block_of(struct bt_cache *c, u32 place)
{
	unsigned region = region_of(place);
	u32 start = region * BT_REGION_SIZE, chunk = (place - start) / BT_CHUNK_SIZE, first;
	const struct bt_block *end = bt_block_at(c, start + __atomic_load_n(&c->records[region], __ATOMIC_ACQUIRE));
	do {
		first = __atomic_load_n(&c->chunk[region][chunk], __ATOMIC_ACQUIRE);
	} while ((!first || bt_block_at(c, first)->code > place) && chunk--);
	struct bt_block *block = bt_block_at(c, first);
	for (; block && block >= end && block->code <= place; block = record_after(block))
		if (place - block->code < block->size)
			return block;
	return NULL;
}

bool cache_insn_at(struct bt_cache *c, const u8 *pc, u16 *offset)
{
	size_t place = (size_t)(pc - c->code.rx);
	struct bt_block *block = place < c->code.size ? block_of(c, (u32)place) : NULL;
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

void cache_drop_all(struct bt_cache *c)
{
	for (unsigned i = 0; i < BT_PAGE_HASH_SIZE; i++)
		for (struct bt_page *page = c->page_hash[i]; page; page = page->next)
			if (page->blocks)
				cache_drop_page(c, page);
}
