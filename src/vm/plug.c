/* Disks and networks that come and go while the VM runs, as the host sees them (board_plug.c is the board's part).
 *
 * An ejected one is taken apart by the host in turn: vCPUs write to doorbells without the lock, so each that is just looking is waited for, and
 * so is who flushes disks; then nothing knows it any more. */
#include "vm/vm.h"

#include "host/port.h"
#include "lib/string.h"

/* ---- in and out ---- */

bool vm_has(struct vm *vm, enum board_kind kind, unsigned index)
{
	host_lock(&vm->lock);
	bool has = board_has(&vm->board, kind, index);
	host_unlock(&vm->lock);
	return has;
}

bool vm_plug_disk(struct vm *vm, unsigned index, const struct block_backend *backend)
{
	host_lock(&vm->lock);
	int error = board_plug_disk(&vm->board, index, backend, true);
	host_unlock(&vm->lock);
	return !error;
}

bool vm_plug_net(struct vm *vm, unsigned index, const struct net_backend *backend)
{
	host_lock(&vm->lock);
	int error = board_plug_net(&vm->board, index, backend, true);
	host_unlock(&vm->lock);
	return !error;
}

bool vm_ask_eject(struct vm *vm, enum board_kind kind, unsigned index)
{
	host_lock(&vm->lock);
	bool there = board_ask_eject(&vm->board, kind, index);
	host_unlock(&vm->lock);
	return there;
}

/* ---- doorbells ---- */

/* `ringing` is odd in between. Its store must be seen before the board is looked at: who takes an ejected device apart changed the board first, and
 * looks at it then. */
bool vm_doorbell(struct vm_cpu *cpu, gpa_t gpa)
{
	struct vm *vm = cpu->vm;
	u32 ringing = cpu->ringing;
	__atomic_exchange_n(&cpu->ringing, ringing + 1, __ATOMIC_SEQ_CST);
	bool rang = board_doorbell(&vm->board, gpa, vm_now(vm));
	__atomic_store_n(&cpu->ringing, ringing + 2, __ATOMIC_RELEASE);
	return rang;
}

/* Until every vCPU that was within vm_doorbell has left it, if only to enter it again. */
static void wait_for_doorbells(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->config.cpus; i++) {
		const u32 *ringing = &vm->cpu[i]->ringing;
		u32 seen = __atomic_load_n(ringing, __ATOMIC_SEQ_CST);
		while ((seen & 1) && __atomic_load_n(ringing, __ATOMIC_ACQUIRE) == seen)
			host_yield();
	}
}

/* ---- ejected ones ---- */

void vm_ejected(void *opaque)
{
	struct vm *vm = opaque;
	if (vm->config.ejected)
		vm->config.ejected(vm->config.opaque);
}

bool vm_take_ejected(struct vm *vm, enum board_kind *kind, unsigned *index)
{
	host_lock(&vm->lock);
	bool there = !vm->flushes && board_next_ejected(&vm->board, kind, index);
	host_unlock(&vm->lock);
	if (!there)
		return false;
	wait_for_doorbells(vm);
	host_lock(&vm->lock);
	board_forget(&vm->board, *kind, *index);
	host_unlock(&vm->lock);
	return true;
}

/* ---- what disks and networks count ---- */

bool vm_disk_count(struct vm *vm, unsigned disk, struct block_count *count)
{
	host_lock(&vm->lock);
	const struct block_count *there = board_disk_count(&vm->board, disk);
	if (there)
		memcpy(count, there, BLOCK_KINDS * sizeof(*count));
	host_unlock(&vm->lock);
	return there;
}

bool vm_net_count(struct vm *vm, unsigned net, struct net_count *count)
{
	host_lock(&vm->lock);
	const struct virtio_net *there = vm->board.net[net];
	if (there)
		*count = there->count;
	host_unlock(&vm->lock);
	return there;
}

static int flush_disk(struct vm *vm, unsigned index)
{
	host_lock(&vm->lock);
	const struct block_backend *disk = board_disk(&vm->board, index);
	struct block_backend backend = disk ? *disk : (struct block_backend){ 0 };
	host_unlock(&vm->lock);
	return backend.flush ? backend.flush(backend.disk) : 0;
}

/* A reset may eject disks meanwhile: their back ends stay. */
int vm_flush_disks(struct vm *vm)
{
	int error = 0;
	host_lock(&vm->lock);
	vm->flushes++;
	host_unlock(&vm->lock);
	for (unsigned i = 0; i < BOARD_DISKS_MAX && !error; i++)
		error = flush_disk(vm, i);
	host_lock(&vm->lock);
	vm->flushes--;
	vm_ejected(vm);
	host_unlock(&vm->lock);
	return error;
}
