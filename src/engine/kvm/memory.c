/* Guest memory as KVM's slots: the slots of struct ram, cut where pages are read-only for the guest. What the chipset switches changes few
 * of them, and only these are made anew; guest code that is executed from one at that moment, by another vCPU, would leave as MMIO. */
#include "engine/kvm/kvm.h"

static bool set_slot(struct kvm_machine *m, unsigned number, const struct kvm_slot *slot, u64 size)
{
	u32 flags = (slot->readonly ? KVM_MEM_READONLY : 0) | (slot->logged ? KVM_MEM_LOG_DIRTY_PAGES : 0);
	struct kvm_userspace_memory_region region = { .slot = number, .flags = flags, .guest_phys_addr = slot->gpa, .memory_size = size,
						      .userspace_addr = (u64)(uintptr_t)slot->hva };
	return host_kvm_call(m->file, KVM_SET_USER_MEMORY_REGION, (u64)(uintptr_t)&region) >= 0;
}

/* But for the log, which goes on and off with the slot in place. */
static bool same_slot(const struct kvm_slot *a, const struct kvm_slot *b)
{
	return a->gpa == b->gpa && a->size == b->size && a->hva == b->hva && a->readonly == b->readonly;
}

/* The pages from gpa on, within the slot, that are alike. */
static struct kvm_slot piece(const struct ram_slot *s, gpa_t gpa)
{
	struct kvm_slot p = { .gpa = gpa, .hva = s->hva + (gpa - s->base), .readonly = ram_readonly(s, gpa), .logged = s->log_dirty };
	while (gpa + p.size < s->base + s->size && ram_readonly(s, gpa + p.size) == p.readonly)
		p.size += PAGE_SIZE;
	return p;
}

/* All pieces; their number, or 0 if there are too many. */
static unsigned pieces(const struct ram *ram, struct kvm_slot *list)
{
	unsigned n = 0;
	for (unsigned i = 0; i < ram->slots; i++) {
		const struct ram_slot *s = &ram->slot[i];
		for (gpa_t gpa = s->base; s->base != RAM_NOWHERE && gpa < s->base + s->size; gpa += list[n++].size) {
			if (n == KVM_SLOTS_MAX)
				return 0;
			list[n] = piece(s, gpa);
		}
	}
	return n;
}

static bool listed(const struct kvm_slot *slot, const struct kvm_slot *list, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (same_slot(slot, &list[i]))
			return true;
	return false;
}

/* ---- the dirty log ---- */

static struct ram_slot *slot_of(struct ram *ram, const struct kvm_slot *k)
{
	for (unsigned i = 0; i < ram->slots; i++)
		if ((u64)(k->hva - ram->slot[i].hva) < ram->slot[i].size)
			return &ram->slot[i];
	return NULL;
}

static void all_dirty(struct ram *ram, const struct kvm_slot *k)
{
	struct ram_slot *s = slot_of(ram, k);
	static const u64 one = 1;
	for (u64 page = 0; s && s->log_dirty && page < k->size >> PAGE_SHIFT; page++)
		ram_log_add(s, ((u64)(k->hva - s->hva) >> PAGE_SHIFT) + page, 1, &one);
}

/* Take and clear the log of one slot; KVM write-protects what it tells. If it does not tell, all counts as written. */
static void gather(struct kvm_machine *m, struct ram *ram, unsigned number)
{
	const struct kvm_slot *k = &m->slot[number];
	struct ram_slot *s = slot_of(ram, k);
	u64 pages = k->size >> PAGE_SHIFT;
	u64 *bitmap = host_alloc((pages + 63) / 64 * sizeof(*bitmap));
	struct kvm_dirty_log log = { .slot = number, .dirty_bitmap = bitmap };
	if (s && bitmap && host_kvm_call(m->file, KVM_GET_DIRTY_LOG, (u64)(uintptr_t)&log) >= 0)
		ram_log_add(s, (u64)(k->hva - s->hva) >> PAGE_SHIFT, pages, bitmap);
	else
		all_dirty(ram, k);
	host_free(bitmap);
}

void kvm_gather_dirty(struct vcpu *vcpu)
{
	struct kvm_machine *m = kvm_of(vcpu)->machine;
	if (vcpu->index)
		return; /* the slots are the machine's */
	host_lock(&m->lock);
	for (unsigned i = 0; i < KVM_SLOTS_MAX; i++)
		if (m->slot[i].size && m->slot[i].logged)
			gather(m, vcpu->ram, i);
	host_unlock(&m->lock);
}

/* ---- changes ---- */

/* The log of a slot goes with it, and other vCPUs may be writing there until it has gone: all of it counts as written. */
static bool remove_old(struct kvm_machine *m, struct ram *ram, const struct kvm_slot *list, unsigned count)
{
	bool good = true;
	for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
		struct kvm_slot *s = &m->slot[i];
		if (!s->size || listed(s, list, count))
			continue;
		good &= set_slot(m, i, s, 0);
		if (s->logged)
			all_dirty(ram, s);
		s->size = 0;
	}
	return good;
}

static bool add_new(struct kvm_machine *m, const struct kvm_slot *list, unsigned count)
{
	bool good = true;
	for (unsigned i = 0, free = 0; i < count && good; i++) {
		if (listed(&list[i], m->slot, KVM_SLOTS_MAX))
			continue;
		while (m->slot[free].size)
			free++;
		m->slot[free] = list[i];
		good = set_slot(m, free, &list[i], list[i].size);
	}
	return good;
}

static bool switch_log(struct kvm_machine *m, const struct kvm_slot *list, unsigned count)
{
	bool good = true;
	for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
		struct kvm_slot *s = &m->slot[i];
		for (unsigned j = 0; s->size && j < count; j++) {
			if (!same_slot(s, &list[j]) || s->logged == list[j].logged)
				continue;
			s->logged = list[j].logged;
			good &= set_slot(m, i, s, s->size);
		}
	}
	return good;
}

/* KVM reads guest memory in the kernel, where nobody could bring in what is not there yet. */
static void make_ready(const struct ram *ram)
{
	for (unsigned i = 0; i < ram->slots; i++)
		host_ram_ready(ram->slot[i].hva, ram->slot[i].size);
}

bool kvm_map_memory(struct vcpu *vcpu)
{
	struct kvm_machine *m = kvm_of(vcpu)->machine;
	struct kvm_slot list[KVM_SLOTS_MAX];
	u32 layout = __atomic_load_n(&vcpu->ram->layout, __ATOMIC_SEQ_CST);
	if (likely(__atomic_load_n(&m->mapped, __ATOMIC_ACQUIRE) && __atomic_load_n(&m->layout, __ATOMIC_RELAXED) == layout))
		return true;
	host_lock(&m->lock);
	if (!m->mapped)
		make_ready(vcpu->ram);
	layout = __atomic_load_n(&vcpu->ram->layout, __ATOMIC_SEQ_CST);
	unsigned count = pieces(vcpu->ram, list);
	bool good = count && remove_old(m, vcpu->ram, list, count) && add_new(m, list, count) && switch_log(m, list, count);
	__atomic_store_n(&m->layout, layout, __ATOMIC_RELAXED);
	__atomic_store_n(&m->mapped, good, __ATOMIC_RELEASE);
	host_unlock(&m->lock);
	return good;
}
