/* Tables that the real CR3 points to, from guest linear to host physical addresses, for the back ends that keep such. They belong to one vCPU's thread, and are
 * changed only while that vCPU is not in its guest: whoever takes something out sees to it that its CPU forgets before it is there again.
 *
 * In long mode the tables have four levels; else the hardware runs with PAE paging, whatever the guest has, if anything: three levels, the first of which
 * is four entries (PDPTEs), which the CPU may keep, so that what they point to never changes.
 *
 *	node	a table, and what is known of what is in it
 *	piece	an entry that is part of a larger page of the guest's: an INVLPG anywhere in that page must take it out */
#ifndef NADIR_ENGINE_HW_TREE_H
#define NADIR_ENGINE_HW_TREE_H

#include "engine/hw/guest.h"

#define HW_NODES_MAX 2048 /* of 2 MiB of addresses each, for the most part */

struct hw_node {
	u64 *table;
	u64 physical; /* of the table */
	u64 present[HW_ENTRIES / 64]; /* a bit for each entry that is not 0 */
	struct hw_node **child; /* as the entries; NULL at level 0 */
	struct hw_node *next; /* of free ones */
	u8 level;
	bool pdpt; /* of PAE paging */
	bool pieces; /* at level 0 and 1: some of what is in the table, or below it, may be such */
	u16 used, global; /* entries; and leaves that are global */
};

struct hw_nodes {
	struct hw_node *free[2]; /* of level 0, and of others */
	unsigned count;
};

/* A top for long mode or PAE paging. NULL: no memory, or none below 4 GiB, where CR3 reaches in PAE paging, or there are too many nodes. */
struct hw_node *hw_tree_create(struct hw_nodes *nodes, bool wide);
/* Everything in it goes, and the nodes are free for others. */
void hw_tree_empty(struct hw_nodes *nodes, struct hw_node *top);
void hw_tree_destroy(struct hw_node *top);
/* The free ones. */
void hw_nodes_destroy(struct hw_nodes *nodes);

/* What became of a page that was to be entered. */
enum hw_entered {
	HW_ENTERED,
	HW_ENTERED_OVER, /* over something else, which the CPU must forget */
	HW_SAME, /* it was there already, with the same rights */
	HW_NO_ROOM,
};
/* Where it is, is *where. */
enum hw_entered hw_tree_enter(struct hw_nodes *nodes, struct hw_node *top, gla_t gla, const struct hw_guest_page *page, u64 **where);

/* Take out all that is not global. */
void hw_tree_take_local(struct hw_nodes *nodes, struct hw_node *top);
/* As INVLPG wants it. */
void hw_tree_take_page(struct hw_nodes *nodes, struct hw_node *top, gla_t gla);
/* The naturally aligned range of BIT(shift) bytes at gla. */
void hw_tree_take_range(struct hw_nodes *nodes, struct hw_node *top, gla_t gla, unsigned shift);

#endif
