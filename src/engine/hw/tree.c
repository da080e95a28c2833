/* Tables that the real CR3 points to (engine/hw/tree.h). */
#include "engine/hw/tree.h"

#include "host/port.h"
#include "lib/string.h"

#define PDPTES 4

/* ---- nodes ---- */

static void node_destroy(struct hw_node *n)
{
	if (!n)
		return;
	hw_table_destroy(n->table);
	host_free(n->child);
	host_free(n);
}

static struct hw_node *node_create(unsigned level)
{
	struct hw_node *n = host_alloc(sizeof(*n));
	if (!n)
		return NULL;
	n->table = hw_table_create();
	n->child = level ? host_alloc(HW_ENTRIES * sizeof(struct hw_node *)) : NULL;
	if (n->table && (n->child || !level)) {
		n->physical = host_physical(n->table);
		return n;
	}
	node_destroy(n);
	return NULL;
}

/* An empty node, or NULL. */
static struct hw_node *node_take(struct hw_nodes *nodes, unsigned level)
{
	struct hw_node **list = &nodes->free[level > 0], *n = *list;
	if (n) {
		*list = n->next;
	} else {
		n = nodes->count < HW_NODES_MAX ? node_create(level) : NULL;
		nodes->count += !!n;
	}
	if (n)
		n->level = (u8)level;
	return n;
}

static void node_give(struct hw_nodes *nodes, struct hw_node *n);

/* The first entry that is not 0 from i on, or HW_ENTRIES. */
static unsigned next_present(const struct hw_node *n, unsigned i)
{
	for (u64 hide = mask_of(i % 64); i < HW_ENTRIES; i = (i | 63) + 1, hide = 0) {
		u64 word = n->present[i / 64] & ~hide;
		if (word)
			return (i & ~63u) + (unsigned)__builtin_ctzll(word);
	}
	return HW_ENTRIES;
}

static void clear_entry(struct hw_nodes *nodes, struct hw_node *n, unsigned i)
{
	u64 value = n->table[i];
	if (!value)
		return;
	hw_store(&n->table[i], 0);
	n->present[i / 64] &= ~BIT(i % 64);
	n->used--;
	if (n->level && n->child[i]) {
		node_give(nodes, n->child[i]);
		n->child[i] = NULL;
	} else {
		n->global -= !!(value & hw_format_shadow.global);
	}
}

static void node_empty(struct hw_nodes *nodes, struct hw_node *n)
{
	for (unsigned i = next_present(n, 0); i < HW_ENTRIES; i = next_present(n, i + 1))
		clear_entry(nodes, n, i);
	n->pieces = false;
}

static void node_give(struct hw_nodes *nodes, struct hw_node *n)
{
	node_empty(nodes, n);
	n->next = nodes->free[n->level > 0];
	nodes->free[n->level > 0] = n;
}

static void set_entry(struct hw_node *n, unsigned i, u64 value)
{
	n->used += !n->table[i];
	n->present[i / 64] |= BIT(i % 64);
	hw_store(&n->table[i], value);
}

/* ---- taking out ---- */

void hw_tree_empty(struct hw_nodes *nodes, struct hw_node *top)
{
	if (!top->pdpt)
		node_empty(nodes, top);
	for (unsigned i = 0; top->pdpt && i < PDPTES; i++)
		node_empty(nodes, top->child[i]);
}

/* Tables with nothing left go, too. */
void hw_tree_take_local(struct hw_nodes *nodes, struct hw_node *n)
{
	if (!n->level && !n->global) {
		node_empty(nodes, n);
		return;
	}
	for (unsigned i = next_present(n, 0); i < HW_ENTRIES; i = next_present(n, i + 1)) {
		struct hw_node *child = n->level ? n->child[i] : NULL;
		if (child)
			hw_tree_take_local(nodes, child);
		if (child ? !child->used && !n->pdpt : !(n->table[i] & hw_format_shadow.global))
			clear_entry(nodes, n, i);
	}
}

/* Where there are pieces, all of the table goes. */
void hw_tree_take_page(struct hw_nodes *nodes, struct hw_node *n, gla_t gla)
{
	while (n && n->level > 1)
		n = n->child[hw_index(gla, n->level)];
	if (n && !n->pieces && n->child[hw_index(gla, 1)])
		n = n->child[hw_index(gla, 1)];
	if (!n)
		return;
	if (n->pieces)
		node_empty(nodes, n);
	else
		clear_entry(nodes, n, hw_index(gla, n->level));
}

void hw_tree_take_range(struct hw_nodes *nodes, struct hw_node *n, gla_t gla, unsigned shift)
{
	gla &= ~mask_of(shift);
	while (hw_shift(n->level) > shift && n->level && n->child[hw_index(gla, n->level)])
		n = n->child[hw_index(gla, n->level)];
	unsigned count = shift > hw_shift(n->level) ? 1u << (shift - hw_shift(n->level)) : 1;
	for (unsigned i = hw_index(gla, n->level), end = i + count; i < end; i++)
		clear_entry(nodes, n, i);
}

/* ---- entering ---- */

/* The node below, made if there is none. A larger page here is not what the guest has now. NULL: there is no room. */
static struct hw_node *below(struct hw_nodes *nodes, struct hw_node *n, unsigned i, bool *over)
{
	if (n->child[i])
		return n->child[i];
	struct hw_node *child = node_take(nodes, n->level - 1u);
	if (!child)
		return NULL;
	*over |= n->table[i] != 0;
	clear_entry(nodes, n, i);
	n->child[i] = child;
	set_entry(n, i, hw_table_entry(&hw_format_shadow, child->physical));
	return child;
}

enum hw_entered hw_tree_enter(struct hw_nodes *nodes, struct hw_node *n, gla_t gla, const struct hw_guest_page *p, u64 **where)
{
	bool over = false;
	unsigned i = hw_index(gla, n->level);
	while (n->level > p->page.level || (n->level && n->child[i])) {
		n = below(nodes, n, i, &over);
		if (!n)
			return HW_NO_ROOM;
		n->pieces |= n->level < 2 && p->walk.page_shift > hw_shift(n->level);
		i = hw_index(gla, n->level);
	}
	u64 physical = p->page.physical | (p->walk.gpa & mask_of(hw_shift(p->page.level)) & ~mask_of(hw_shift(n->level)));
	u64 value = hw_leaf_entry(&hw_format_shadow, n->level, physical, p->rights);
	*where = &n->table[i];
	if (n->table[i] == value)
		return HW_SAME;
	over |= n->table[i] != 0;
	clear_entry(nodes, n, i);
	n->global += !!(value & hw_format_shadow.global);
	set_entry(n, i, value);
	return over ? HW_ENTERED_OVER : HW_ENTERED;
}

/* ---- life ---- */

void hw_tree_destroy(struct hw_node *n)
{
	for (unsigned i = 0; n && n->level && i < HW_ENTRIES; i++)
		hw_tree_destroy(n->child[i]);
	node_destroy(n);
}

void hw_nodes_destroy(struct hw_nodes *nodes)
{
	for (unsigned i = 0; i < ARRAY_SIZE(nodes->free); i++) {
		for (struct hw_node *n = nodes->free[i], *next; n; n = next) {
			next = n->next;
			node_destroy(n);
		}
	}
	*nodes = (struct hw_nodes){ 0 };
}

/* PDPTEs have nothing but P. */
static bool set_pdptes(struct hw_nodes *nodes, struct hw_node *top)
{
	top->pdpt = true;
	for (unsigned i = 0; i < PDPTES; i++) {
		top->child[i] = node_take(nodes, 1);
		if (!top->child[i])
			return false;
		set_entry(top, i, top->child[i]->physical | PTE_P);
	}
	return !(top->physical >> 32);
}

struct hw_node *hw_tree_create(struct hw_nodes *nodes, bool wide)
{
	struct hw_node *top = node_take(nodes, wide ? 3 : 2);
	if (!top || wide || set_pdptes(nodes, top))
		return top;
	hw_tree_destroy(top);
	return NULL;
}
