/* Disks and network cards: they come and go while the machine runs.
 *
 * One that the guest ejects leaves the board in the guest's own register access, under the lock: its driver's buffers are forgotten, which waits for
 * requests on their way, and it is taken from the bus. Its memory and its back end stay until the owner has seen that no thread is within it. */
#include "vm/board_plug.h"

#include "dev/map.h"
#include "host/port.h"
#include "lib/string.h"

int board_list(struct board *board, struct virtio_device *device, int error)
{
	if (error)
		return error;
	unsigned at = board->virtio_count++;
	for (; at && board->virtio[at - 1]->function.devfn > device->function.devfn; at--)
		board->virtio[at] = board->virtio[at - 1];
	board->virtio[at] = device;
	return 0;
}

static void unlist(struct board *board, const struct virtio_device *device)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < board->virtio_count; i++)
		if (board->virtio[i] != device)
			board->virtio[kept++] = board->virtio[i];
	board->virtio_count = kept;
}

static struct virtio_net *net_at(const struct board *board, unsigned index)
{
	return index < BOARD_NETS_MAX ? __atomic_load_n(&board->net[index], __ATOMIC_ACQUIRE) : NULL;
}

/* ---- what they do ---- */

bool board_has(const struct board *board, enum board_kind kind, unsigned index)
{
	return kind == BOARD_NET ? net_at(board, index) != NULL : index < BOARD_DISKS_MAX && (board->disk[index] || board->sata[index]);
}

void board_disk_completed(struct board *board, unsigned disk)
{
	if (board->disk[disk])
		virtio_block_completed(board->disk[disk]);
	else if (board->sata[disk])
		ahci_completed(board->sata[disk]);
}

const struct block_count *board_disk_count(const struct board *board, unsigned disk)
{
	return board->disk[disk] ? board->disk[disk]->count : board->sata[disk] ? board->sata[disk]->count : NULL;
}

const struct block_backend *board_disk(const struct board *board, unsigned disk)
{
	return board->disk[disk] ? &board->disk[disk]->backend : board->sata[disk] ? &board->sata[disk]->backend : NULL;
}

bool board_net_ready(struct board *board, unsigned net)
{
	return board->net[net] && virtio_net_ready(board->net[net]);
}

void board_net_input(struct board *board)
{
	for (unsigned i = 0; i < BOARD_NETS_MAX; i++)
		if (board->net[i])
			virtio_net_resume(board->net[i]);
	if (board->backends.vsock.cid)
		virtio_vsock_ready(&board->vsock);
}

bool board_doorbell(struct board *board, gpa_t gpa, u64 now)
{
	for (unsigned i = 0; i < BOARD_NETS_MAX; i++) {
		struct virtio_net *net = net_at(board, i);
		if (net && virtio_doorbell(&net->virtio, gpa, now))
			return true;
	}
	return false;
}

/* ---- in ---- */

static void come(struct board *b, struct virtio_device *device, bool tell)
{
	board_list(b, device, 0);
	if (tell)
		pci_hotplug_come(&b->hotplug, device->function.devfn >> 3);
}

int board_plug_disk(struct board *board, unsigned index, const struct block_backend *backend, bool tell)
{
	if (index >= BOARD_DISKS_MAX || board_has(board, BOARD_DISK, index) || board->ejected_disk[index])
		return -1;
	struct virtio_block *disk = host_alloc(sizeof(*disk));
	if (!disk || virtio_block_attach(disk, backend, board->cpus, &board->pci, board->ram, PCI_SLOT_DISK + index) < 0) {
		if (disk)
			virtio_block_destroy(disk);
		host_free(disk);
		return -1;
	}
	board->disk[index] = disk;
	come(board, &disk->virtio, tell);
	return 0;
}

int board_plug_net(struct board *board, unsigned index, const struct net_backend *backend, bool tell)
{
	if (index >= BOARD_NETS_MAX || board_has(board, BOARD_NET, index) || board->ejected_net[index])
		return -1;
	struct virtio_net *net = host_alloc(sizeof(*net));
	if (!net || virtio_net_attach(net, backend, &board->pci, board->ram, PCI_SLOT_NET + index) < 0) {
		host_free(net);
		return -1;
	}
	__atomic_store_n(&board->net[index], net, __ATOMIC_RELEASE);
	come(board, &net->virtio, tell);
	return 0;
}

/* ---- out ---- */

bool board_ask_eject(struct board *board, enum board_kind kind, unsigned index)
{
	if (!board_has(board, kind, index) || (kind == BOARD_DISK && !board->disk[index]))
		return false;
	pci_hotplug_ask(&board->hotplug, (kind == BOARD_NET ? PCI_SLOT_NET : PCI_SLOT_DISK) + index);
	return true;
}

static void leave(struct board *b, struct virtio_device *device)
{
	virtio_reset(device);
	pci_remove(&device->function);
	unlist(b, device);
	if (b->ejected)
		b->ejected(b->opaque);
}

void board_eject(void *board, unsigned device)
{
	struct board *b = board;
	unsigned disk = device - PCI_SLOT_DISK, net = device - PCI_SLOT_NET;
	if (disk < BOARD_DISKS_MAX && b->disk[disk]) {
		b->ejected_disk[disk] = b->disk[disk];
		b->disk[disk] = NULL;
		leave(b, &b->ejected_disk[disk]->virtio);
	} else if (net < BOARD_NETS_MAX && b->net[net]) {
		b->ejected_net[net] = b->net[net];
		__atomic_store_n(&b->net[net], NULL, __ATOMIC_SEQ_CST);
		leave(b, &b->ejected_net[net]->virtio);
	}
}

bool board_next_ejected(const struct board *board, enum board_kind *kind, unsigned *index)
{
	for (unsigned i = 0; i < BOARD_DISKS_MAX + BOARD_NETS_MAX; i++) {
		bool is_net = i >= BOARD_DISKS_MAX;
		*kind = is_net ? BOARD_NET : BOARD_DISK;
		*index = is_net ? i - BOARD_DISKS_MAX : i;
		if (is_net ? board->ejected_net[*index] != NULL : board->ejected_disk[*index] != NULL)
			return true;
	}
	return false;
}

static void free_disk(struct virtio_block **place)
{
	if (*place)
		virtio_block_destroy(*place);
	host_free(*place);
	*place = NULL;
}

static void free_net(struct virtio_net **place)
{
	host_free(*place);
	*place = NULL;
}

void board_forget(struct board *board, enum board_kind kind, unsigned index)
{
	if (kind == BOARD_DISK)
		free_disk(&board->ejected_disk[index]);
	else
		free_net(&board->ejected_net[index]);
}

void board_destroy_plugs(struct board *board)
{
	for (unsigned i = 0; i < BOARD_DISKS_MAX; i++) {
		free_disk(&board->disk[i]);
		free_disk(&board->ejected_disk[i]);
	}
	for (unsigned i = 0; i < BOARD_NETS_MAX; i++) {
		free_net(&board->net[i]);
		free_net(&board->ejected_net[i]);
	}
}
