/* Nested paging (E4 EPT, E5 NPT): one set of tables from guest physical to host physical addresses for all vCPUs of a VM. It begins empty and is
 * filled on faults, by pages as large as guest and host have them. When the memory of the VM changes (ram->layout: what is read-only, where slots are,
 * what is logged as dirty from now on), all entries are looked at again; those that do not hold any more go, and tables with nothing in them.
 *
 * The page of the local APICs' registers can be entered, too (hw_nested_apic), for a processor that recognizes it and handles accesses to it. It is there while all vCPUs
 * have their registers there: one whose local APIC is elsewhere, off, or in x2APIC mode would meet it as memory.
 *
 * Intel SDM volume 3, "The Extended Page Table Mechanism (EPT)", "Invalidating Cached Translation Information"; AMD APM volume 2, "Nested Paging". */
#include "engine/hw/guest.h"
#include "engine/hw/table.h"
#include "host/port.h"
#include "irq/lapic.h"

#define APIC_GPA 0xfee00000ull

/* Of a VM, at ram->engine; made with the first vCPU, gone with the last. */
struct nested {
	unsigned vcpus;
	u32 generation; /* atomic */
	u32 layout; /* atomic: ram->layout that the tables show */
	struct host_lock lock; /* of the tables */
	u64 *top, root; /* the top table, and its physical address */
	void *apic; /* what APIC_GPA leads to; NULL: nothing. As what follows, made when vCPUs are; then the lock's */
	unsigned elsewhere; /* vCPUs whose local APIC is not there */
};

static struct nested *nested_of(struct hw_memory *m)
{
	return m->vcpu->ram->engine;
}

/* No CPU holds what was in the tables before, when this returns. */
static void forget(struct nested *n)
{
	__atomic_fetch_add(&n->generation, 1, __ATOMIC_SEQ_CST);
	host_barrier_all();
}

/* ---- changes of the VM's memory ---- */

/* Whether a leaf still says what it would if it were made now; a right to write that is gone is taken away. */
static bool leaf_holds(struct ram *ram, const struct hw_format *f, u64 *entry, unsigned level, gpa_t gpa)
{
	const struct ram_slot *slot = ram_find(ram, gpa);
	struct hw_page page;
	u64 value = hw_load(entry);
	if (!slot || !hw_page_find(slot, gpa, level, &page) || page.level != level || (value & PTE_ADDR & ~mask_of(hw_shift(level))) != page.physical)
		return false;
	if ((value & f->write) && !page.write)
		hw_store(entry, value & ~f->write);
	return true;
}

/* Look at all that a table holds. Returns whether there is anything left; what is retired goes to *list. */
static bool renew(struct ram *ram, const struct hw_format *f, u64 *table, unsigned level, gpa_t gpa, u64 *list)
{
	unsigned left = 0;
	for (unsigned i = 0; i < HW_ENTRIES; i++, gpa += BIT(hw_shift(level))) {
		u64 value = hw_load(&table[i]);
		if (!value)
			continue;
		bool leaf = hw_is_leaf(f, level, value);
		if (leaf ? leaf_holds(ram, f, &table[i], level, gpa) : renew(ram, f, hw_table_of(value), level - 1, gpa, list)) {
			left++;
			continue;
		}
		hw_store(&table[i], 0);
		if (!leaf)
			hw_table_retire(hw_table_of(value), list);
	}
	return left;
}

static void follow_layout(struct hw_memory *m, struct nested *n)
{
	u64 retired = 0;
	u32 layout = __atomic_load_n(&m->vcpu->ram->layout, __ATOMIC_SEQ_CST);
	if (layout == n->layout)
		return;
	renew(m->vcpu->ram, m->format, n->top, m->format->levels - 1u, 0, &retired);
	__atomic_store_n(&n->layout, layout, __ATOMIC_RELEASE);
	forget(n);
	hw_tables_destroy(&retired);
}

/* ---- entries ---- */

/* The table that an entry leads to, made if there is none. A larger page here is too large now: it goes. NULL: no memory. */
static u64 *table_below(struct nested *n, const struct hw_format *f, u64 *entry, unsigned level)
{
	u64 value = hw_load(entry);
	if (value && !hw_is_leaf(f, level, value))
		return hw_table_of(value);
	u64 *table = hw_table_create();
	if (!table)
		return NULL;
	if (value) {
		hw_store(entry, 0);
		forget(n);
	}
	hw_store(entry, hw_table_entry(f, host_physical(table)));
	return table;
}

/* Enter the page of gpa. Where smaller pages were entered before, it is entered as one of these. */
static bool fill(struct nested *n, const struct hw_format *f, const struct ram_slot *slot, gpa_t gpa)
{
	struct hw_page page;
	u64 *table = n->top;
	if (gpa >> hw_shift(f->levels) || !hw_page_find(slot, gpa, (f->largest - PAGE_SHIFT) / 9u, &page))
		return false;
	for (unsigned level = f->levels - 1u;; level--) {
		u64 *entry = &table[hw_index(gpa, level)], value = hw_load(entry);
		bool here = level <= page.level && (!value || hw_is_leaf(f, level, value));
		if (here) {
			u64 physical = page.physical | (gpa & mask_of(hw_shift(page.level)) & ~mask_of(hw_shift(level)));
			hw_store(entry, hw_leaf_entry(f, level, physical, HW_EXECUTE | HW_USER | (page.write ? HW_WRITE : 0)));
			return true;
		}
		table = table_below(n, f, entry, level);
		if (!table)
			return false;
	}
}

/* ---- the page of local APICs ---- */

/* The entry of the last level; NULL: there is no memory for tables. */
static u64 *apic_entry(struct nested *n, const struct hw_format *f)
{
	u64 *table = n->top;
	for (unsigned level = f->levels - 1u; table && level; level--)
		table = table_below(n, f, &table[hw_index(APIC_GPA, level)], level);
	return table ? &table[hw_index(APIC_GPA, 0)] : NULL;
}

static bool fill_apic(struct hw_memory *m, struct nested *n, u64 address)
{
	u64 *entry = (address & PAGE_MASK) == APIC_GPA && n->apic && !n->elsewhere ? apic_entry(n, m->format) : NULL;
	if (entry)
		hw_store(entry, hw_leaf_entry(m->format, 0, host_physical(n->apic), HW_WRITE | HW_USER));
	return entry;
}

static bool is_elsewhere(const struct hw_memory *m)
{
	return m->vcpu->lapic && !lapic_decodes(m->vcpu->lapic, APIC_GPA);
}

static void follow_apic(struct hw_memory *m, struct nested *n)
{
	m->elsewhere = !m->elsewhere;
	n->elsewhere += m->elsewhere ? 1u : -1u;
	u64 *entry = n->elsewhere && n->apic ? apic_entry(n, m->format) : NULL;
	if (!entry || !hw_load(entry))
		return;
	hw_store(entry, 0);
	forget(n);
}

u64 hw_nested_apic(struct hw_memory *m)
{
	struct nested *n = nested_of(m);
	if (!n->apic)
		n->apic = host_pages_create(1);
	return n->apic ? host_physical(n->apic) : 0;
}

/* ---- before each entry ---- */

static void prepare(struct hw_memory *m)
{
	struct nested *n = nested_of(m);
	m->invalid |= hw_guest_invalid(m->vcpu, NULL);
	bool moved = is_elsewhere(m) != m->elsewhere;
	if (likely(!moved && __atomic_load_n(&n->layout, __ATOMIC_ACQUIRE) == __atomic_load_n(&m->vcpu->ram->layout, __ATOMIC_SEQ_CST)))
		return;
	host_lock(&n->lock);
	if (moved)
		follow_apic(m, n);
	follow_layout(m, n);
	host_unlock(&n->lock);
}

/* ---- faults ---- */

static enum hw_fault fault_elsewhere(struct hw_memory *m, struct nested *n, u64 address)
{
	host_lock(&n->lock);
	bool done = fill_apic(m, n, address);
	host_unlock(&n->lock);
	m->fills += done;
	m->emulated += !done;
	m->device = address;
	return done ? HW_FAULT_RETRY : HW_FAULT_DEVICE;
}

/* Several vCPUs may fault for one page: the later ones find it entered. */
static enum hw_fault fault(struct hw_memory *m, u64 address, u32 error)
{
	struct nested *n = nested_of(m);
	struct ram_slot *slot = ram_find(m->vcpu->ram, address);
	bool write = error & PF_WR, done = false;
	if (!slot && n->apic)
		return fault_elsewhere(m, n, address);
	if (slot && !(write && ram_readonly(slot, address))) {
		host_lock(&n->lock);
		if (write && slot->log_dirty)
			__atomic_fetch_or(&slot->flags[(address - slot->base) >> PAGE_SHIFT], PAGE_DIRTY, __ATOMIC_SEQ_CST);
		done = fill(n, m->format, slot, address);
		host_unlock(&n->lock);
	}
	m->fills += done;
	m->emulated += !done;
	m->device = address;
	return done ? HW_FAULT_RETRY : slot ? HW_FAULT_EMULATE : HW_FAULT_DEVICE;
}

/* ---- life ---- */

static u64 root(struct hw_memory *m)
{
	return nested_of(m)->root;
}

static void control(struct hw_memory *m, struct hw_control *c)
{
	*c = (struct hw_control){ 0 };
}

static void destroy_tables(const struct hw_format *f, u64 *table, unsigned level)
{
	for (unsigned i = 0; level && i < HW_ENTRIES; i++)
		if (table[i] && !hw_is_leaf(f, level, table[i]))
			destroy_tables(f, hw_table_of(table[i]), level - 1);
	hw_table_destroy(table);
}

static struct nested *nested_create(const struct ram *ram)
{
	struct nested *n = host_alloc(sizeof(*n));
	u64 *top = hw_table_create();
	if (!n || !top) {
		hw_table_destroy(top);
		host_free(n);
		return NULL;
	}
	n->top = top;
	n->root = host_physical(top);
	n->layout = __atomic_load_n(&ram->layout, __ATOMIC_SEQ_CST);
	host_lock_init(&n->lock);
	return n;
}

static void release(struct ram *ram, const struct hw_format *f)
{
	struct nested *n = ram->engine;
	if (n->vcpus)
		return;
	destroy_tables(f, n->top, f->levels - 1u);
	host_pages_destroy(n->apic, 1);
	host_free(n);
	ram->engine = NULL;
}

static struct hw_memory *create(struct vcpu *vcpu, const struct hw_format *format)
{
	struct ram *ram = vcpu->ram;
	if (!ram->engine)
		ram->engine = nested_create(ram);
	if (!ram->engine)
		return NULL;
	struct nested *n = ram->engine;
	struct hw_memory *m = host_alloc(sizeof(*m));
	if (!m) {
		release(ram, format);
		return NULL;
	}
	*m = (struct hw_memory){ .ops = &hw_memory_nested, .format = format, .vcpu = vcpu, .generation = &n->generation, .cpu = ~0u };
	n->vcpus++;
	return m;
}

static void destroy(struct hw_memory *m)
{
	struct nested *n = nested_of(m);
	n->vcpus--;
	n->elsewhere -= m->elsewhere;
	release(m->vcpu->ram, m->format);
	host_free(m);
}

const struct hw_memory_ops hw_memory_nested = {
	.name = "nested",
	.nested = true,
	.create = create,
	.destroy = destroy,
	.prepare = prepare,
	.control = control,
	.root = root,
	.fault = fault,
};
