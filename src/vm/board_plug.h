/* Within the board: disks and network cards (board_plug.c). */
#ifndef NADIR_VM_BOARD_PLUG_H
#define NADIR_VM_BOARD_PLUG_H

#include "vm/board.h"

/* Put a virtio device on the list of all, if it could be attached: `error` says so, and is returned. */
int board_list(struct board *board, struct virtio_device *device, int error);
/* pci_hotplug.eject */
void board_eject(void *board, unsigned device);
/* Free all disks and cards, ejected ones too. */
void board_destroy_plugs(struct board *board);

#endif
