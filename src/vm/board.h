/* The board: every chip of the virtual PC but the CPUs and their local APICs, wired in one place (board.c), after the map in
 * dev/map.h. The owner serializes all calls with its lock. */
#ifndef NADIR_VM_BOARD_H
#define NADIR_VM_BOARD_H

#include "dev/ahci.h"
#include "dev/bus.h"
#include "dev/debug_console.h"
#include "dev/debug_exit.h"
#include "dev/fw_cfg.h"
#include "dev/hpet.h"
#include "dev/i8042.h"
#include "dev/lpc.h"
#include "dev/mch.h"
#include "dev/pci.h"
#include "dev/pci_hotplug.h"
#include "dev/pflash.h"
#include "dev/pit.h"
#include "dev/pm.h"
#include "dev/reset.h"
#include "dev/rtc.h"
#include "dev/uart.h"
#include "dev/vga.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/block.h"
#include "dev/virtio/console.h"
#include "dev/virtio/fs.h"
#include "dev/virtio/input.h"
#include "dev/virtio/net.h"
#include "dev/virtio/random.h"
#include "dev/virtio/vsock.h"
#include "irq/ioapic.h"
#include "irq/pic.h"

#define BOARD_DISKS_MAX 16
#define BOARD_NETS_MAX 8
#define BOARD_SHARES_MAX 2
#define BOARD_VIRTIO_MAX (6 + BOARD_DISKS_MAX + BOARD_NETS_MAX + BOARD_SHARES_MAX)

/* The other ends of the board's cables, on the host. put is called under the board's lock and must not call back. */
struct board_backends {
	void (*serial_put)(void *opaque, u8 byte);
	bool (*serial_get)(void *opaque, u8 *byte); /* false: nothing waits */
	void *serial;
	void (*debug_put)(void *opaque, u8 byte);
	void *debug;
	bool debug_exit; /* fit the debug-exit port */
	struct console_cable console[CONSOLE_PORTS_MAX]; /* the ports of a virtio console */
	unsigned consoles; /* 0: none is fitted */
	bool balloon, reporting; /* fit the balloon device; with free page reporting */
	/* The caller's, needed by board_create only: so many rows, of which those are empty that have no `submit` or `send`. A disk or card that is plugged in
	 * later is told by the number of its row, too, and its PCI device is PCI_SLOT_DISK or PCI_SLOT_NET and that. */
	const struct block_backend *disk;
	unsigned disks; /* BOARD_DISKS_MAX at most, and AHCI_PORTS_MAX of those that are not virtio disks */
	const struct net_backend *net;
	unsigned nets; /* BOARD_NETS_MAX at most */
	const struct fs_backend *share; /* likewise */
	unsigned shares; /* BOARD_SHARES_MAX at most */
	struct vsock_backend vsock; /* fit the socket device, if it has a CID */
	bool vga; /* fit a VGA, with a virtio keyboard and tablet; there is no RAM at its window then */
	const u8 *vga_rom; /* a video BIOS, whose font text has where no firmware starts the machine; may be NULL */
	size_t vga_rom_size;
	bool firmware; /* a ROM starts the machine: fit the firmware configuration device, and show the ROM below 1 MiB */
	struct pflash_backend flash; /* the firmware's variables */
	gpa_t flash_base;
};

/* What a register access may ask of the machine. It is kept until the access is over, then taken. */
enum board_event { BOARD_NOTHING, BOARD_RESET, BOARD_POWER_OFF, BOARD_DEBUG_EXIT, BOARD_MEMORY /* PAM: drop TLBs */, BOARD_MOVED /* board_place_memory is due */ };

/* What can be plugged in and out while the machine runs (board_plug.c). */
enum board_kind { BOARD_DISK, BOARD_NET };

struct board {
	struct bus io, memory;
	struct ram *ram;
	unsigned cpus;
	struct pic pic;
	struct ioapic ioapic;
	struct pit pit;
	struct rtc rtc;
	struct hpet hpet;
	struct uart uart;
	struct vga vga; /* if backends.vga */
	struct i8042 i8042;
	struct pm pm;
	struct reset reset;
	struct pci_host pci;
	struct pci_hotplug hotplug;
	struct mch mch;
	struct lpc lpc;
	struct fw_cfg fw_cfg; /* its items are added before board_create */
	struct pflash flash;
	struct virtio_random random;
	struct virtio_console console; /* if backends.consoles */
	struct virtio_balloon balloon;
	struct virtio_input keyboard, tablet; /* if backends.vga */
	struct ahci ahci; /* if it has ports */
	struct virtio_block *disk[BOARD_DISKS_MAX]; /* a disk is either here or at a port, by its number */
	struct ahci_port *sata[BOARD_DISKS_MAX];
	struct virtio_net *net[BOARD_NETS_MAX]; /* atomic: board_doorbell reads them without the lock */
	struct virtio_block *ejected_disk[BOARD_DISKS_MAX]; /* until board_forget */
	struct virtio_net *ejected_net[BOARD_NETS_MAX];
	struct virtio_fs *share[BOARD_SHARES_MAX];
	struct virtio_vsock vsock; /* if backends.vsock.cid */
	struct virtio_device *virtio[BOARD_VIRTIO_MAX]; /* all of them, in the order of the PCI bus */
	unsigned virtio_count;
	struct debug_console debug_console;
	struct debug_exit debug_exit;
	struct board_backends backends;
	void (*interrupt)(void *opaque, const struct interrupt *interrupt); /* where messages go */
	void (*ejected)(void *opaque); /* a disk or card has left (board_next_ejected). May be NULL. */
	void *opaque;
	enum board_event event;
	u32 exit_status; /* with BOARD_DEBUG_EXIT */
};

/* Wire everything and reset it. `ram` is what devices reach; a disk has a queue for each of `cpus`. interrupt takes the messages of the I/O
 * APIC and of devices, intr the 8259 pair's output. 0 or negative. */
int board_create(struct board *board, const struct board_backends *backends, struct ram *ram, unsigned cpus, u64 now,
		 void (*interrupt)(void *opaque, const struct interrupt *interrupt),
		 void (*intr)(void *opaque, unsigned pin, bool level), void *opaque);
void board_destroy(struct board *board);
void board_reset(struct board *board, u64 now);

/* Save or load everything, when no back end has requests (board_busy). */
void board_state(struct state *s, struct board *board);

/* When something happens by itself, and let it happen. */
u64 board_deadline(const struct board *board);
void board_advance(struct board *board, u64 now);

/* Whether requests are in the hands of back ends, which read and write guest memory for them. */
bool board_busy(const struct board *board);

/* Whether something is there, virtio or not. */
bool board_has(const struct board *board, enum board_kind kind, unsigned index);

/* Requests of this disk are complete. The functions of a disk or card do nothing if it has left. */
void board_disk_completed(struct board *board, unsigned disk);
/* What a disk was asked for; BLOCK_KINDS of them. */
const struct block_count *board_disk_count(const struct board *board, unsigned disk);
/* The cable of a disk; NULL: there is none. */
const struct block_backend *board_disk(const struct board *board, unsigned disk);

/* Give the serial port, or a port of the virtio console, what waits for it on the host. */
void board_serial_input(struct board *board, u64 now);
void board_console_input(struct board *board, unsigned port);

/* Frames or room for them, of a network (virtio_net_ready). */
bool board_net_ready(struct board *board, unsigned net);

/* Give the network cards and the socket device what waits for them, after a time in which nobody looked. */
void board_net_input(struct board *board);

/* A vCPU writes to `gpa`, which is no RAM. True: it was the doorbell of a device that takes it without the lock; nothing else is to be done. Any
 * thread, without the lock. */
bool board_doorbell(struct board *board, gpa_t gpa, u64 now);

/* Plug a disk or card into an empty place. 0, or negative: the place is taken, or there is no memory. With `tell`, the guest is told: from board_create on. */
int board_plug_disk(struct board *board, unsigned index, const struct block_backend *backend, bool tell);
int board_plug_net(struct board *board, unsigned index, const struct net_backend *backend, bool tell);
/* Ask the guest for a disk or card; it is free to keep it. False: it is not there, or cannot be plugged out. A reset takes what was asked for. */
bool board_ask_eject(struct board *board, enum board_kind kind, unsigned index);
/* What the guest has ejected: it is no part of the board any more, has no requests, and calls its back end no more but by a doorbell that was on its way.
 * False: there is nothing. Its place stays taken until board_forget. */
bool board_next_ejected(const struct board *board, enum board_kind *kind, unsigned *index);
void board_forget(struct board *board, enum board_kind kind, unsigned index);

/* Move memory of devices to where their BARs are, after BOARD_MOVED. No vCPU runs; each forgets translations and code afterwards. */
void board_place_memory(struct board *board);

/* What the last access asked for; it is then forgotten. */
enum board_event board_take_event(struct board *board);

#endif
