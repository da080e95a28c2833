/* The journal of a vCPU's stores. See journal.h. */
#include "mmu/journal.h"

#include "host/port.h"
#include "lib/string.h"

int mmu_journal_create(struct vcpu *vcpu)
{
	vcpu->mmu->journal = host_alloc(sizeof(struct journal));
	return vcpu->mmu->journal ? 0 : -1;
}

/* The number of a page, the youngest first; journal->pages if it is not there. */
static unsigned find(const struct journal *journal, const u8 *page)
{
	for (unsigned i = journal->pages; i-- > 0;)
		if (journal->page[i] == page)
			return i;
	return journal->pages;
}

/* Not memcpy, which may use vector registers: the guest's may be live in them. */
static void copy_page(u8 *to, const u8 *from)
{
	size_t words = PAGE_SIZE / sizeof(u64);
	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words)::"memory");
}

bool journal_note(struct journal *journal, u8 *page)
{
	unsigned i = find(journal, page);
	if (i < journal->pages)
		return true;
	if (i == JOURNAL_PAGES)
		return false;
	journal->page[i] = page;
	copy_page(journal->before[i], page);
	copy_page(journal->after[i], page);
	journal->pages++;
	return true;
}

bool journal_allows(struct journal *journal, const u8 *page, struct tlb_table *table, unsigned index)
{
	if (journal->tags == JOURNAL_TAGS || find(journal, page) == journal->pages)
		return false;
	journal->tag[journal->tags].table = table;
	journal->tag[journal->tags++].index = index;
	return true;
}

void journal_set_bits(struct journal *journal, const u8 *hva, u8 bits)
{
	uintptr_t offset = (uintptr_t)hva & ~PAGE_MASK;
	unsigned i = find(journal, hva - offset);
	if (i == journal->pages)
		return;
	journal->before[i][offset] |= bits;
	journal->after[i][offset] |= bits;
}

static void take_tags(struct journal *journal)
{
	for (unsigned i = 0; i < journal->tags; i++) {
		unsigned index = journal->tag[i].index;
		journal->tag[i].table->write[index] = tlb_no_tag(index);
	}
	journal->tags = 0;
}

void mmu_journal_begin(struct vcpu *vcpu)
{
	struct journal *journal = vcpu->mmu->journal;
	take_tags(journal);
	journal->pages = 0;
}

void mmu_journal_undo(struct vcpu *vcpu)
{
	struct journal *journal = vcpu->mmu->journal;
	take_tags(journal);
	for (unsigned i = 0; i < journal->pages; i++) {
		memcpy(journal->after[i], journal->page[i], PAGE_SIZE);
		memcpy(journal->page[i], journal->before[i], PAGE_SIZE);
	}
}

bool mmu_journal_same(struct vcpu *vcpu, const u8 **where, const u8 **wanted)
{
	const struct journal *journal = vcpu->mmu->journal;
	for (unsigned i = 0; i < journal->pages; i++) {
		if (!memcmp(journal->page[i], journal->after[i], PAGE_SIZE))
			continue;
		unsigned offset = 0;
		while (journal->page[i][offset] == journal->after[i][offset])
			offset++;
		*where = journal->page[i] + offset;
		*wanted = journal->after[i] + offset;
		return false;
	}
	return true;
}

void mmu_journal_abandon(struct vcpu *vcpu)
{
	mmu_journal_undo(vcpu);
	mmu_journal_begin(vcpu);
}
