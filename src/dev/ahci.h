/* The SATA controller of Intel's ICH9 in AHCI mode, as on a q35, with disks (ata.c) and CD-ROM drives (atapi.c) at its ports. Serial ATA AHCI 1.3.1
 * Specification; Intel I/O Controller Hub 9 (ICH9) Family data sheet, "SATA Controller Registers (D31:F2)".
 *
 * Ports without a drive are not implemented (PI), so that drivers do not wait for one. Commands of a list are begun in turn; queued ones (NCQ) run all at once.
 * What a command moves goes to and from guest memory by its own scatter list (PRDT), in requests to the drive's back end (block.h). */
#ifndef NADIR_DEV_AHCI_H
#define NADIR_DEV_AHCI_H

#include "dev/block.h"
#include "dev/msi.h"
#include "dev/pci.h"
#include "lib/state.h"
#include "mmu/ram.h"

#define AHCI_PORTS_MAX 6
#define AHCI_SLOTS 32

struct ahci;
struct ahci_slot;

/* A drive's registers as a FIS shows them ("Register - Device to Host"). */
struct ata_registers {
	u8 status, error, device;
	u16 count;
	u64 lba;
};

/* What a drive remembers between commands. */
struct ata_drive {
	bool resetting;	 /* SRST is set */
	bool write_cache;
	u8 multiple;	 /* sectors, by SET MULTIPLE MODE */
	u8 failed_tag;	 /* of the queued command that failed, or ATA_NO_TAG; the log of queued errors tells of it */
	struct ata_registers failed;
	bool attention, tray_open; /* CD-ROM */
	u8 sense_key, sense_code, sense_qualifier; /* CD-ROM: why the last command failed */
};
#define ATA_NO_TAG 0xff

struct ahci_port {
	struct ahci *hba;
	unsigned index;
	struct block_backend backend;
	struct block_count count[BLOCK_KINDS];
	struct ahci_slot *slot; /* AHCI_SLOTS of them; NULL: there is no drive */

	/* Registers, as the manual names them: PxCLB and so on. */
	u64 clb, fb;
	u32 is, ie, cmd, sig, ssts, sctl, serr, sact, ci;
	struct ata_registers registers; /* PxTFD */

	struct ata_drive drive;
	u32 running;	    /* slots whose commands were begun and are not complete */
	bool queued;	    /* they are queued commands */
	bool halted;	    /* after an error, until the driver stops the port */
	bool untold;	    /* the drive's signature waits for a place to go to (PxCMD.FRE) */
	u8 last;	    /* the slot begun last */
	unsigned submitted; /* requests in the hands of the back end */
};

struct ahci {
	struct pci_function pci;
	struct msi msi;
	struct ram *ram;
	u32 ghc, is;
	unsigned ports;
	struct ahci_port port[AHCI_PORTS_MAX];
};

/* Put a drive at the next port, as backend->bus says; before ahci_attach. Its port, or NULL. */
struct ahci_port *ahci_add(struct ahci *ahci, const struct block_backend *backend);
/* Reset and plug in; 0, or a negative value as pci_add. */
int ahci_attach(struct ahci *ahci, struct pci_host *host, struct ram *ram);
/* After pci_reset. */
void ahci_reset(struct ahci *ahci);
void ahci_destroy(struct ahci *ahci);

/* Requests of this port are complete. */
void ahci_completed(struct ahci_port *port);
/* Whether requests are in the hands of back ends. */
bool ahci_busy(const struct ahci *ahci);

/* When nothing is busy. */
extern const struct state_table ahci_state;

#endif
