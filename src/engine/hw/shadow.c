/* Brute-force shadowing (E1): address spaces, faults and life. shadow.h tells how it works. */
#include "engine/hw/shadow.h"

#define TRIES 8

static struct shadow *shadow_of(struct hw_memory *m)
{
	return container_of(m, struct shadow, memory);
}

/* ---- contexts ---- */

void shadow_evict(struct shadow *s, struct context *c)
{
	hw_tree_empty(&s->nodes, c->top);
	shadow_end_uses(s, c);
	c->top = NULL;
	shadow_forget(s);
}

/* Nothing can be written to by what is empty. */
static void no_writers(struct shadow *s)
{
	__builtin_memset(s->writer_bucket, 0, sizeof(s->writer_bucket));
	s->writers = 0;
}

void shadow_empty(struct shadow *s)
{
	for (unsigned i = 0; i < CONTEXTS; i++)
		if (s->context[i].top)
			hw_tree_empty(&s->nodes, s->context[i].top);
	no_writers(s);
	shadow_forget(s);
}

/* The context in use stays so. */
void shadow_drop(struct shadow *s)
{
	struct hw_node *top = s->current->top;
	for (unsigned i = 0; i < CONTEXTS; i++)
		if (s->context[i].top)
			shadow_evict(s, &s->context[i]);
	s->current->top = top;
	shadow_end_records(s);
	no_writers(s);
}

/* What names the guest's address space now. Without paging there is one. */
static struct context name_of(const struct vcpu *v)
{
	struct context name = { 0 };
	if (!(v->cr0 & CR0_PG))
		return name;
	if (vcpu_long_mode(v) || !(v->cr4 & CR4_PAE)) {
		name.cr3 = v->cr3 & PTE_ADDR;
		return name;
	}
	for (unsigned i = 0; i < 4; i++)
		name.pdpte[i] = (v->pdpte[i] & PTE_P) ? v->pdpte[i] & (PTE_ADDR | PTE_P) : 0;
	return name;
}

static bool same_name(const struct context *a, const struct context *b)
{
	return a->cr3 == b->cr3 && !__builtin_memcmp(a->pdpte, b->pdpte, sizeof(a->pdpte));
}

/* A free one, or the one not used for longest. */
static struct context *oldest(struct shadow *s)
{
	struct context *c = &s->context[0];
	for (unsigned i = 1; i < CONTEXTS; i++) {
		struct context *other = &s->context[i];
		if (c->top && (!other->top || other->turn < c->turn))
			c = other;
	}
	return c;
}

/* Trees are made at first, when there is always memory for two, and shared by all contexts until there is more. */
static bool take_tree(struct shadow *s, struct context *c, bool wide)
{
	if (!c->tree[wide])
		c->tree[wide] = hw_tree_create(&s->nodes, wide);
	c->top = c->tree[wide];
	return c->top;
}

static void use_context(struct shadow *s, struct context *c, bool wide, const struct context *name)
{
	if (c->top)
		shadow_evict(s, c);
	if (!take_tree(s, c, wide)) {
		c = &s->context[0]; /* which has both */
		if (c->top)
			shadow_evict(s, c);
		take_tree(s, c, wide);
	}
	c->cr3 = name->cr3;
	__builtin_memcpy(c->pdpte, name->pdpte, sizeof(c->pdpte));
	s->current = c;
}

static void choose_context(struct shadow *s)
{
	struct context name = name_of(s->memory.vcpu), *c = s->current;
	if (unlikely(!c->top || !same_name(c, &name))) {
		for (c = s->context; c < s->context + CONTEXTS && (!c->top || !same_name(c, &name)); c++)
			;
		if (c < s->context + CONTEXTS)
			s->current = c;
		else
			use_context(s, oldest(s), vcpu_long_mode(s->memory.vcpu), &name);
		shadow_forget(s);
	}
	s->current->turn = ++s->turn;
}

static void follow_mode(struct shadow *s)
{
	const struct vcpu *v = s->memory.vcpu;
	bool wide = vcpu_long_mode(v);
	shadow_drop(s);
	s->entry_size = wide || (v->cr4 & CR4_PAE) ? 8 : 4;
	s->current->top = NULL;
	struct context name = name_of(v);
	use_context(s, &s->context[0], wide, &name);
}

static void prepare(struct hw_memory *m)
{
	struct shadow *s = shadow_of(m);
	struct invalid invalid;
	bool any = hw_guest_invalid(m->vcpu, &invalid);
	if (unlikely(hw_guest_mode_changed(m->vcpu, &s->mode)))
		follow_mode(s);
	if (any && invalid.all)
		shadow_compare_all(s);
	if (any)
		shadow_forget(s);
	choose_context(s);
	shadow_follow(s);
}

/* ---- faults ---- */

static bool same_trace(const struct walk_trace *a, const struct walk_trace *b)
{
	if (a->levels != b->levels)
		return false;
	for (unsigned i = 0; i < a->levels; i++)
		if (a->entry[i].gpa != b->entry[i].gpa || ((a->entry[i].value ^ b->entry[i].value) & ~(PTE_A | PTE_D)))
			return false;
	return true;
}

/* False: there is no room. */
static bool enter(struct shadow *s, gla_t gla, const struct hw_guest_page *page, bool *same)
{
	u64 *where;
	enum hw_entered entered = hw_tree_enter(&s->nodes, s->current->top, gla, page, &where);
	*same = entered == HW_SAME;
	if (entered == HW_ENTERED_OVER)
		shadow_forget(s);
	if (entered == HW_NO_ROOM)
		return false;
	if (!(page->rights & HW_WRITE) || shadow_add_writer(s, where))
		return true;
	hw_store(where, hw_load(where) & ~PTE_W);
	return false;
}

static enum hw_fault finish(struct shadow *s, gla_t gla, const struct hw_guest_page *page)
{
	bool same;
	if (!enter(s, gla, page, &same)) {
		shadow_drop(s); /* and the next fault begins with the guest's tables */
		return HW_FAULT_RETRY;
	}
	return same ? HW_FAULT_EMULATE : HW_FAULT_RETRY;
}

/* What is entered was read from tables that were watched before, and did not change meanwhile. */
static enum hw_fault answer(struct shadow *s, gla_t gla, u32 error)
{
	struct vcpu *v = s->memory.vcpu;
	struct hw_guest_page page;
	struct walk_trace before, after;
	for (unsigned i = 0; i < TRIES; i++) {
		bool paging = v->cr0 & CR0_PG, mapped = paging && walk_trace(v, gla, &before), fresh = false;
		if (mapped && !shadow_watch(s, gla, &before, &fresh)) {
			shadow_drop(s);
			return HW_FAULT_EMULATE;
		}
		if (fresh)
			continue;
		enum hw_fault answer = hw_guest_fault(v, gla, error, &page);
		s->memory.device = page.walk.gpa | (gla & ~PAGE_MASK);
		if (answer != HW_FAULT_RETRY || !paging)
			return answer == HW_FAULT_RETRY ? finish(s, gla, &page) : answer;
		if (!mapped || !walk_trace(v, gla, &after) || !same_trace(&before, &after))
			continue;
		shadow_note(s, &after);
		return finish(s, gla, &page);
	}
	return HW_FAULT_EMULATE;
}

static enum hw_fault fault(struct hw_memory *m, u64 address, u32 error)
{
	prepare(m);
	m->stored = 0;
	enum hw_fault result = is_canonical(address, 48) ? answer(shadow_of(m), address, error) : HW_FAULT_EMULATE;
	m->fills += result == HW_FAULT_RETRY;
	m->emulated += result != HW_FAULT_RETRY && result != HW_FAULT_GUEST;
	return result;
}

/* ---- life ---- */

static u64 root(struct hw_memory *m)
{
	return shadow_of(m)->current->top->physical;
}

static void control(struct hw_memory *m, struct hw_control *c)
{
	hw_guest_control(m->vcpu, c);
}

static void machine_release(struct ram *ram)
{
	struct shadow_machine *machine = ram->engine;
	if (machine->vcpus)
		return;
	for (unsigned i = 0; i < RAM_SLOTS_MAX; i++)
		if (machine->references[i])
			host_table_destroy(machine->references[i], machine->slot_pages[i]);
	host_free(machine);
	ram->engine = NULL;
}

static struct shadow_machine *machine_create(struct ram *ram)
{
	struct shadow_machine *machine = ram->engine = host_alloc(sizeof(*machine));
	if (!machine)
		return NULL;
	host_lock_init(&machine->lock);
	for (unsigned i = 0; i < ram->slots; i++) {
		machine->slot_pages[i] = ((ram->slot[i].size >> PAGE_SHIFT) + PAGE_SIZE - 1) & PAGE_MASK;
		machine->references[i] = host_table_create(machine->slot_pages[i]);
		if (machine->references[i])
			continue;
		machine_release(ram);
		return NULL;
	}
	return machine;
}

static void destroy(struct hw_memory *m)
{
	struct shadow *s = shadow_of(m);
	struct ram *ram = m->vcpu->ram;
	if (s->current)
		shadow_drop(s);
	for (unsigned i = 0; i < CONTEXTS; i++) {
		hw_tree_destroy(s->context[i].tree[false]);
		hw_tree_destroy(s->context[i].tree[true]);
	}
	hw_nodes_destroy(&s->nodes);
	if (s->writer)
		host_table_destroy(s->writer, WRITERS_MAX * sizeof(*s->writer));
	if (s->machine) {
		unsigned i = 0;
		while (s->machine->vcpu[i] != m->vcpu)
			i++;
		s->machine->vcpu[i] = s->machine->vcpu[--s->machine->vcpus];
		machine_release(ram);
	}
	host_free(s);
}

static bool set_up(struct shadow *s)
{
	struct vcpu *vcpu = s->memory.vcpu;
	struct shadow_machine *machine = vcpu->ram->engine ? vcpu->ram->engine : machine_create(vcpu->ram);
	if (!machine || machine->vcpus == RAM_USERS_MAX)
		return false;
	machine->vcpu[machine->vcpus++] = vcpu;
	s->machine = machine;
	s->watched_seen = machine->watched_count;
	s->writes_seen = __atomic_load_n(&vcpu->ram->code_logged, __ATOMIC_SEQ_CST);
	s->writer = host_table_create(WRITERS_MAX * sizeof(*s->writer));
	struct context *first = &s->context[0];
	if (!s->writer || !take_tree(s, first, true) || !take_tree(s, first, false))
		return false;
	s->current = first;
	s->entry_size = 4;
	return true;
}

static struct hw_memory *create(struct vcpu *vcpu, const struct hw_format *format)
{
	struct shadow *s = host_alloc(sizeof(*s));
	if (!s)
		return NULL;
	s->memory = (struct hw_memory){ .ops = &hw_memory_shadow, .format = format, .vcpu = vcpu, .generation = &s->generation, .cpu = ~0u };
	if (set_up(s))
		return &s->memory;
	destroy(&s->memory);
	return NULL;
}

const struct hw_memory_ops hw_memory_shadow = {
	.name = "shadow",
	.create = create,
	.destroy = destroy,
	.prepare = prepare,
	.control = control,
	.root = root,
	.fault = fault,
};
