/* What becomes of translated code whose page is written.
 *
 * The first write to a page drops its blocks. From then on a copy is kept of the bytes that its blocks are translated of: when it is written
 * again it becomes stale, that is, nobody enters its blocks, and the page is not protected. When it is executed again it is protected
 * and compared with the copy; only blocks translated by lines that changed are dropped. So a compiler that appends to a page, or patches in
 * it, costs little. A page written again and again in quick succession, code beside its own data, is left to step for a while. Every store
 * to it is stepped meanwhile, so that must end when its code is not executed any more: the guest may have given the memory to somebody else. */
#include "engine/bt/emit.h"
#include "engine/bt/state.h"

#include "lib/string.h"

/* After so many writes in succession, each no longer after the last than so many ticks of the time-stamp counter, a page is left to step. */
#define CHURN_MAX 32
#define CALM (1u << 18)

/* Instructions of such a page that step runs before the translator tries again. */
#define INTERPRET_MAX 2000

/* After so many writes to such a page, none of its code having been executed between them, it is data. */
#define DATA_MIN 64

/* ---- copies ---- */

static void copy_release(struct bt_cache *c, struct bt_page *page)
{
	if (page->copy)
		c->copy_of[page->copy] = NULL;
	page->copy = 0;
}

/* A copy for the page: the next in turn, whoever had it. */
static void copy_take(struct bt_cache *c, struct bt_page *page)
{
	c->copy_last = (u16)(c->copy_last % (BT_COPIES - 1) + 1);
	if (c->copy_of[c->copy_last])
		c->copy_of[c->copy_last]->copy = 0;
	c->copy_of[c->copy_last] = page;
	page->copy = c->copy_last;
}

/* The lines in which two pages differ. */
static u32 difference(const u8 *a, const u8 *b)
{
	u32 lines = 0;
	for (unsigned i = 0; i < PAGE_SIZE / BT_LINE_SIZE; i++)
		if (memcmp(a + i * BT_LINE_SIZE, b + i * BT_LINE_SIZE, BT_LINE_SIZE))
			lines |= 1u << i;
	return lines;
}

void cache_check_copy(struct bt_cache *c, struct bt_page *page, const u8 *bytes)
{
	if (page->copy && memcmp(c->copy[page->copy], bytes, PAGE_SIZE))
		copy_release(c, page);
}

/* ---- stale pages ---- */

static void make_stale(struct bt_cache *c, struct bt_page *page)
{
	for (struct bt_block *block = bt_block_at(c, page->blocks); block; block = bt_block_at(c, block->page_next)) {
		__builtin_memcpy(block->start, bt_code(c, block) + block->prologue, sizeof(block->start));
		cache_shut(c, block);
	}
	__atomic_store_n(&page->stale, true, __ATOMIC_RELAXED);
	cache_changed(c);
}

/* Drop the blocks that depend on changed lines. */
static void drop_changed(struct bt_cache *c, struct bt_page *page, u32 changed)
{
	for (u32 *p = &page->blocks; *p;) {
		struct bt_block *block = bt_block_at(c, *p);
		if (block->lines & changed) {
			*p = block->page_next;
			cache_drop_block(c, block);
			continue;
		}
		if (page->stale)
			cache_open(c, block);
		c->holder->count[COUNT_REVIVED]++;
		p = &block->page_next;
	}
}

/* Jumps to blocks that were dropped go to their stubs again. */
static void unlink_dropped(struct bt_cache *c, struct bt_page *page)
{
	for (struct bt_block *block = bt_block_at(c, page->blocks); block; block = bt_block_at(c, block->page_next))
		for (unsigned i = 0; i < block->links; i++)
			if (block->link[i].to && !bt_block_at(c, block->link[i].to)->page)
				cache_unlink(c, block, i);
}

void cache_revive(struct bt_cache *c, struct bt_page *page, const u8 *bytes, u32 seen)
{
	u8 *now = c->copy[0];
	page->seen = seen;
	if (!page->churn || page->mixed) {
		cache_drop_page(c, page);
		return;
	}
	memcpy(now, bytes, PAGE_SIZE);
	if (page->blocks) {
		drop_changed(c, page, page->copy ? difference(now, c->copy[page->copy]) : ~0u);
		unlink_dropped(c, page);
		cache_changed(c);
	}
	__atomic_store_n(&page->stale, false, __ATOMIC_RELAXED);
	if (!page->copy)
		copy_take(c, page);
	memcpy(c->copy[page->copy], now, PAGE_SIZE);
}

/* ---- the log ---- */

static void leave_mixed(struct bt_page *page, u16 churn)
{
	page->mixed = false;
	page->churn = churn;
	__atomic_fetch_and(page->flags, (u8)~PAGE_MIXED, __ATOMIC_SEQ_CST);
}

/* `seen` is the generation at which its code was executed last. */
static void mixed_written(struct bt_page *page)
{
	u32 generation = __atomic_load_n(page->generation, __ATOMIC_SEQ_CST);
	if (page->interpreted)
		page->seen = generation;
	page->interpreted = 0;
	if (generation - page->seen >= DATA_MIN)
		leave_mixed(page, 0);
}

static void page_written(struct bt_cache *c, struct bt_page *page)
{
	if (page->mixed) {
		mixed_written(page);
		return;
	}
	if (!page->blocks || page->stale || page->seen == __atomic_load_n(page->generation, __ATOMIC_SEQ_CST))
		return;
	u64 now = __builtin_ia32_rdtsc();
	page->churn = now - page->written > CALM ? 1 : page->churn + 1;
	page->written = now;
	if (page->churn < CHURN_MAX && page->copy) {
		make_stale(c, page);
		return;
	}
	cache_drop_page(c, page);
	if (page->churn < CHURN_MAX)
		return;
	copy_release(c, page);
	page->mixed = true;
	page->interpreted = 0;
	page->seen = __atomic_load_n(page->generation, __ATOMIC_SEQ_CST);
	__atomic_fetch_or(page->flags, PAGE_MIXED, __ATOMIC_SEQ_CST);
}

static void check_all_pages(struct bt_cache *c)
{
	for (unsigned i = 0; i < BT_PAGE_HASH_SIZE; i++)
		for (struct bt_page *page = c->page_hash[i]; page; page = page->next)
			page_written(c, page);
}

static void follow(struct bt_cache *c, struct ram *ram, u64 end)
{
	const u64 number_mask = BIT(40) - 1;
	if (end - c->logged >= CODE_LOG_SIZE / 2) {
		check_all_pages(c);
		c->logged = end;
	}
	for (; c->logged != end; c->logged++) {
		u64 entry = __atomic_load_n(&ram->code_log[c->logged % CODE_LOG_SIZE], __ATOMIC_SEQ_CST);
		if (entry >> 40 != ((c->logged + 1) & (BIT(24) - 1))) {
			check_all_pages(c);
			continue;
		}
		struct bt_page *page = cache_page_find(c, (entry & number_mask) << PAGE_SHIFT);
		if (page)
			page_written(c, page);
	}
}

void cache_follow_log(struct vcpu *vcpu)
{
	struct bt *bt = bt_of(vcpu);
	struct ram *ram = vcpu->ram;
	cache_lock(vcpu);
	u64 end = __atomic_load_n(&ram->code_logged, __ATOMIC_SEQ_CST);
	follow(bt->cache, ram, end);
	cache_unlock(vcpu);
	bt->logged = end;
}

bool cache_interprets(struct bt_cache *c, gpa_t gpa)
{
	struct bt_page *page = cache_page_find(c, gpa & PAGE_MASK);
	if (!page || !page->mixed)
		return false;
	if (++page->interpreted < INTERPRET_MAX)
		return true;
	leave_mixed(page, page->churn / 2);
	return false;
}
