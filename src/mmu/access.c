/* Access to guest memory by linear address: translation through the software TLB, page-crossing accesses, and MMIO.
 * Intel SDM volume 3, "Paging", "Memory Ordering" (what is naturally aligned moves at once). */
#include "mmu/journal.h"
#include "mmu/tlb.h"

static enum tlb_view view_of(const struct mmu *mmu, unsigned access)
{
	return (access & ACCESS_IMPLICIT) ? mmu->implicit_view : mmu->view;
}

static bool raise_page_fault(struct vcpu *vcpu, gla_t gla, u32 error)
{
	vcpu->fault = (struct guest_fault){ .vector = VEC_PF, .has_error = true, .error = error, .payload = gla };
	return false;
}

/* Linear addresses have 32 bits outside long mode, and in compatibility mode where the access began below 4 GBytes;
 * there the processor's own tables and the stacks of 64-bit handlers may lie anywhere. */
static gla_t next_page(const struct vcpu *vcpu, gla_t gla, unsigned first)
{
	gla_t next = gla + first;
	return vcpu_64bit(vcpu) || gla >> 32 ? next : (u32)next;
}

static void from_slot(const struct ram_slot *slot, u64 offset, struct translation *out)
{
	*out = (struct translation){
		.gpa = slot->base + offset,
		.hva = slot->hva + offset,
		.flags = &slot->flags[offset >> PAGE_SHIFT],
		.generation = &slot->generation[offset >> PAGE_SHIFT],
	};
}

/* A TLB miss: walk, and enter the page if it is RAM. A write to ROM is nobody's RAM. */
static bool translate_miss(struct vcpu *vcpu, gla_t gla, enum tlb_view view, unsigned kind, struct translation *out)
{
	struct walk walk;
	if (!walk_page(vcpu, gla, view, kind, &walk))
		return raise_page_fault(vcpu, gla, walk.error);
	struct ram_slot *slot = ram_find(vcpu->ram, walk.gpa);
	if (!slot || (kind == ACCESS_WRITE && ram_readonly(slot, walk.gpa))) {
		*out = (struct translation){ .gpa = walk.gpa | (gla & ~PAGE_MASK) };
		return true;
	}
	/* The store comes at once, so that the page is dirty from here on. */
	if (kind == ACCESS_WRITE && slot->log_dirty)
		__atomic_fetch_or(&slot->flags[(walk.gpa - slot->base) >> PAGE_SHIFT], PAGE_DIRTY, __ATOMIC_SEQ_CST);
	if (kind == ACCESS_WRITE && unlikely(vcpu->mmu->journal))
		journal_note(vcpu->mmu->journal, slot->hva + (walk.gpa - slot->base));
	tlb_fill(vcpu, view, gla, &walk, slot);
	from_slot(slot, walk.gpa - slot->base + (gla & ~PAGE_MASK), out);
	return true;
}

bool mmu_translate(struct vcpu *vcpu, gla_t gla, unsigned access, struct translation *out)
{
	unsigned kind = access & ACCESS_KIND;
	enum tlb_view view = view_of(vcpu->mmu, access);
	const u8 *hva = tlb_lookup(vcpu->mmu, view, gla, 1, kind);
	if (unlikely(!hva))
		return translate_miss(vcpu, gla, view, kind, out);
	const struct ram_slot *slot = ram_slot_at(vcpu->ram, hva);
	from_slot(slot, (u64)(hva - slot->hva), out);
	return true;
}

bool mmu_debug_translate(struct vcpu *vcpu, gla_t gla, gpa_t *gpa)
{
	struct walk walk;
	if (!walk_inspect(vcpu, gla, &walk))
		return false;
	*gpa = walk.gpa | (gla & ~PAGE_MASK);
	return true;
}

/* ---- moving bytes ---- */

/* Sizes that the processor moves at once are moved at once: other vCPUs may look. */
static void copy(void *to, const void *from, unsigned size)
{
	switch (size) {
	case 1:
		__builtin_memcpy(to, from, 1);
		break;
	case 2:
		__builtin_memcpy(to, from, 2);
		break;
	case 4:
		__builtin_memcpy(to, from, 4);
		break;
	case 8:
		__builtin_memcpy(to, from, 8);
		break;
	default:
		__builtin_memcpy(to, from, size);
	}
}

/* The largest access of 1, 2, 4 or 8 bytes that fits. */
static unsigned piece_size(unsigned left)
{
	return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

static void mmio_access(struct vcpu *vcpu, gpa_t gpa, u8 *buf, unsigned size, bool write)
{
	while (size) {
		unsigned n = piece_size(size);
		struct exit exit = { .reason = EXIT_MMIO, .mmio = { .gpa = gpa, .size = (u8)n, .write = write } };
		if (write)
			__builtin_memcpy(&exit.mmio.value, buf, n);
		vcpu->ops->exit(vcpu, &exit);
		if (!write)
			__builtin_memcpy(buf, &exit.mmio.value, n);
		gpa += n;
		buf += n;
		size -= n;
	}
}

static void read_piece(struct vcpu *vcpu, const struct translation *t, u8 *buf, unsigned size)
{
	/* The read half of a read-modify-write finds ROM here; it has no hva for writes. */
	const u8 *from = t->hva ? t->hva : ram_pointer(vcpu->ram, t->gpa, size);
	if (from)
		copy(buf, from, size);
	else
		mmio_access(vcpu, t->gpa, buf, size, false);
}

static void write_piece(struct vcpu *vcpu, const struct translation *t, const u8 *buf, unsigned size)
{
	if (t->hva) {
		copy(t->hva, buf, size);
		mmu_stored(vcpu, t->flags, t->generation);
	} else {
		const struct ram_slot *slot = ram_find(vcpu->ram, t->gpa);
		if (!slot || !slot->readonly)
			mmio_access(vcpu, t->gpa, (u8 *)buf, size, true);
	}
}

/* An access cut at the page boundary, both parts translated. second is 0 where there is none. */
struct span {
	struct translation part[2];
	unsigned first, second;
};

static bool translate_span(struct vcpu *vcpu, gla_t gla, unsigned size, unsigned access, struct span *span)
{
	if (!vcpu_long_mode(vcpu))
		gla = (u32)gla;
	unsigned room = (unsigned)(PAGE_SIZE - (gla & ~PAGE_MASK));
	span->first = MIN(size, room);
	span->second = size - span->first;
	if (!mmu_translate(vcpu, gla, access, &span->part[0]))
		return false;
	return !span->second || mmu_translate(vcpu, next_page(vcpu, gla, span->first), access, &span->part[1]);
}

bool mmu_read(struct vcpu *vcpu, gla_t gla, void *buf, unsigned size, unsigned access)
{
	struct span span;
	if (!translate_span(vcpu, gla, size, access, &span))
		return false;
	read_piece(vcpu, &span.part[0], buf, span.first);
	if (span.second)
		read_piece(vcpu, &span.part[1], (u8 *)buf + span.first, span.second);
	return true;
}

bool mmu_write(struct vcpu *vcpu, gla_t gla, const void *buf, unsigned size, unsigned access)
{
	struct span span;
	if (!translate_span(vcpu, gla, size, (access & ACCESS_IMPLICIT) | ACCESS_WRITE, &span))
		return false;
	write_piece(vcpu, &span.part[0], buf, span.first);
	if (span.second)
		write_piece(vcpu, &span.part[1], (const u8 *)buf + span.first, span.second);
	return true;
}

bool mmu_probe_write(struct vcpu *vcpu, gla_t gla, unsigned size, unsigned access)
{
	struct span span;
	return translate_span(vcpu, gla, size, (access & ACCESS_IMPLICIT) | ACCESS_WRITE, &span);
}
