/* Guest memory as KVM's slots: the slots of struct ram, cut where pages are read-only for the guest. What the chipset switches changes few
 * of them, and only these are made anew; guest code that is executed from one at that moment, by another vCPU, would leave as MMIO. */
#include "engine/kvm/kvm.h"

static bool set_slot(struct kvm_machine *m, unsigned number, const struct kvm_slot *slot, u64 size)
{
	struct kvm_userspace_memory_region region = { .slot = number, .flags = slot->readonly ? KVM_MEM_READONLY : 0, .guest_phys_addr = slot->gpa,
						      .memory_size = size, .userspace_addr = (u64)(uintptr_t)slot->hva };
	return host_kvm_call(m->file, KVM_SET_USER_MEMORY_REGION, (u64)(uintptr_t)&region) >= 0;
}

static bool same_slot(const struct kvm_slot *a, const struct kvm_slot *b)
{
	return a->gpa == b->gpa && a->size == b->size && a->hva == b->hva && a->readonly == b->readonly;
}

/* The pages from gpa on, within the slot, that are alike. */
static struct kvm_slot piece(const struct ram_slot *s, gpa_t gpa)
{
	struct kvm_slot p = { .gpa = gpa, .hva = s->hva + (gpa - s->base), .readonly = ram_readonly(s, gpa) };
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

static bool remove_old(struct kvm_machine *m, const struct kvm_slot *list, unsigned count)
{
	bool good = true;
	for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
		struct kvm_slot *s = &m->slot[i];
		if (!s->size || listed(s, list, count))
			continue;
		good &= set_slot(m, i, s, 0);
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
	bool good = count && remove_old(m, list, count) && add_new(m, list, count);
	__atomic_store_n(&m->layout, layout, __ATOMIC_RELAXED);
	__atomic_store_n(&m->mapped, good, __ATOMIC_RELEASE);
	host_unlock(&m->lock);
	return good;
}
