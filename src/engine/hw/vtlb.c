/* The virtual TLB (E2): tables from guest linear to host physical addresses (tree.h), used as the CPU uses its TLB. A page fault that the guest's tables do not
 * justify enters a page; INVLPG takes pages out, a load of CR3 all that are not global, and a change of modes everything. What the guest writes to its tables
 * is not noticed before that, as with a TLB. Each vCPU has its own.
 *
 * Intel SDM volume 3, "Caching Translation Information"; AMD APM volume 2, "Shadow Paging". */
#include "engine/hw/tree.h"
#include "host/port.h"

struct vtlb {
	struct hw_memory memory; /* first */
	struct hw_nodes nodes;
	struct hw_node *top; /* the one in use */
	struct hw_node *wide, *narrow; /* long mode; all else */
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

/* ---- what the guest invalidates ---- */

static void empty(struct vtlb *t)
{
	hw_tree_empty(&t->nodes, t->top);
	forget(t);
}

static void follow_guest(struct vtlb *t, const struct invalid *invalid)
{
	if (invalid->all)
		hw_tree_empty(&t->nodes, t->top);
	else if (invalid->local)
		hw_tree_take_local(&t->nodes, t->top);
	for (unsigned i = 0; !invalid->all && i < invalid->pages; i++)
		hw_tree_take_page(&t->nodes, t->top, invalid->page[i]);
	forget(t);
}

static void prepare(struct hw_memory *m)
{
	struct vtlb *t = vtlb_of(m);
	struct invalid invalid;
	bool any = hw_guest_invalid(m->vcpu, &invalid);
	if (unlikely(hw_guest_mode_changed(m->vcpu, &t->mode))) {
		empty(t);
		t->top = vcpu_long_mode(m->vcpu) ? t->wide : t->narrow;
	} else if (any) {
		follow_guest(t, &invalid);
	}
}

/* ---- faults ---- */

static enum hw_fault answer(struct vtlb *t, gla_t gla, u32 error)
{
	struct hw_guest_page page;
	u64 *where;
	enum hw_fault answer = hw_guest_fault(t->memory.vcpu, gla, error, &page);
	t->memory.device = page.walk.gpa | (gla & ~PAGE_MASK);
	if (answer != HW_FAULT_RETRY)
		return answer;
	enum hw_entered entered = hw_tree_enter(&t->nodes, t->top, gla, &page, &where);
	if (entered == HW_NO_ROOM) {
		empty(t);
		entered = hw_tree_enter(&t->nodes, t->top, gla, &page, &where);
	}
	if (entered == HW_ENTERED_OVER)
		forget(t);
	return entered == HW_ENTERED || entered == HW_ENTERED_OVER ? HW_FAULT_RETRY : HW_FAULT_EMULATE;
}

static enum hw_fault fault(struct hw_memory *m, u64 address, u32 error)
{
	prepare(m);
	enum hw_fault result = is_canonical(address, 48) ? answer(vtlb_of(m), address, error) : HW_FAULT_EMULATE;
	m->fills += result == HW_FAULT_RETRY;
	m->emulated += result != HW_FAULT_RETRY && result != HW_FAULT_GUEST;
	return result;
}

/* ---- life ---- */

static u64 root(struct hw_memory *m)
{
	return vtlb_of(m)->top->physical;
}

static void control(struct hw_memory *m, struct hw_control *c)
{
	hw_guest_control(m->vcpu, c);
}

static void destroy(struct hw_memory *m)
{
	struct vtlb *t = vtlb_of(m);
	hw_tree_destroy(t->wide);
	hw_tree_destroy(t->narrow);
	hw_nodes_destroy(&t->nodes);
	host_free(t);
}

/* Only what is made as hw_format_shadow says can be walked by CR3. */
static struct hw_memory *create(struct vcpu *vcpu, const struct hw_format *format)
{
	struct vtlb *t = host_alloc(sizeof(*t));
	if (!t)
		return NULL;
	t->memory = (struct hw_memory){ .ops = &hw_memory_vtlb, .format = format, .vcpu = vcpu, .generation = &t->generation, .cpu = ~0u };
	t->wide = hw_tree_create(&t->nodes, true);
	t->narrow = t->top = hw_tree_create(&t->nodes, false);
	if (t->wide && t->narrow)
		return &t->memory;
	destroy(&t->memory);
	return NULL;
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
