/* The log of dirty pages (E6): who may store to a page without a word may do so as long as the page is known to be dirty, so a harvest takes these rights
 * away. In the software engines they are write tags and the writable mappings of spaces, which follow the tags; hardware has its own log. */
#include "host/port.h"
#include "mmu/mmu.h"
#include "vm/vm.h"

/* Write tags are given for dirty pages only while pages are logged (mmu/tlb.c). */
static void drop_writes(struct vm *vm)
{
	for (unsigned i = 0; i < vm->config.cpus; i++)
		mmu_drop_writes(&vm->cpu[i]->vcpu);
}

void vm_log_dirty(struct vm *vm, bool on)
{
	host_lock(&vm->lock);
	ram_log(&vm->ram, on);
	drop_writes(vm);
	host_unlock(&vm->lock);
}

u64 vm_harvest_dirty(struct vm *vm, u64 *bitmap)
{
	host_lock(&vm->lock);
	for (unsigned i = 0; i < vm->config.cpus; i++) {
		struct vcpu *v = &vm->cpu[i]->vcpu;
		if (v->engine->gather_dirty)
			v->engine->gather_dirty(v);
	}
	u64 count = ram_log_harvest(&vm->ram, bitmap);
	drop_writes(vm);
	host_unlock(&vm->lock);
	return count;
}
