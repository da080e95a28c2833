/* PCI: the functions' configuration spaces, BARs and interrupt pins, and the host bridge that leads to them (PCI Local
 * Bus Specification 3.0; PCI Express Base Specification, "PCI Express Enhanced Configuration Access Mechanism").
 *
 * There is one bus, number 0. A device model embeds a struct pci_function, describes it once (identity, BARs,
 * capabilities), and adds it to the host. From then on the framework answers configuration accesses: the guest changes
 * exactly the bits in `writable`, and BARs come and go on the device buses as the command register and the BARs say. A
 * BAR that collides with something already there does not answer until it has been moved.
 *
 * A device that must act on its own configuration space (MSI-X enable, for one) sets `written`, and one that must make
 * up what is read there sets `reading`. MSI-X is in msix.h. */
#ifndef NADIR_DEV_PCI_H
#define NADIR_DEV_PCI_H

#include "dev/bus.h"
#include "irq/msi.h"
#include "irq/wire.h"
#include "lib/state.h"

#define PCI_CONFIG_SIZE 4096
#define PCI_BARS 6
#define PCI_FUNCTIONS 256 /* of one bus: device << 3 | function */
#define PCI_PINS 4

/* Offsets in the header of a function ("Configuration Space Decoding", Type 00h). */
enum {
	PCI_VENDOR = 0x00,
	PCI_DEVICE = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_CLASS = 0x09, /* 3 bytes: interface, subclass, class */
	PCI_HEADER_TYPE = 0x0e,
	PCI_BAR0 = 0x10,
	PCI_SUBSYSTEM_VENDOR = 0x2c,
	PCI_SUBSYSTEM = 0x2e,
	PCI_CAPABILITIES = 0x34,
	PCI_INTERRUPT_LINE = 0x3c,
	PCI_INTERRUPT_PIN = 0x3d,
	PCI_HEADER_END = 0x40
};

#define PCI_COMMAND_IO 0x0001
#define PCI_COMMAND_MEMORY 0x0002
#define PCI_COMMAND_MASTER 0x0004
#define PCI_COMMAND_INTX_DISABLE 0x0400
#define PCI_STATUS_INTERRUPT 0x0008
#define PCI_STATUS_CAPABILITIES 0x0010
#define PCI_MULTIFUNCTION 0x80 /* in the header type */

#define PCI_NOWHERE (~0ull)

struct pci_host;

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

struct pci_bar {
	enum pci_bar_kind kind;
	const char *name;
	const struct region_ops *ops;
	void *device;              /* passed to ops */
	struct region_ops forward; /* what the bus calls */
	u64 size;                  /* a power of two, at least 16 (memory) or 4 (I/O) */
	struct bus *bus;           /* where it answers now, or NULL */
	u64 base;                  /* and at which address */
	u64 place;                 /* that address, or PCI_NOWHERE; atomic: any thread may read it */
};

struct pci_function {
	/* Set by the device model before pci_function_init; may be NULL. `written` is called after a write to [offset,
	 * offset + size) took effect, `reading` before the guest reads there. */
	void (*written)(void *opaque, unsigned offset, unsigned size, u64 now);
	void (*reading)(void *opaque, unsigned offset, unsigned size, u64 now);
	void *opaque;

	struct pci_host *host; /* from pci_add on */
	u8 devfn;
	u8 capabilities_end; /* where the next capability goes */
	bool intx;           /* what the device wants of its pin */
	bool intx_driven;    /* what is on it */
	struct pci_bar bar[PCI_BARS];
	u8 config[PCI_CONFIG_SIZE];
	u8 writable[PCI_CONFIG_SIZE];     /* bits the guest may change; zero after reset */
	u8 write_clears[PCI_CONFIG_SIZE]; /* bits the guest clears by writing 1 */
};

struct pci_host {
	/* Wired by the board before pci_attach, kept by pci_reset. true: asserted. */
	struct wire intx[PCI_PINS];
	void (*message)(void *opaque, const struct msi_message *message);
	void *opaque;

	struct bus *io, *memory;
	struct bus behind; /* I/O below CONFIG_ADDRESS that is not 32 bits wide: port 0xcf9 (reset.h) */
	u32 address;       /* CONFIG_ADDRESS */
	u64 ecam;          /* where the ECAM window is, 0: nowhere */
	unsigned asserted[PCI_PINS];
	struct pci_function *function[PCI_FUNCTIONS];
	struct pci_function bridge;
};

/* Build the host bridge (device 0) and answer at ports 0xcf8 to 0xcff and in the ECAM window; 0, or a negative value as
 * bus_add. */
int pci_attach(struct pci_host *host, struct bus *io, struct bus *memory);
/* Move the ECAM window, or take it away (0). Where something else is already it does not answer: a negative value, as bus_add. */
int pci_place_ecam(struct pci_host *host, u64 base);
/* Bus reset: what the guest could write becomes zero, no BAR answers, no pin is asserted. Device models reset
 * themselves. */
void pci_reset(struct pci_host *host);

/* Describe a function: identity, with `class_code` as class, subclass and interface from the top byte down, and the
 * bits every function has. `function` is zeroed but for `written`, `reading` and
 * `opaque`. */
void pci_function_init(struct pci_function *function, u16 vendor, u16 device, u32 class_code, u8 revision);
/* Give it BAR `index`; a MEM64 one also takes the next. Before pci_add. A negative value if size or index are
 * impossible. */
int pci_add_bar(struct pci_function *function, unsigned index, enum pci_bar_kind kind, u64 size, const char *name,
		const struct region_ops *ops, void *device);
/* Room for a capability of `size` bytes, header included, linked into the list; its offset, or 0 if it does not fit. */
unsigned pci_add_capability(struct pci_function *function, u8 id, unsigned size);
/* Plug it in as `device`, `number` (its interrupt pin, 1 to 4, or 0 for none, is at PCI_INTERRUPT_PIN). The function
 * stays the caller's and must live as long as the host, or until pci_remove. A negative value if the place is taken. */
int pci_add(struct pci_host *host, struct pci_function *function, unsigned device, unsigned number);
/* Take it out, with whatever it has on the buses and wires. It must be the only one of its device. */
void pci_remove(struct pci_function *function);

/* The function asserts or releases its interrupt pin. */
void pci_set_intx(struct pci_function *function, bool level);
/* The function writes an interrupt message, which a function that is not a bus master cannot. */
void pci_message(struct pci_function *function, const struct msi_message *message);

/* The guest reads or writes [offset, offset + size), which lies within the configuration space; size is 1, 2 or 4. */
u32 pci_config_read(struct pci_function *function, unsigned offset, unsigned size, u64 now);
void pci_config_write(struct pci_function *function, unsigned offset, unsigned size, u32 value, u64 now);

/* Configuration space, little-endian, of 1, 2 or 4 bytes within it, as device models see it: without masks or effects.
 */
u32 pci_get(const struct pci_function *function, unsigned offset, unsigned size);
void pci_put(struct pci_function *function, unsigned offset, unsigned size, u32 value);
/* Let the guest change exactly these bits. */
void pci_allow(struct pci_function *function, unsigned offset, unsigned size, u32 bits);

/* The state of a function is part of its device's; that of the host is loaded after all of these. */
extern const struct state_table pci_function_state, pci_host_state;

#endif
