/* The virtual TLB (E2): tables from guest linear to host physical addresses, used as the CPU uses its TLB. A page fault that the guest's tables do not
 * justify enters a page; INVLPG takes pages out, a load of CR3 all that are not global, and a change of modes everything. What the guest writes to its tables
 * is not noticed before that, as with a TLB. Each vCPU has its own.
 *
 * In long mode the tables have four levels; else the hardware runs with PAE paging, whatever the guest has, if anything: three levels, the first of which
 * is four entries (PDPTEs), which the CPU may keep, so that what they point to never changes.
 *
 *	node		a table, and what is known of what is in it
 *	piece		an entry that is part of a larger page of the guest's: INVLPG anywhere in that page must take it out, and takes out the whole table
 *
 * Intel SDM volume 3, "Caching Translation Information", "PAE Paging"; AMD APM volume 2, "Shadow Paging". */
#include "engine/hw/guest.h"
#include "host/port.h"
#include "lib/string.h"

#define NODES_MAX 2048 /* of 2 MiB of addresses each, for the most part; with more than these the TLB begins anew */
#define LEVELS 4
#define PDPTES 4

struct node {
	u64 *table;
	struct node **child; /* as the entries; NULL at level 0 */
	struct node *next; /* of free ones */
	u8 level;
	bool pieces; /* some of what is in the table, or below it where that is at level 0 or 1, may be such */
	u16 used, global; /* entries; and leaves that are global */
};

struct vtlb {
	struct hw_memory memory; /* first */
	struct node *top; /* the one in use */
	struct node *long_top, *pae_top;
	struct node *free[2]; /* of level 0, and of others */
	unsigned nodes;
	u32 generation;
	struct hw_guest_mode mode;
};

static struct vtlb *vtlb_of(struct hw_memory *m)
{
	return container_of(m, struct vtlb, memory);
}

static void forget(struct vtlb *t)
{
	__atomic_fetch_add(&t->generation, 1, __ATOMIC_SEQ_CST);
}

/* ---- nodes ---- */

static void node_destroy(struct node *n)
{
	if (!n)
		return;
	hw_table_destroy(n->table);
	host_free(n->child);
	host_free(n);
}

static struct node *node_create(unsigned level)
{
	struct node *n = host_alloc(sizeof(*n));
	if (!n)
		return NULL;
	n->table = hw_table_create();
	n->child = level ? host_alloc(HW_ENTRIES * sizeof(*n->child)) : NULL;
	if (n->table && (n->child || !level))
		return n;
	node_destroy(n);
	return NULL;
}

/* An empty node, or NULL. */
static struct node *node_take(struct vtlb *t, unsigned level)
{
	struct node **list = &t->free[level > 0], *n = *list;
	if (n) {
		*list = n->next;
	} else {
		n = t->nodes < NODES_MAX ? node_create(level) : NULL;
		t->nodes += !!n;
	}
	if (n)
		n->level = (u8)level;
	return n;
}

static void node_give(struct vtlb *t, struct node *n);

static void clear_entry(struct vtlb *t, struct node *n, unsigned i)
{
	u64 value = n->table[i];
	if (!value)
		return;
	hw_store(&n->table[i], 0);
	n->used--;
	if (n->level && n->child[i]) {
		node_give(t, n->child[i]);
		n->child[i] = NULL;
	} else {
		n->global -= !!(value & hw_format_shadow.global);
	}
}

/* The vCPU is not in its guest, and its CPU forgets before it is there again: nobody looks at what is taken out. */
static void node_empty(struct vtlb *t, struct node *n)
{
	for (unsigned i = 0; n->level && n->used && i < HW_ENTRIES; i++)
		clear_entry(t, n, i);
	if (n->used)
		memset(n->table, 0, PAGE_SIZE);
	n->used = n->global = 0;
	n->pieces = false;
}

static void node_give(struct vtlb *t, struct node *n)
{
	node_empty(t, n);
	n->next = t->free[n->level > 0];
	t->free[n->level > 0] = n;
}

/* ---- taking out ---- */

static void empty(struct vtlb *t)
{
	for (unsigned i = 0; i < PDPTES; i++)
		node_empty(t, t->pae_top->child[i]);
	node_empty(t, t->long_top);
	forget(t);
}

static bool is_pdpt(const struct vtlb *t, const struct node *n)
{
	return n == t->pae_top;
}

/* All that is not global; tables with nothing left go, too. */
static void empty_local(struct vtlb *t, struct node *n)
{
	if (!n->level && !n->global) {
		node_empty(t, n);
		return;
	}
	for (unsigned i = 0; n->used && i < (is_pdpt(t, n) ? PDPTES : HW_ENTRIES); i++) {
		struct node *child = n->level ? n->child[i] : NULL;
		if (child)
			empty_local(t, child);
		if (child ? !child->used && !is_pdpt(t, n) : !(n->table[i] & hw_format_shadow.global))
			clear_entry(t, n, i);
	}
}

static void take_out(struct vtlb *t, gla_t gla)
{
	struct node *n = t->top;
	while (n && n->level > 1)
		n = n->child[hw_index(gla, n->level)];
	if (n && !n->pieces && n->child[hw_index(gla, 1)])
		n = n->child[hw_index(gla, 1)];
	if (!n)
		return;
	if (n->pieces)
		node_empty(t, n);
	else
		clear_entry(t, n, hw_index(gla, n->level));
}

static void follow_guest(struct vtlb *t, const struct invalid *invalid)
{
	if (invalid->all)
		empty(t);
	else if (invalid->local)
		empty_local(t, t->top);
	for (unsigned i = 0; !invalid->all && i < invalid->pages; i++)
		take_out(t, invalid->page[i]);
	forget(t);
}

static void prepare(struct hw_memory *m)
{
	struct vtlb *t = vtlb_of(m);
	struct invalid invalid;
	bool any = hw_guest_invalid(m->vcpu, &invalid);
	if (unlikely(hw_guest_mode_changed(m->vcpu, &t->mode))) {
		empty(t);
		t->top = vcpu_long_mode(m->vcpu) ? t->long_top : t->pae_top;
	} else if (any) {
		follow_guest(t, &invalid);
	}
}

/* ---- entering ---- */

static void set_entry(struct node *n, unsigned i, u64 value)
{
	n->used += !n->table[i];
	hw_store(&n->table[i], value);
}

/* The node below, made if there is none. A larger page here is not what the guest has now. NULL: no memory, or no more nodes. */
static struct node *below(struct vtlb *t, struct node *n, unsigned i)
{
	if (n->child[i])
		return n->child[i];
	struct node *child = node_take(t, n->level - 1u);
	if (!child)
		return NULL;
	if (n->table[i]) {
		clear_entry(t, n, i);
		forget(t);
	}
	n->child[i] = child;
	set_entry(n, i, hw_table_entry(&hw_format_shadow, child->table));
	return child;
}

/* False: there is no room. *same says that the page was entered so already. */
static bool enter(struct vtlb *t, gla_t gla, const struct hw_guest_page *p, bool *same)
{
	struct node *n = t->top;
	unsigned i = hw_index(gla, n->level);
	while (n->level > p->page.level || (n->level && n->child[i])) {
		n = below(t, n, i);
		if (!n)
			return false;
		n->pieces |= n->level < 2 && p->walk.page_shift > hw_shift(n->level);
		i = hw_index(gla, n->level);
	}
	u64 physical = p->page.physical | (p->walk.gpa & mask_of(hw_shift(p->page.level)) & ~mask_of(hw_shift(n->level)));
	u64 value = hw_leaf_entry(&hw_format_shadow, n->level, physical, p->rights);
	*same = n->table[i] == value;
	if (*same)
		return true;
	clear_entry(t, n, i);
	n->global += !!(value & hw_format_shadow.global);
	set_entry(n, i, value);
	return true;
}

static enum hw_fault answer(struct vtlb *t, gla_t gla, u32 error)
{
	struct hw_guest_page page;
	bool same;
	enum hw_fault answer = hw_guest_fault(t->memory.vcpu, gla, error, &page);
	if (answer != HW_FAULT_RETRY)
		return answer;
	if (!enter(t, gla, &page, &same)) {
		empty(t);
		if (!enter(t, gla, &page, &same))
			return HW_FAULT_EMULATE;
	}
	return same ? HW_FAULT_EMULATE : HW_FAULT_RETRY;
}

/* A guest that changed its tables meanwhile without invalidating anything may find either. */
static enum hw_fault fault(struct hw_memory *m, u64 address, u32 error)
{
	prepare(m);
	enum hw_fault result = is_canonical(address, 48) ? answer(vtlb_of(m), address, error) : HW_FAULT_EMULATE;
	m->fills += result == HW_FAULT_RETRY;
	m->emulated += result == HW_FAULT_EMULATE;
	return result;
}

/* ---- life ---- */

static u64 root(struct hw_memory *m)
{
	return host_physical(vtlb_of(m)->top->table);
}

static void control(struct hw_memory *m, struct hw_control *c)
{
	hw_guest_control(m->vcpu, c);
}

static void destroy_below(struct node *n)
{
	for (unsigned i = 0; n && n->level && i < HW_ENTRIES; i++)
		destroy_below(n->child[i]);
	node_destroy(n);
}

static void destroy_all(struct vtlb *t)
{
	destroy_below(t->long_top);
	destroy_below(t->pae_top);
	for (unsigned i = 0; i < ARRAY_SIZE(t->free); i++) {
		for (struct node *n = t->free[i], *next; n; n = next) {
			next = n->next;
			node_destroy(n);
		}
	}
	host_free(t);
}

/* Without anything but P in the first level; CR3 has 32 bits there. */
static bool create_tops(struct vtlb *t)
{
	t->long_top = node_take(t, LEVELS - 1);
	t->pae_top = node_take(t, LEVELS - 2);
	if (!t->long_top || !t->pae_top || host_physical(t->pae_top->table) >> 32)
		return false;
	for (unsigned i = 0; i < PDPTES; i++) {
		t->pae_top->child[i] = node_take(t, 1);
		if (!t->pae_top->child[i])
			return false;
		set_entry(t->pae_top, i, host_physical(t->pae_top->child[i]->table) | PTE_P);
	}
	return true;
}

/* Only what is made as hw_format_shadow says can be walked by CR3. */
static struct hw_memory *create(struct vcpu *vcpu, const struct hw_format *format)
{
	struct vtlb *t = host_alloc(sizeof(*t));
	if (!t)
		return NULL;
	if (!create_tops(t)) {
		destroy_all(t);
		return NULL;
	}
	t->top = t->pae_top;
	t->memory = (struct hw_memory){ .ops = &hw_memory_vtlb, .format = format, .vcpu = vcpu, .generation = &t->generation, .cpu = ~0u };
	return &t->memory;
}

static void destroy(struct hw_memory *m)
{
	destroy_all(vtlb_of(m));
}

const struct hw_memory_ops hw_memory_vtlb = {
	.name = "vtlb",
	.create = create,
	.destroy = destroy,
	.prepare = prepare,
	.control = control,
	.root = root,
	.fault = fault,
};
