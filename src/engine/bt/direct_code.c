/* The translated code of a space: where it is kept, how it is found and dropped. The code area is filled from its start; when it is full,
 * all is dropped. A dropped block stays in its place and leads away, or on to the block that follows it at the same address. */
#include "engine/bt/direct.h"

/* ---- pools ---- */

void *pool_at(struct pool *pool, u32 index, size_t size)
{
	return pool->chunk[index / POOL_CHUNK] + index % POOL_CHUNK * size;
}

u32 pool_add(struct pool *pool, size_t size)
{
	u8 **chunk = &pool->chunk[pool->used / POOL_CHUNK];
	if (pool->used == POOL_CHUNK * POOL_CHUNKS)
		return ~0u;
	if (!*chunk)
		*chunk = host_alloc(POOL_CHUNK * size);
	if (!*chunk)
		return ~0u;
	__builtin_memset(pool_at(pool, pool->used, size), 0, size);
	return pool->used++;
}

static void pool_destroy(struct pool *pool)
{
	for (unsigned i = 0; i < POOL_CHUNKS; i++)
		host_free(pool->chunk[i]);
}

void code_destroy(struct direct_space *s)
{
	pool_destroy(&s->blocks);
	pool_destroy(&s->pages);
	pool_destroy(&s->maps);
	pool_destroy(&s->sites);
}

/* ---- finding ---- */

static u32 *hash_head(struct direct_space *s, u64 rip)
{
	return &s->hash[(u32)rip * 0x9e3779b1u >> (32 - DIRECT_HASH_BITS)];
}

u32 code_block_index(struct direct_space *s, u64 rip)
{
	for (u32 i = *hash_head(s, rip); i; i = block_at(s, i - 1)->next)
		if (block_at(s, i - 1)->rip == rip)
			return i - 1;
	return ~0u;
}

struct direct_block *code_find(struct direct_space *s, u64 rip)
{
	u32 index = code_block_index(s, rip);
	struct direct_block *block = index == ~0u ? NULL : block_at(s, index);
	return block && block->live ? block : NULL;
}

/* Blocks lie in the order of their numbers. */
struct direct_block *code_at(struct direct_space *s, u64 pc, struct direct_map *map)
{
	u64 offset = pc - code_address(s, 0);
	u32 low = 0, high = s->blocks.used;
	if (offset >= s->used)
		return NULL;
	while (low < high) {
		u32 middle = (low + high) / 2;
		if (block_at(s, middle)->end <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	struct direct_block *block = low < s->blocks.used ? block_at(s, low) : NULL;
	if (!block || offset < block->body || !block->maps)
		return NULL;
	u32 i = block->maps;
	while (i > 1 && map_at(s, block->first_map + i - 1)->host > offset - block->body)
		i--;
	*map = *map_at(s, block->first_map + i - 1);
	return block;
}

/* ---- the tables of computed jumps ---- */

static u32 second_hash(u64 rip)
{
	return (u32)rip * 0x9e3779b1u >> (32 - SECOND_BITS);
}

static void clear_tables(struct direct_space *s)
{
	u64 *first = (u64 *)(void *)s->host->tables, miss = code_address(s, s->second);
	for (unsigned i = 0; i < FIRST_ENTRIES; i++)
		first[i] = miss;
	__builtin_memset(first + FIRST_ENTRIES, 0, SECOND_ENTRIES * 16);
	s->second_used = 0;
}

void code_enter_tables(struct direct_space *s, const struct direct_block *block)
{
	u64 *first = (u64 *)(void *)s->host->tables, (*second)[2] = (u64(*)[2])(void *)(first + FIRST_ENTRIES);
	if (s->second_used >= SECOND_ENTRIES * 3 / 4)
		clear_tables(s);
	u32 i = second_hash(block->rip);
	while (second[i][0] && second[i][0] != block->rip)
		i = (i + 1) % SECOND_ENTRIES;
	s->second_used += !second[i][0];
	second[i][1] = code_address(s, block->poll);
	second[i][0] = block->rip;
	first[block->rip & (FIRST_ENTRIES - 1)] = code_address(s, block->entry);
}

/* ---- pages ---- */

static u32 *page_head(struct direct_space *s, u64 gva)
{
	return &s->page_hash[(gva >> PAGE_SHIFT) % ARRAY_SIZE(s->page_hash)];
}

static u8 *code_rw(struct direct_space *s, u32 offset)
{
	return s->code.rw + offset;
}

static void patch_jump(struct direct_space *s, u32 at, u32 to)
{
	struct emitter e = { code_rw(s, at) };
	emit_jump(&e, 0xe9, code_rw(s, to));
}

static void drop_page(struct vcpu *vcpu, struct direct_space *s, struct direct_page *page)
{
	for (u32 i = page->blocks; i;) {
		struct direct_block *block = block_at(s, i - 1);
		if (block->live)
			patch_jump(s, block->body, block->away);
		block->live = false;
		i = block->page_next[page_at(s, block->page[0] - 1) != page];
	}
	direct_of(vcpu)->count[DIRECT_PAGES_DROPPED] += page->blocks != 0;
	page->blocks = 0;
}

struct direct_page *code_page(struct vcpu *vcpu, struct direct_space *s, u64 gva, bool *no_code)
{
	struct translation t;
	u32 *head = page_head(s, gva), i = *head;
	if (gva >= HOST_SPACE_END) {
		*no_code = true;
		return NULL;
	}
	if (!mmu_translate(vcpu, gva, ACCESS_EXEC, &t))
		return NULL;
	*no_code = !t.hva;
	if (!t.hva)
		return NULL;
	t.hva -= gva & ~PAGE_MASK;
	t.gpa &= PAGE_MASK;
	gva &= PAGE_MASK;
	while (i && page_at(s, i - 1)->gva != gva)
		i = page_at(s, i - 1)->next;
	if (!i) {
		i = pool_add(&s->pages, sizeof(struct direct_page)) + 1;
		if (!i) {
			*no_code = true;
			return NULL;
		}
		*page_at(s, i - 1) = (struct direct_page){ .gva = gva, .next = *head };
		*head = i;
	}
	struct direct_page *page = page_at(s, i - 1);
	u32 seen;
	do {
		mmu_protect_code(vcpu, &t);
		seen = __atomic_load_n(t.generation, __ATOMIC_SEQ_CST);
	} while (!(__atomic_load_n(t.flags, __ATOMIC_SEQ_CST) & PAGE_CODE));
	if (page->gpa != t.gpa || page->seen != seen)
		drop_page(vcpu, s, page);
	page->gpa = t.gpa;
	page->bytes = t.hva;
	page->generation = t.generation;
	page->flags = t.flags;
	page->seen = seen;
	gpa_t gpa;
	if (mmu_user_executes(vcpu, gva, &gpa, &page->page_shift))
		s->huge |= page->page_shift == 30;
	*no_code = page->churn >= DIRECT_CHURN_MAX;
	return *no_code ? NULL : page;
}

void code_publish(struct direct_space *s, u32 index, u32 page, u32 second_page)
{
	struct direct_block *block = block_at(s, index);
	u32 old = code_block_index(s, block->rip), *head = hash_head(s, block->rip), pages[2] = { page, second_page };
	for (unsigned i = 0; i < 2; i++) {
		block->page[i] = pages[i];
		if (!pages[i])
			continue;
		block->page_next[i] = page_at(s, pages[i] - 1)->blocks;
		page_at(s, pages[i] - 1)->blocks = index + 1;
	}
	block->live = true;
	if (old != ~0u) {
		patch_jump(s, block_at(s, old)->body, block->body);
		/* The newer one is found first, since it is put in front. */
	}
	block->next = *head;
	*head = index + 1;
}

void code_link(struct direct_space *s, const struct direct_site *site, const struct direct_block *to)
{
	emit_fix32(code_rw(s, site->field), code_rw(s, site->target <= site->rip && !site->polled ? to->poll : to->body));
}

void code_link_place(struct direct_space *s, const struct direct_site *site)
{
	u32 code;
	if (direct_emit_enter_place(s, site->target, &code))
		emit_fix32(code_rw(s, site->field), code_rw(s, code));
}

void crossing_add(struct direct_space *s, const struct direct_block *block)
{
	unsigned i = host_space_crossing(block->rip);
	s->host->window->crossing[i].rip = block->rip;
	s->host->window->crossing[i].code = code_address(s, block->body);
}

void crossings_forget(struct direct_space *s)
{
	__builtin_memset(s->host->window->crossing, 0, sizeof(s->host->window->crossing));
}

/* ---- changes ---- */

void code_flush(struct vcpu *vcpu, struct direct_space *s)
{
	direct_of(vcpu)->count[DIRECT_FLUSHES]++;
	s->blocks.used = s->pages.used = s->maps.used = s->sites.used = 0;
	__builtin_memset(s->hash, 0, sizeof(s->hash));
	__builtin_memset(s->page_hash, 0, sizeof(s->page_hash));
	__builtin_memset(s->resume, 0, sizeof(s->resume));
	s->used = s->first_code;
	clear_tables(s);
	crossings_forget(s);
}

void code_follow_writes(struct vcpu *vcpu, struct direct_space *s)
{
	u64 logged = __atomic_load_n(&vcpu->ram->code_logged, __ATOMIC_SEQ_CST);
	if (likely(logged == s->logged))
		return;
	s->logged = logged;
	for (u32 i = 0; i < s->pages.used; i++) {
		struct direct_page *page = page_at(s, i);
		if (!page->blocks || page->seen == __atomic_load_n(page->generation, __ATOMIC_SEQ_CST))
			continue;
		drop_page(vcpu, s, page);
		if (page->churn < DIRECT_CHURN_MAX)
			page->churn++;
	}
}

void code_revalidate(struct vcpu *vcpu, struct direct_space *s, gla_t from, gla_t to)
{
	for (u32 i = 0; i < s->pages.used; i++) {
		struct direct_page *page = page_at(s, i);
		gla_t start = page->gva & ~mask_of(page->page_shift);
		gpa_t gpa;
		u8 shift;
		if (!page->blocks || start >= to || start + BIT(page->page_shift) <= from)
			continue;
		if (!mmu_user_executes(vcpu, page->gva, &gpa, &shift) || gpa != page->gpa)
			drop_page(vcpu, s, page);
	}
}
