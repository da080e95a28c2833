/* Which pages of guest memory hold tables that the trees were derived from, and what becomes of the trees when they are written. */
#include "engine/hw/shadow.h"

#include "lib/string.h"

#define LOG_NUMBER mask_of(40) /* of an entry of ram->code_log: the page */

static struct ram *ram_of(struct shadow *s)
{
	return s->memory.vcpu->ram;
}

/* ---- pages that are watched, by all vCPUs ---- */

/* The right to write to pages that began to be watched goes. */
static void follow_watched(struct shadow *s)
{
	struct shadow_machine *m = s->machine;
	if (m->watched_count - s->watched_seen > WATCHED_LOG)
		shadow_empty(s);
	else
		for (u64 i = s->watched_seen; i != m->watched_count; i++) {
			gpa_t gpa = m->watched[i % WATCHED_LOG];
			const struct ram_slot *slot = ram_find(ram_of(s), gpa);
			if (slot)
				shadow_take_writers(s, host_physical(slot->hva + (gpa - slot->base)));
		}
	s->watched_seen = m->watched_count;
	shadow_forget(s);
}

/* The others leave their guests, and look at the list before they are there again: a vCPU with something pending does not enter. */
static void tell_others(struct shadow *s)
{
	for (unsigned i = 0; i < s->machine->vcpus; i++)
		if (s->machine->vcpu[i] != s->memory.vcpu)
			vcpu_set_pending(s->machine->vcpu[i], PENDING_CODE);
	host_barrier_all();
}

/* When this returns, what anybody stores to the page is logged; this vCPU follows the list before it is in its guest again, as the others do. */
static void watch_page(struct shadow *s, const struct record *r)
{
	struct shadow_machine *m = s->machine;
	host_lock(&m->lock);
	if (!(*r->reference)++) {
		__atomic_fetch_or(r->flags, PAGE_TABLE | PAGE_CODE, __ATOMIC_SEQ_CST);
		m->watched[m->watched_count % WATCHED_LOG] = r->gpa;
		__atomic_fetch_add(&m->watched_count, 1, __ATOMIC_SEQ_CST);
		tell_others(s);
	}
	host_unlock(&m->lock);
}

static void unwatch_page(struct shadow *s, const struct record *r)
{
	host_lock(&s->machine->lock);
	if (!--*r->reference)
		__atomic_fetch_and(r->flags, (u8)~PAGE_TABLE, __ATOMIC_SEQ_CST);
	host_unlock(&s->machine->lock);
}

/* ---- records ---- */

static struct record **bucket_of(struct shadow *s, gpa_t gpa)
{
	return &s->record[(gpa >> PAGE_SHIFT) * 0x9e3779b97f4a7c15 >> 54];
}

static_assert(RECORD_BUCKETS == 1u << 10, "bucket_of takes 10 bits");

static struct record *record_find(struct shadow *s, gpa_t gpa)
{
	struct record *r = *bucket_of(s, gpa);
	while (r && r->gpa != gpa)
		r = r->next;
	return r;
}

/* It is found when it is watched, not before: everything else may be dropped meanwhile. */
static struct record *record_create(struct shadow *s, const struct ram_slot *slot, gpa_t gpa)
{
	u64 page = (gpa - slot->base) >> PAGE_SHIFT;
	struct record *r = s->records < RECORDS_MAX ? host_alloc(sizeof(*r)) : NULL;
	if (!r)
		return NULL;
	r->gpa = gpa;
	r->flags = &slot->flags[page];
	r->reference = &s->machine->references[slot - ram_of(s)->slot][page];
	watch_page(s, r);
	struct record **bucket = bucket_of(s, gpa);
	r->next = *bucket;
	*bucket = r;
	s->records++;
	ram_read(ram_of(s), gpa, r->copy, PAGE_SIZE);
	return r;
}

static void record_destroy(struct shadow *s, struct record *record)
{
	struct record **r = bucket_of(s, record->gpa);
	while (*r != record)
		r = &(*r)->next;
	*r = record->next;
	s->records--;
	unwatch_page(s, record);
	host_free(record);
}

void shadow_end_records(struct shadow *s)
{
	for (unsigned i = 0; i < RECORD_BUCKETS; i++)
		while (s->record[i])
			record_destroy(s, s->record[i]);
}

static u64 entry_of(const struct shadow *s, const u8 *table, unsigned index)
{
	u64 value = 0;
	__builtin_memcpy(&value, table + index * s->entry_size, s->entry_size);
	return value;
}

/* ---- uses ---- */

static struct use *use_create(struct shadow *s, const struct use *like)
{
	struct use *u = s->uses < USES_MAX ? host_alloc(sizeof(*u)) : NULL;
	if (!u)
		return NULL;
	s->uses++;
	*u = *like;
	u->next_of_record = u->record->uses;
	u->next_of_context = u->context->uses;
	u->record->uses = u->context->uses = u;
	return u;
}

static struct use *use_find(const struct use *like)
{
	struct use *u = like->record->uses;
	while (u && (u->context != like->context || u->parent != like->parent || u->base != like->base || u->shift != like->shift || u->index != like->index))
		u = u->next_of_record;
	return u;
}

static void leave_record(struct use *use)
{
	struct use **u = &use->record->uses;
	while (*u != use)
		u = &(*u)->next_of_record;
	*u = use->next_of_record;
	use->record = NULL;
}

/* Whether the table is still there, as far as the copies tell. Where an entry that maps a page cannot be told from one that leads to a table, it is not. */
static bool use_holds(const struct shadow *s, const struct use *u)
{
	for (; u->parent; u = u->parent) {
		if (!u->parent->record)
			return false;
		u64 value = entry_of(s, u->parent->record->copy, u->index);
		if ((value & (PTE_P | PTE_PS)) != PTE_P || (value & PTE_ADDR) != u->record->gpa)
			return false;
	}
	return true;
}

static void end_use(struct shadow *s, struct use *u)
{
	hw_tree_take_range(&s->nodes, u->context->top, u->base, u->shift + u->index_bits);
	shadow_forget(s);
	leave_record(u);
}

void shadow_end_uses(struct shadow *s, struct context *c)
{
	for (struct use *u = c->uses, *next; u; u = next) {
		struct record *record = u->record;
		next = u->next_of_context;
		if (record)
			leave_record(u);
		if (record && !record->uses)
			record_destroy(s, record);
		host_free(u);
		s->uses--;
	}
	c->uses = NULL;
}

/* ---- writes ---- */

static bool only_sets_a_and_d(u64 old, u64 new)
{
	return !((old ^ new) & ~(PTE_A | PTE_D)) && !(old & ~new);
}

static void take_entry(struct shadow *s, struct record *r, unsigned index, u64 value)
{
	u64 old = entry_of(s, r->copy, index);
	if (old == value)
		return;
	__builtin_memcpy(r->copy + index * s->entry_size, &value, s->entry_size);
	if (!(old & PTE_P) || only_sets_a_and_d(old, value))
		return;
	for (struct use *u = r->uses; u; u = u->next_of_record)
		hw_tree_take_range(&s->nodes, u->context->top, u->base + ((u64)index << u->shift), u->shift);
	shadow_forget(s);
}

/* Others may be writing meanwhile: what comes later is logged later. */
static void compare(struct shadow *s, struct record *r)
{
	const struct ram_slot *slot = ram_find(ram_of(s), r->gpa);
	const u8 *now = slot->hva + (r->gpa - slot->base);
	for (unsigned i = 0; i < PAGE_SIZE; i += 8) {
		u64 value = __atomic_load_n((const u64 *)(const void *)(now + i), __ATOMIC_RELAXED), old;
		__builtin_memcpy(&old, r->copy + i, sizeof(old));
		if (likely(value == old))
			continue;
		if (s->entry_size == 8) {
			take_entry(s, r, i / 8, value);
		} else {
			take_entry(s, r, i / 4, (u32)value);
			take_entry(s, r, i / 4 + 1, value >> 32);
		}
	}
}

/* What this vCPU stored without step, which nobody else has written since. */
static void compare_stored(struct shadow *s, struct record *r)
{
	const struct ram_slot *slot = ram_find(ram_of(s), r->gpa);
	unsigned first = (unsigned)(s->memory.device & ~PAGE_MASK) / s->entry_size;
	unsigned last = ((unsigned)(s->memory.device & ~PAGE_MASK) + s->memory.stored - 1u) / s->entry_size;
	for (unsigned i = first; i <= last; i++) {
		const void *now = slot->hva + (r->gpa - slot->base) + i * s->entry_size;
		take_entry(s, r, i, s->entry_size == 8 ? __atomic_load_n((const u64 *)now, __ATOMIC_RELAXED) : __atomic_load_n((const u32 *)now, __ATOMIC_RELAXED));
	}
}

/* The top table of an address space that does not run now may be no table at all any more: its context goes, and perhaps the record with it. */
static void evict_idle(struct shadow *s, const struct record *r)
{
	u32 idle = 0;
	for (const struct use *u = r->uses; u; u = u->next_of_record)
		if (!u->parent && u->context != s->current)
			idle |= (u32)BIT(u->context - s->context);
	for (; idle; idle &= idle - 1)
		shadow_evict(s, &s->context[__builtin_ctz(idle)]);
}

static_assert(CONTEXTS <= 32, "a bit each in evict_idle");

static void follow_write(struct shadow *s, gpa_t gpa, bool alone)
{
	struct record *r = record_find(s, gpa);
	if (!r)
		return;
	if (alone && s->memory.stored && (s->memory.device & PAGE_MASK) == gpa)
		compare_stored(s, r);
	else
		compare(s, r);
	for (struct use *u = r->uses, *next; u; u = next) {
		next = u->next_of_record;
		if (!use_holds(s, u))
			end_use(s, u);
	}
	if (!r->uses) {
		record_destroy(s, r);
		return;
	}
	evict_idle(s, r);
}

void shadow_compare_all(struct shadow *s)
{
	for (unsigned i = 0; i < RECORD_BUCKETS; i++)
		for (struct record *r = s->record[i]; r; r = r->next)
			compare(s, r);
}

static void follow_writes(struct shadow *s)
{
	struct ram *ram = ram_of(s);
	u64 end = __atomic_load_n(&ram->code_logged, __ATOMIC_SEQ_CST);
	bool alone = end - s->writes_seen == 1;
	for (u64 seen = s->writes_seen; seen != end; seen++) {
		u64 entry = __atomic_load_n(&ram->code_log[seen % CODE_LOG_SIZE], __ATOMIC_SEQ_CST);
		if (entry >> 40 != ((seen + 1) & mask_of(24))) { /* overwritten, or not there yet */
			shadow_compare_all(s);
			break;
		}
		follow_write(s, (entry & LOG_NUMBER) << PAGE_SHIFT, alone);
	}
	s->writes_seen = end;
	s->memory.stored = 0;
}

void shadow_follow(struct shadow *s)
{
	if (unlikely(__atomic_load_n(&s->machine->watched_count, __ATOMIC_SEQ_CST) != s->watched_seen)) {
		host_lock(&s->machine->lock);
		follow_watched(s);
		host_unlock(&s->machine->lock);
	}
	if (unlikely(__atomic_load_n(&ram_of(s)->code_logged, __ATOMIC_SEQ_CST) != s->writes_seen))
		follow_writes(s);
}

/* ---- walks ---- */

static bool make_records(struct shadow *s, const struct walk_trace *trace, bool *fresh)
{
	*fresh = false;
	for (unsigned i = 0; i < trace->levels; i++) {
		gpa_t page = trace->entry[i].gpa & PAGE_MASK;
		if (record_find(s, page))
			continue;
		const struct ram_slot *slot = ram_find(ram_of(s), page);
		*fresh = true;
		if (!slot || !record_create(s, slot, page))
			return false;
	}
	return true;
}

bool shadow_watch(struct shadow *s, gla_t gla, const struct walk_trace *trace, bool *fresh)
{
	struct use *parent = NULL;
	unsigned index = 0;
	if (!make_records(s, trace, fresh))
		return false;
	for (unsigned i = 0; i < trace->levels && !*fresh; i++) {
		u8 shift = trace->entry[i].shift;
		struct use like = { .context = s->current, .record = record_find(s, trace->entry[i].gpa & PAGE_MASK), .parent = parent, .index = (u16)index,
				    .shift = shift, .index_bits = trace->index_bits, .base = gla & ~mask_of(shift + trace->index_bits) };
		parent = use_find(&like);
		if (!parent)
			parent = use_create(s, &like);
		if (!parent)
			return false;
		index = (unsigned)(trace->entry[i].gpa & ~PAGE_MASK) / trace->entry_size;
	}
	return true;
}

void shadow_note(struct shadow *s, const struct walk_trace *trace)
{
	for (unsigned i = 0; i < trace->levels; i++) {
		struct record *r = record_find(s, trace->entry[i].gpa & PAGE_MASK);
		if (r)
			take_entry(s, r, (unsigned)(trace->entry[i].gpa & ~PAGE_MASK) / trace->entry_size, trace->entry[i].value);
	}
}
