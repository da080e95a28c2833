/* What the parts of the AHCI controller share: registers (ahci.c), command lists and transfers (ahci_command.c), drives (ata.c, atapi.c). */
#ifndef NADIR_DEV_AHCI_INTERNAL_H
#define NADIR_DEV_AHCI_INTERNAL_H

#include "dev/ahci.h"

/* PxCMD */
#define PXCMD_ST BIT(0)
#define PXCMD_SUD BIT(1)
#define PXCMD_POD BIT(2)
#define PXCMD_CLO BIT(3)
#define PXCMD_FRE BIT(4)
#define PXCMD_CCS_SHIFT 8
#define PXCMD_CCS (0x1full << PXCMD_CCS_SHIFT)
#define PXCMD_FR BIT(14)
#define PXCMD_CR BIT(15)
#define PXCMD_ATAPI BIT(24)
#define PXCMD_ICC (0xfull << 28)

/* PxIS and PxIE */
#define PXIS_DHRS BIT(0) /* a register FIS with the I bit came */
#define PXIS_PSS BIT(1)	 /* likewise PIO setup */
#define PXIS_SDBS BIT(3) /* set device bits */
#define PXIS_PCS BIT(6)
#define PXIS_OFS BIT(24)
#define PXIS_IFS BIT(27)
#define PXIS_HBFS BIT(29)
#define PXIS_TFES BIT(30)
#define PXIS_WRITABLE 0x7dc0007full

/* Status and error registers of a drive (ATA8-ACS, "Register descriptions"). */
#define ATA_ERR BIT(0)
#define ATA_DSC BIT(4)
#define ATA_DRDY BIT(6)
#define ATA_BSY BIT(7)
#define ATA_GOOD (u8)(ATA_DRDY | ATA_DSC)
#define ATA_NO_DRIVE 0x7f
#define ATA_ERROR_ABRT BIT(2)
#define ATA_ERROR_IDNF BIT(4)
#define ATA_ERROR_UNC BIT(6)

#define ATA_DEVICE_LBA BIT(6)
#define ATA_DEVICE_FUA BIT(7)
#define ATA_TRIM_RANGES 64u
#define ATAPI_BLOCK 2048u

/* How a command moves data and ends ("Transport protocols"). */
enum ata_protocol { ATA_NON_DATA, ATA_PIO_IN, ATA_PIO_OUT, ATA_DMA, ATA_QUEUED, ATA_PACKET };

/* A command in a slot of the list, from its beginning to its end. */
struct ahci_slot {
	struct block_request request;
	struct ahci_port *port;
	unsigned number;
	enum ata_protocol protocol;

	/* The command FIS ("Register - Host to Device") and the packet. */
	u8 command, device;
	u16 features, count;
	u64 lba;
	u8 packet[16];

	/* The scatter list: where it is, how far it was used, and how many bytes went by it. */
	gpa_t header, prdt;
	u32 prds, prd, prd_offset, moved;
	bool writable; /* the drive may write to it */

	/* What is still to be done. */
	u64 offset, left; /* bytes of the disk, for reads and writes */
	u64 range[ATA_TRIM_RANGES]; /* for trimming: sector | count << 48 */
	unsigned ranges;
	struct virtq_piece piece[VIRTQ_PIECES_MAX];
};

/* ---- ahci.c ---- */

/* The port has an event for PxIS. */
void ahci_event(struct ahci_port *port, u32 bits);

/* ---- ahci_command.c ---- */

/* Begin what can be begun. */
void ahci_work(struct ahci_port *port);
/* Give up what was begun, and wait for the back end. */
void ahci_abandon(struct ahci_port *port);
/* The drive was reset: tell its signature. */
void ahci_tell_signature(struct ahci_port *port);

/* Move bytes that the drive itself has or wants, as far as the scatter list goes. False: it leads nowhere, and the port has halted. */
bool ahci_give(struct ahci_slot *slot, const void *data, u32 size);
bool ahci_take(struct ahci_slot *slot, void *data, u32 size, u32 *taken);
/* Move slot->left bytes between the disk at slot->offset and the scatter list, or flush or trim the disk; then the command ends, sooner or later. */
void ahci_transfer(struct ahci_slot *slot, enum block_kind kind, bool durable);

/* The end of a command: `error` is the error register of one that failed, 0 of one that did not. */
void ahci_end(struct ahci_slot *slot, u8 error);

static inline bool is_cdrom(const struct ahci_port *port)
{
	return port->backend.bus == BLOCK_CDROM;
}

/* ---- ata.c, atapi.c ---- */

/* State after power-on and reset; a software reset keeps some of it. */
void ata_reset(struct ahci_port *port, bool hard);
/* Execute the command in the slot: it ends at once, or when its transfer ends. */
void ata_execute(struct ahci_slot *slot);
/* Whether a command is one that queues (NCQ). */
bool ata_queues(u8 command);
void atapi_execute(struct ahci_slot *slot);
/* The back end failed, the port halts: what the error register shows. */
u8 atapi_fail_medium(struct ahci_port *port);

/* A string of IDENTIFY data, padded with spaces; bytes of words change places. */
void ata_string(u16 *word, const char *text, unsigned words);

#endif
