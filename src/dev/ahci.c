/* The AHCI controller's registers, interrupts and resets (ahci.h). Serial ATA AHCI 1.3.1 Specification, "HBA Memory Registers"; ICH9 data sheet,
 * "SATA Controller Registers (D31:F2)". */
#include "dev/ahci_internal.h"

#include "dev/map.h"
#include "host/port.h"

#define VENDOR 0x8086
#define DEVICE 0x2922
#define CLASS 0x010601 /* mass storage, SATA, AHCI 1.0 */
#define REVISION 2
#define ADDRESS_MAP 0x90
#define ADDRESS_MAP_AHCI 0x40
#define ABAR 5
#define ABAR_SIZE 0x1000

/* Generic host control. */
enum { CAP = 0x00, GHC = 0x04, IS = 0x08, PI = 0x0c, VS = 0x10 };
#define CAP_NCS ((AHCI_SLOTS - 1) << 8)
#define CAP_SAM BIT(18)
#define CAP_GEN3 (3u << 20)
#define CAP_SCLO BIT(24)
#define CAP_SNCQ BIT(30)
#define CAP_S64A BIT(31)
#define GHC_HR BIT(0)
#define GHC_IE BIT(1)
#define GHC_AE BIT(31)
#define VERSION 0x00010300

/* Port registers. */
#define PORTS 0x100
#define PORT_SIZE 0x80
enum {
	PXCLB = 0x00,
	PXCLBU = 0x04,
	PXFB = 0x08,
	PXFBU = 0x0c,
	PXIS = 0x10,
	PXIE = 0x14,
	PXCMD = 0x18,
	PXTFD = 0x20,
	PXSIG = 0x24,
	PXSSTS = 0x28,
	PXSCTL = 0x2c,
	PXSERR = 0x30,
	PXSACT = 0x34,
	PXCI = 0x38
};
#define CLB_ALIGN 0x3ffu
#define FB_ALIGN 0xffu
#define SSTS_UP 0x133	/* there is a drive, third generation, active */
#define SSTS_OFFLINE 4
#define SCTL_DET 0xf
#define SCTL_BITS 0xfff
#define DET_INIT 1
#define DET_DISABLE 4
#define SERR_X BIT(26) /* a drive was exchanged: it says so itself */

/* ---- interrupts: "Interrupts", "Message Signaled Interrupts" ---- */

/* Ports raise their bits in IS, which stay until the driver clears them; every new one is a message. */
static void update_interrupt(struct ahci *a, bool again)
{
	u32 before = a->is;
	for (unsigned i = 0; i < a->ports; i++)
		if (a->port[i].is & a->port[i].ie)
			a->is |= BIT(i);
	bool wanted = (a->ghc & GHC_IE) && a->is;
	bool message = msi_enabled(&a->msi);
	pci_set_intx(&a->pci, wanted && !message);
	if (wanted && message && (again || (a->is & ~before)))
		msi_signal(&a->msi);
}

void ahci_event(struct ahci_port *port, u32 bits)
{
	port->is |= bits;
	update_interrupt(port->hba, false);
}

/* ---- resets ---- */

static bool is_up(const struct ahci_port *port)
{
	return (port->ssts & SCTL_DET) == (SSTS_UP & SCTL_DET);
}

/* COMRESET: the link comes up, and the drive says what it is. */
static void link_up(struct ahci_port *port)
{
	port->ssts = SSTS_UP;
	port->serr |= SERR_X;
	ata_reset(port, true);
	ahci_tell_signature(port);
	ahci_event(port, PXIS_PCS);
}

static void link_down(struct ahci_port *port, u32 status)
{
	ahci_abandon(port);
	port->ssts = status;
	port->registers.status = ATA_NO_DRIVE;
}

static void port_reset(struct ahci_port *port)
{
	ahci_abandon(port);
	port->is = port->ie = port->serr = port->sctl = 0;
	port->cmd = PXCMD_SUD | PXCMD_POD | (is_cdrom(port) ? PXCMD_ATAPI : 0);
	port->last = AHCI_SLOTS - 1;
	link_up(port);
}

/* "HBA Reset": where lists and received FISes are stays. */
static void hba_reset(struct ahci *a)
{
	a->is = 0;
	a->ghc = GHC_AE;
	for (unsigned i = 0; i < a->ports; i++)
		port_reset(&a->port[i]);
	update_interrupt(a, false);
}

void ahci_reset(struct ahci *ahci)
{
	for (unsigned i = 0; i < ahci->ports; i++)
		ahci->port[i].clb = ahci->port[i].fb = 0;
	hba_reset(ahci);
}

/* ---- port registers ---- */

static void stop(struct ahci_port *port)
{
	ahci_abandon(port);
	port->cmd &= ~(u32)(PXCMD_CR | PXCMD_CCS);
	port->last = AHCI_SLOTS - 1;
}

static void write_command(struct ahci_port *port, u32 value)
{
	const u32 kept = PXCMD_ST | PXCMD_FRE;
	bool stops = (port->cmd & PXCMD_ST) && !(value & PXCMD_ST);
	if ((value & PXCMD_CLO) && !(value & PXCMD_ST))
		port->registers.status &= ~(ATA_BSY | BIT(3));
	port->cmd = (port->cmd & ~kept) | (value & kept);
	port->cmd = (port->cmd & ~(u32)PXCMD_FR) | (value & PXCMD_FRE ? PXCMD_FR : 0);
	if (stops)
		stop(port);
	if (port->cmd & PXCMD_ST)
		port->cmd |= PXCMD_CR;
	if (port->untold)
		ahci_tell_signature(port);
	ahci_work(port);
}

/* "SATA Initialization": writing DET. */
static void write_control(struct ahci_port *port, u32 value)
{
	u32 before = port->sctl & SCTL_DET, det = value & SCTL_DET;
	port->sctl = value & SCTL_BITS;
	if (det == DET_INIT && before != DET_INIT)
		link_down(port, 0);
	else if (det == DET_DISABLE && before != DET_DISABLE)
		link_down(port, SSTS_OFFLINE);
	else if (!det && before)
		link_up(port);
}

static void write_issue(struct ahci_port *port, u32 value)
{
	if ((port->cmd & PXCMD_ST) && is_up(port))
		port->ci |= value;
	ahci_work(port);
}

static void set_low(u64 *address, u32 value)
{
	*address = (*address & ~0xffffffffull) | value;
}

static void set_high(u64 *address, u32 value)
{
	*address = (u32)*address | (u64)value << 32;
}

static void port_write(struct ahci_port *port, unsigned offset, u32 value)
{
	switch (offset) {
	case PXCLB:
		return set_low(&port->clb, value & ~CLB_ALIGN);
	case PXCLBU:
		return set_high(&port->clb, value);
	case PXFB:
		return set_low(&port->fb, value & ~FB_ALIGN);
	case PXFBU:
		return set_high(&port->fb, value);
	case PXIS:
		port->is &= ~(value & ~(u32)PXIS_PCS);
		return;
	case PXIE:
		port->ie = value & PXIS_WRITABLE;
		return update_interrupt(port->hba, false);
	case PXCMD:
		return write_command(port, value);
	case PXSCTL:
		return write_control(port, value);
	case PXSERR: /* PxIS.PCS shows the bit of the exchange */
		port->serr &= ~value;
		port->is &= ~(port->serr & SERR_X ? 0 : (u32)PXIS_PCS);
		return;
	case PXSACT:
		port->sact |= port->cmd & PXCMD_ST ? value : 0;
		return;
	case PXCI:
		return write_issue(port, value);
	}
}

static u32 port_read(const struct ahci_port *port, unsigned offset)
{
	switch (offset) {
	case PXCLB:
		return (u32)port->clb;
	case PXCLBU:
		return (u32)(port->clb >> 32);
	case PXFB:
		return (u32)port->fb;
	case PXFBU:
		return (u32)(port->fb >> 32);
	case PXIS:
		return port->is;
	case PXIE:
		return port->ie;
	case PXCMD:
		return port->cmd;
	case PXTFD:
		return (u32)port->registers.error << 8 | port->registers.status;
	case PXSIG:
		return port->sig;
	case PXSSTS:
		return port->ssts;
	case PXSCTL:
		return port->sctl;
	case PXSERR:
		return port->serr;
	case PXSACT:
		return port->sact;
	case PXCI:
		return port->ci;
	}
	return 0;
}

/* ---- the whole ---- */

static u32 hba_read(const struct ahci *a, unsigned offset)
{
	switch (offset) {
	case CAP:
		return (u32)(a->ports - 1) | CAP_NCS | CAP_SAM | CAP_GEN3 | CAP_SCLO | CAP_SNCQ | CAP_S64A;
	case GHC:
		return a->ghc;
	case IS:
		return a->is;
	case PI:
		return (u32)BIT(a->ports) - 1;
	case VS:
		return VERSION;
	}
	return 0;
}

static void hba_write(struct ahci *a, unsigned offset, u32 value)
{
	switch (offset) {
	case GHC:
		if (value & GHC_HR)
			return hba_reset(a);
		a->ghc = GHC_AE | (value & GHC_IE);
		return update_interrupt(a, true);
	case IS:
		a->is &= ~value;
		return update_interrupt(a, true);
	}
}

/* Registers are 32 bits wide; parts can be read, not written. */
static u64 abar_read(void *device, u64 offset, unsigned size, u64 now)
{
	const struct ahci *a = device;
	unsigned at = (unsigned)offset & ~3u, index = (at - PORTS) / PORT_SIZE;
	u32 value = at < PORTS ? hba_read(a, at) : index < a->ports ? port_read(&a->port[index], (at - PORTS) % PORT_SIZE) : 0;
	return value >> (8 * (offset & 3));
}

static void abar_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct ahci *a = device;
	unsigned at = (unsigned)offset, index = (at - PORTS) / PORT_SIZE;
	if (size != 4 || (at & 3))
		return;
	if (at < PORTS)
		hba_write(a, at, (u32)value);
	else if (index < a->ports)
		port_write(&a->port[index], (at - PORTS) % PORT_SIZE, (u32)value);
}

static const struct region_ops abar_ops = { .read = abar_read, .write = abar_write, .width = 4 };

/* The pin follows the message's switch. */
static void config_written(void *opaque, unsigned offset, unsigned size, u64 now)
{
	update_interrupt(opaque, false);
}

struct ahci_port *ahci_add(struct ahci *ahci, const struct block_backend *backend)
{
	struct ahci_port *port = &ahci->port[ahci->ports];
	if (ahci->ports == AHCI_PORTS_MAX)
		return NULL;
	*port = (struct ahci_port){ .hba = ahci, .index = ahci->ports, .backend = *backend };
	port->slot = host_table_create(AHCI_SLOTS * sizeof(struct ahci_slot));
	if (!port->slot)
		return NULL;
	ahci->ports++;
	return port;
}

int ahci_attach(struct ahci *ahci, struct pci_host *host, struct ram *ram)
{
	struct pci_function *f = &ahci->pci;
	ahci->ram = ram;
	f->written = config_written;
	f->opaque = ahci;
	pci_function_init(f, VENDOR, DEVICE, CLASS, REVISION);
	pci_put(f, PCI_INTERRUPT_PIN, 1, 1);
	pci_put(f, ADDRESS_MAP, 1, ADDRESS_MAP_AHCI);
	if (pci_add_bar(f, ABAR, PCI_BAR_MEM32, ABAR_SIZE, "AHCI", &abar_ops, ahci) || msi_add(&ahci->msi, f) ||
	    pci_add(host, f, PCI_SLOT_LPC, PCI_FUNCTION_SATA))
		return -1;
	ahci_reset(ahci);
	return 0;
}

void ahci_destroy(struct ahci *ahci)
{
	for (unsigned i = 0; i < ahci->ports; i++)
		host_table_destroy(ahci->port[i].slot, AHCI_SLOTS * sizeof(struct ahci_slot));
}

bool ahci_busy(const struct ahci *ahci)
{
	bool busy = false;
	for (unsigned i = 0; i < ahci->ports; i++)
		busy |= ahci->port[i].submitted != 0;
	return busy;
}

/* ---- state: nothing was begun that is not complete ---- */

static const struct state_table registers_state = STATE_TABLE(struct ata_registers, NULL,
	STATE(struct ata_registers, status), STATE(struct ata_registers, error), STATE(struct ata_registers, device),
	STATE(struct ata_registers, count), STATE(struct ata_registers, lba));

static const struct state_table drive_state = STATE_TABLE(struct ata_drive, NULL,
	STATE(struct ata_drive, resetting), STATE(struct ata_drive, write_cache), STATE(struct ata_drive, multiple),
	STATE(struct ata_drive, failed_tag), STATE_IN(struct ata_drive, failed, registers_state), STATE(struct ata_drive, attention),
	STATE(struct ata_drive, tray_open), STATE(struct ata_drive, sense_key), STATE(struct ata_drive, sense_code),
	STATE(struct ata_drive, sense_qualifier));

static const struct state_table port_state = STATE_TABLE(struct ahci_port, NULL,
	STATE_NONE(struct ahci_port, hba), STATE_NONE(struct ahci_port, index), STATE_SAME(struct ahci_port, backend.size),
	STATE_SAME(struct ahci_port, backend.bus), STATE_NONE(struct ahci_port, backend), STATE_NONE(struct ahci_port, count),
	STATE_NONE(struct ahci_port, slot), STATE(struct ahci_port, clb), STATE(struct ahci_port, fb), STATE(struct ahci_port, is),
	STATE(struct ahci_port, ie), STATE(struct ahci_port, cmd), STATE(struct ahci_port, sig), STATE(struct ahci_port, ssts),
	STATE(struct ahci_port, sctl), STATE(struct ahci_port, serr), STATE(struct ahci_port, sact), STATE(struct ahci_port, ci),
	STATE_IN(struct ahci_port, registers, registers_state), STATE_IN(struct ahci_port, drive, drive_state),
	STATE_NONE(struct ahci_port, running), STATE_NONE(struct ahci_port, queued), STATE(struct ahci_port, halted),
	STATE(struct ahci_port, untold), STATE_MAX(struct ahci_port, last, AHCI_SLOTS - 1), STATE_NONE(struct ahci_port, submitted));

const struct state_table ahci_state = STATE_TABLE(struct ahci, NULL,
	STATE_IN(struct ahci, pci, pci_function_state), STATE_NONE(struct ahci, msi), STATE_NONE(struct ahci, ram),
	STATE(struct ahci, ghc), STATE(struct ahci, is), STATE_SAME(struct ahci, ports), STATE_IN(struct ahci, port, port_state));
