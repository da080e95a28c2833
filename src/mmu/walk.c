/* The one walker of guest page tables. Every paging mode is a row of data: how long an entry is, how many levels there
 * are, where each level's index lies, and whether an entry of that level may map a page. Intel SDM volume 3, "32-Bit
 * Paging", "PAE Paging", "4-Level Paging and 5-Level Paging", "Access Rights", "Page-Fault Exceptions", "Accessed and
 * Dirty Flags". */
#include "mmu/walk.h"

#include "arch/paging.h"
#include "mmu/journal.h"

#define LEVELS_MAX WALK_LEVELS_MAX

enum large {
	LARGE_RESERVED, /* bit 7 must be zero */
	LARGE_IF_PSE,   /* bit 7 is PS where CR4.PSE is set, else ignored */
	LARGE_IF_1G,    /* bit 7 is PS where CPUID says PDPE1GB, else must be zero */
	LARGE_ALLOWED,
	LARGE_LAST, /* the last level: bit 7 is PAT */
};

struct level {
	u8 shift;
	u8 large; /* enum large */
};

struct format {
	u8 entry_size;
	u8 index_bits;
	u8 levels;
	struct level level[LEVELS_MAX];
	u64 reserved; /* in every entry, whatever MAXPHYADDR is */
};

/* In 4-level and 5-level paging bits 62:52 are ignored, in PAE paging reserved. The walk in PAE mode starts at the
 * PDPTE registers, which have no permissions of their own. */
static const struct format format_32bit = {
	.entry_size = 4,
	.index_bits = 10,
	.levels = 2,
	.level = { { 22, LARGE_IF_PSE }, { 12, LARGE_LAST } },
};
static const struct format format_pae = {
	.entry_size = 8,
	.index_bits = 9,
	.levels = 2,
	.reserved = 0x7ff0000000000000,
	.level = { { 21, LARGE_ALLOWED }, { 12, LARGE_LAST } },
};
static const struct format format_4level = {
	.entry_size = 8,
	.index_bits = 9,
	.levels = 4,
	.level = { { 39, LARGE_RESERVED }, { 30, LARGE_IF_1G }, { 21, LARGE_ALLOWED }, { 12, LARGE_LAST } },
};
static const struct format format_5level = {
	.entry_size = 8,
	.index_bits = 9,
	.levels = 5,
	.level = { { 48, LARGE_RESERVED },
		   { 39, LARGE_RESERVED },
		   { 30, LARGE_IF_1G },
		   { 21, LARGE_ALLOWED },
		   { 12, LARGE_LAST } },
};

static const struct format *current_format(const struct vcpu *vcpu)
{
	if (vcpu_long_mode(vcpu))
		return (vcpu->cr4 & CR4_LA57) ? &format_5level : &format_4level;
	return (vcpu->cr4 & CR4_PAE) ? &format_pae : &format_32bit;
}

/* An entry read from guest memory, and where it is. */
struct entry {
	gpa_t gpa;
	u8 *hva; /* NULL where A and D cannot be set: not RAM, or ROM */
	u64 value;
};

/* Tables outside RAM read as the bus does where nobody answers: all ones. */
static struct entry read_entry(struct vcpu *vcpu, const struct format *f, gpa_t gpa)
{
	struct ram_slot *slot = ram_find(vcpu->ram, gpa);
	if (!slot)
		return (struct entry){ .gpa = gpa, .value = size_mask(f->entry_size) };
	u8 *hva = slot->hva + (gpa - slot->base);
	u64 value = f->entry_size == 8 ? __atomic_load_n((u64 *)(void *)hva, __ATOMIC_SEQ_CST)
				       : __atomic_load_n((u32 *)(void *)hva, __ATOMIC_SEQ_CST);
	return (struct entry){ .gpa = gpa, .hva = ram_readonly(slot, gpa) ? NULL : hva, .value = value };
}

/* Set A or D with one atomic exchange; false: somebody else changed the entry, walk again. */
static bool set_entry_bits(struct vcpu *vcpu, const struct format *f, struct entry *e, u64 bits)
{
	if (!e->hva || (e->value & bits) == bits)
		return true;
	bool done;
	if (f->entry_size == 8) {
		u64 old = e->value;
		done = __atomic_compare_exchange_n((u64 *)(void *)e->hva, &old, old | bits, false, __ATOMIC_SEQ_CST,
						   __ATOMIC_SEQ_CST);
	} else {
		u32 old = (u32)e->value;
		done = __atomic_compare_exchange_n((u32 *)(void *)e->hva, &old, old | (u32)bits, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
	if (done) {
		e->value |= bits;
		if (unlikely(vcpu->mmu->journal))
			journal_set_bits(vcpu->mmu->journal, e->hva, (u8)bits);
		if (ram_written(vcpu->ram, e->gpa, f->entry_size))
			vcpu_set_pending(vcpu, PENDING_CODE);
	}
	return done;
}

static bool maps_page(const struct vcpu *vcpu, const struct level *level, u64 entry)
{
	switch (level->large) {
	case LARGE_LAST:
		return true;
	case LARGE_IF_PSE:
		return (entry & PTE_PS) && (vcpu->cr4 & CR4_PSE);
	case LARGE_IF_1G:
		return (entry & PTE_PS) && vcpu->pages_1g;
	case LARGE_ALLOWED:
		return entry & PTE_PS;
	default:
		return false;
	}
}

/* With PSE-36, a 4-MByte page's entry has address bits (M-1):32 in its bits (M-20):13, M being at most 40; the rest up
 * to bit 21 is reserved. */
static unsigned pse36_bits(const struct vcpu *vcpu)
{
	return MAX(32, MIN(40, vcpu->physical_bits));
}

/* The bits that must be zero in a present entry. */
static u64 reserved_bits(const struct vcpu *vcpu, const struct format *f, const struct level *level, u64 entry)
{
	bool large = level->large != LARGE_LAST && maps_page(vcpu, level, entry);
	if (f->entry_size == 4)
		return large ? BIT(22) - BIT(pse36_bits(vcpu) - 19) : 0;
	u64 bits = f->reserved | (PTE_ADDR & ~mask_of(vcpu->physical_bits));
	if (!(vcpu->efer & EFER_NXE))
		bits |= PTE_NX;
	if (level->large == LARGE_RESERVED || (level->large == LARGE_IF_1G && !vcpu->pages_1g))
		bits |= PTE_PS;
	if (large)
		bits |= BIT(level->shift) - BIT(13);
	return bits;
}

static gpa_t page_frame(const struct format *f, const struct level *level, u64 entry)
{
	gpa_t frame = entry & PTE_ADDR & ~mask_of(level->shift);
	if (f->entry_size == 4 && level->shift == 22)
		frame |= (entry >> 13 & 0xff) << 32;
	return frame;
}

/* Where the walk starts; false: a PAE PDPTE that is not present. */
static bool root_table(const struct vcpu *vcpu, const struct format *f, gla_t gla, gpa_t *table)
{
	if (f == &format_pae) {
		u64 pdpte = vcpu->pdpte[gla >> 30 & 3];
		*table = pdpte & PTE_ADDR;
		return pdpte & PTE_P;
	}
	*table = vcpu->cr3 & PTE_ADDR;
	return true;
}

struct path {
	const struct format *format;
	struct entry entry[LEVELS_MAX];
	unsigned levels; /* entries used; the last one maps the page */
};

/* Go down the tables. False: out->error has P or RSVD as it should be, and nothing else. */
static bool descend(struct vcpu *vcpu, gla_t gla, struct path *path, struct walk *out)
{
	const struct format *f = path->format = current_format(vcpu);
	gpa_t table;
	*out = (struct walk){ .writable = true, .user = true, .page_shift = 30 };
	if (!root_table(vcpu, f, gla, &table))
		return false;
	for (unsigned i = 0; i < f->levels; i++) {
		const struct level *level = &f->level[i];
		u64 index = gla >> level->shift & mask_of(f->index_bits);
		path->entry[i] = read_entry(vcpu, f, table + index * f->entry_size);
		u64 entry = path->entry[i].value;
		out->page_shift = level->shift;
		if (!(entry & PTE_P))
			return false;
		if (entry & reserved_bits(vcpu, f, level, entry)) {
			out->error = PF_P | PF_RSVD;
			return false;
		}
		out->writable &= !!(entry & PTE_W);
		out->user &= !!(entry & PTE_U);
		out->no_execute |= f->entry_size == 8 && (entry & PTE_NX);
		if (maps_page(vcpu, level, entry)) {
			path->levels = i + 1;
			out->gpa = page_frame(f, level, entry) | (gla & mask_of(level->shift) & PAGE_MASK);
			out->global = (entry & PTE_G) && (vcpu->cr4 & CR4_PGE);
			return true;
		}
		table = entry & PTE_ADDR;
	}
	return false;
}

bool walk_permits(const struct vcpu *vcpu, const struct walk *walk, enum tlb_view view, unsigned kind)
{
	if (walk->any)
		return true;
	if (kind == ACCESS_EXEC && walk->no_execute)
		return false;
	if (view == VIEW_USER)
		return walk->user && (kind != ACCESS_WRITE || walk->writable);
	if (kind == ACCESS_EXEC)
		return !(walk->user && (vcpu->cr4 & CR4_SMEP));
	if (view == VIEW_SUPERVISOR_SMAP && walk->user)
		return false;
	return kind == ACCESS_READ || walk->writable || !(vcpu->cr0 & CR0_WP);
}

/* The error-code bits that tell what was tried. ID is reported only where fetches can be forbidden at all. */
static u32 error_of_access(const struct vcpu *vcpu, enum tlb_view view, unsigned kind)
{
	bool nx = (vcpu->cr4 & CR4_PAE) && (vcpu->efer & EFER_NXE);
	u32 error = view == VIEW_USER ? PF_US : 0;
	if (kind == ACCESS_WRITE)
		error |= PF_WR;
	if (kind == ACCESS_EXEC && (nx || (vcpu->cr4 & CR4_SMEP)))
		error |= PF_ID;
	return error;
}

/* A in every entry used, D in the last one of a write. */
static bool set_accessed(struct vcpu *vcpu, struct path *path, unsigned kind)
{
	for (unsigned i = 0; i < path->levels; i++) {
		u64 bits = PTE_A;
		if (kind == ACCESS_WRITE && i == path->levels - 1)
			bits |= PTE_D;
		if (!set_entry_bits(vcpu, path->format, &path->entry[i], bits))
			return false;
	}
	return true;
}

/* Paging off: linear addresses are physical ones. */
static void identity(gla_t gla, struct walk *out)
{
	*out = (struct walk){ .gpa = gla & PAGE_MASK, .page_shift = PAGE_SHIFT, .any = true, .dirty = true };
}

bool walk_page(struct vcpu *vcpu, gla_t gla, enum tlb_view view, unsigned kind, struct walk *out)
{
	struct path path;
	vcpu->mmu->walks++;
	if (!(vcpu->cr0 & CR0_PG)) {
		identity(gla, out);
		return true;
	}
	/* Each repetition means that another CPU changed an entry meanwhile, as on hardware. */
	do {
		if (!descend(vcpu, gla, &path, out)) {
			out->error |= error_of_access(vcpu, view, kind);
			return false;
		}
		if (!walk_permits(vcpu, out, view, kind)) {
			out->error = PF_P | error_of_access(vcpu, view, kind);
			return false;
		}
	} while (!set_accessed(vcpu, &path, kind));
	/* A table in ROM keeps D clear for ever: stores to its pages then walk each time. */
	out->dirty = path.entry[path.levels - 1].value & PTE_D;
	return true;
}

bool walk_inspect(struct vcpu *vcpu, gla_t gla, struct walk *out)
{
	struct path path;
	if (!(vcpu->cr0 & CR0_PG)) {
		identity(gla, out);
		return true;
	}
	if (!descend(vcpu, gla, &path, out))
		return false;
	out->dirty = path.entry[path.levels - 1].value & PTE_D;
	return true;
}

bool walk_trace(struct vcpu *vcpu, gla_t gla, struct walk_trace *out)
{
	struct path path;
	struct walk walk;
	if (!descend(vcpu, gla, &path, &walk))
		return false;
	*out = (struct walk_trace){ .levels = path.levels, .entry_size = path.format->entry_size, .index_bits = path.format->index_bits };
	for (unsigned i = 0; i < path.levels; i++) {
		out->entry[i].gpa = path.entry[i].gpa;
		out->entry[i].value = path.entry[i].value;
		out->entry[i].shift = path.format->level[i].shift;
	}
	return true;
}

/* What the entry of a level says of a page; false: nothing usable. */
static bool take_entry(struct vcpu *vcpu, const struct level *level, u64 entry, struct walk *w)
{
	if ((entry & (PTE_P | PTE_A)) != (PTE_P | PTE_A) || (entry & reserved_bits(vcpu, &format_4level, level, entry)))
		return false;
	w->writable &= !!(entry & PTE_W);
	w->user &= !!(entry & PTE_U);
	w->no_execute |= !!(entry & PTE_NX);
	return true;
}

static void take_page(const struct vcpu *vcpu, const struct level *level, u64 entry, gla_t gla, struct walk *w)
{
	w->page_shift = level->shift;
	w->gpa = page_frame(&format_4level, level, entry) | (gla & mask_of(level->shift) & PAGE_MASK);
	w->global = (entry & PTE_G) && (vcpu->cr4 & CR4_PGE);
	w->dirty = entry & PTE_D;
}

void walk_pages(struct vcpu *vcpu, gla_t gla, unsigned count, struct walk *out)
{
	const struct format *f = &format_4level;
	const struct level *last = &f->level[f->levels - 1];
	struct walk common = { .writable = true, .user = true };
	gpa_t table = vcpu->cr3 & PTE_ADDR;
	const struct level *level = f->level;
	u64 entry = 0;
	bool usable = true;
	for (; usable && level != last; level++) {
		entry = read_entry(vcpu, f, table + (gla >> level->shift & 511) * 8).value;
		usable = take_entry(vcpu, level, entry, &common);
		if (usable && maps_page(vcpu, level, entry))
			break;
		table = entry & PTE_ADDR;
	}
	for (unsigned i = 0; i < count; i++, gla += PAGE_SIZE) {
		out[i] = common;
		if (level == last)
			entry = usable ? read_entry(vcpu, f, table + (gla >> PAGE_SHIFT & 511) * 8).value : 0;
		if (!usable || !take_entry(vcpu, level, entry, &out[i]))
			out[i].error = PF_US;
		else
			take_page(vcpu, level, entry, gla, &out[i]);
	}
}

/* Intel SDM volume 3, "PDPTE Registers": reserved are bits 2:1, 8:5 and those from MAXPHYADDR up. */
bool mmu_load_pdptes(struct vcpu *vcpu, u64 cr3)
{
	u64 pdpte[4];
	u64 reserved = 0x1e6 | ~mask_of(vcpu->physical_bits);
	gpa_t table = cr3 & 0xffffffe0;
	for (unsigned i = 0; i < 4; i++) {
		pdpte[i] = read_entry(vcpu, &format_pae, table + i * 8).value;
		if ((pdpte[i] & PTE_P) && (pdpte[i] & reserved))
			return vcpu_raise_gp(vcpu, 0);
	}
	__builtin_memcpy(vcpu->pdpte, pdpte, sizeof(pdpte));
	return true;
}
