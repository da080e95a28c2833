/* A journal of the stores of one vCPU, so that they can be taken back: for an engine that runs the same code twice and compares. A page is
 * copied before it gets its first write tag; so whoever stores by a tag of the software TLB, or by a write translation, is seen.
 * Accessed and dirty bits that a walk sets belong to no store and stay. */
#ifndef NADIR_MMU_JOURNAL_H
#define NADIR_MMU_JOURNAL_H

#include "mmu/mmu.h"

#define JOURNAL_PAGES 64
#define JOURNAL_TAGS (2 * JOURNAL_PAGES)

struct journal {
	unsigned pages, tags;
	u8 *page[JOURNAL_PAGES];
	struct {
		struct tlb_table *table;
		unsigned index;
	} tag[JOURNAL_TAGS]; /* write tags given out since the beginning */
	u8 before[JOURNAL_PAGES][PAGE_SIZE], after[JOURNAL_PAGES][PAGE_SIZE];
};

/* Keep a journal from now on; it lives as long as the mmu. The vCPU has run nothing yet. 0, or negative: no memory. */
int mmu_journal_create(struct vcpu *vcpu);

/* A new beginning: what was stored so far stays. */
void mmu_journal_begin(struct vcpu *vcpu);
/* Memory is as it was at the beginning; what it was is remembered, and stores are still followed. */
void mmu_journal_undo(struct vcpu *vcpu);
/* After mmu_journal_undo and the same stores again: whether memory is as it was before it. If not, *where is the first byte that differs, and
 * *wanted what it was. */
bool mmu_journal_same(struct vcpu *vcpu, const u8 **where, const u8 **wanted);
/* Memory is as it was at the beginning; nothing is remembered. */
void mmu_journal_abandon(struct vcpu *vcpu);

/* ---- for the mmu itself ---- */

/* Stores to the page will follow. False: the journal is full. */
bool journal_note(struct journal *journal, u8 *page);
/* Whether the entry may have a write tag for the page. */
bool journal_allows(struct journal *journal, const u8 *page, struct tlb_table *table, unsigned index);
/* A walk has set bits in the byte at hva. */
void journal_set_bits(struct journal *journal, const u8 *hva, u8 bits);

#endif
