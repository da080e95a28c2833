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

static void copy_release(struct bt *bt, struct bt_page *page)
{
	if (page->copy)
		bt->copy_of[page->copy] = NULL;
	page->copy = 0;
}

/* A copy for the page: the next in turn, whoever had it. */
static void copy_take(struct bt *bt, struct bt_page *page)
{
	bt->copy_last = (u16)(bt->copy_last % (BT_COPIES - 1) + 1);
	if (bt->copy_of[bt->copy_last])
		bt->copy_of[bt->copy_last]->copy = 0;
	bt->copy_of[bt->copy_last] = page;
	page->copy = bt->copy_last;
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

void cache_check_copy(struct bt *bt, struct bt_page *page, const u8 *bytes)
{
	if (page->copy && memcmp(bt->copy[page->copy], bytes, PAGE_SIZE))
		copy_release(bt, page);
}

/* ---- stale pages ---- */

static void make_stale(struct bt *bt, struct bt_page *page)
{
	for (struct bt_block *block = bt_block_at(bt, page->blocks); block; block = bt_block_at(bt, block->page_next)) {
		struct emitter e = { bt_code(bt, block) + block->prologue };
		__builtin_memcpy(block->start, e.at, 5);
		emit_jump(&e, 0xe9, bt_rw(bt, bt->miss));
	}
	page->stale = true;
	bt->epoch++;
}

/* Drop the blocks that depend on changed lines. */
static void drop_changed(struct bt *bt, struct bt_page *page, u32 changed)
{
	for (u32 *p = &page->blocks; *p;) {
		struct bt_block *block = bt_block_at(bt, *p);
		if (block->lines & changed) {
			*p = block->page_next;
			cache_drop_block(bt, block);
			continue;
		}
		if (page->stale)
			__builtin_memcpy(bt_code(bt, block) + block->prologue, block->start, 5);
		bt->count[COUNT_REVIVED]++;
		p = &block->page_next;
	}
}

/* Jumps to blocks that were dropped go to their stubs again. */
static void unlink_dropped(struct bt *bt, struct bt_page *page)
{
	for (struct bt_block *block = bt_block_at(bt, page->blocks); block; block = bt_block_at(bt, block->page_next))
		for (unsigned i = 0; i < block->links; i++)
			if (block->link[i].to && !bt_block_at(bt, block->link[i].to)->page)
				cache_unlink(bt, block, i);
}

void cache_revive(struct bt *bt, struct bt_page *page, const u8 *bytes, u32 seen)
{
	u8 *now = bt->copy[0];
	page->seen = seen;
	if (!page->churn || page->mixed) {
		cache_drop_page(bt, page);
		return;
	}
	memcpy(now, bytes, PAGE_SIZE);
	if (page->blocks) {
		drop_changed(bt, page, page->copy ? difference(now, bt->copy[page->copy]) : ~0u);
		unlink_dropped(bt, page);
	}
	page->stale = false;
	if (!page->copy)
		copy_take(bt, page);
	memcpy(bt->copy[page->copy], now, PAGE_SIZE);
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

static void page_written(struct bt *bt, struct bt_page *page)
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
		make_stale(bt, page);
		return;
	}
	cache_drop_page(bt, page);
	if (page->churn < CHURN_MAX)
		return;
	copy_release(bt, page);
	page->mixed = true;
	page->interpreted = 0;
	page->seen = __atomic_load_n(page->generation, __ATOMIC_SEQ_CST);
	__atomic_fetch_or(page->flags, PAGE_MIXED, __ATOMIC_SEQ_CST);
}

static void check_all_pages(struct bt *bt)
{
	for (unsigned i = 0; i < BT_PAGE_HASH_SIZE; i++)
		for (struct bt_page *page = bt->page_hash[i]; page; page = page->next)
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
		if (entry >> 40 != ((bt->logged + 1) & (BIT(24) - 1))) {
			check_all_pages(bt);
			continue;
		}
		struct bt_page *page = cache_page_find(bt, (entry & number_mask) << PAGE_SHIFT);
		if (page)
			page_written(bt, page);
	}
}

bool cache_interprets(struct bt *bt, gpa_t gpa)
{
	struct bt_page *page = cache_page_find(bt, gpa & PAGE_MASK);
	if (!page || !page->mixed)
		return false;
	if (++page->interpreted < INTERPRET_MAX)
		return true;
	leave_mixed(page, page->churn / 2);
	return false;
}
