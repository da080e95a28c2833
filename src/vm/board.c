/* The board of the virtual PC: which chip is where, and what is wired to what. */
#include "vm/board.h"

#include "dev/map.h"
#include "host/port.h"
#include "vm/board_plug.h"

static const struct region_ops pic_master_ops = { .read = pic_master_read, .write = pic_master_write };
static const struct region_ops pic_slave_ops = { .read = pic_slave_read, .write = pic_slave_write };
static const struct region_ops pic_elcr_ops = { .read = pic_elcr_read, .write = pic_elcr_write };
static const struct region_ops ioapic_ops = { .read = ioapic_read, .write = ioapic_write };

/* ---- wires ---- */

/* An ISA interrupt line goes to the 8259 pair and to the I/O APIC. */
static void isa_line(void *opaque, unsigned line, bool level)
{
	struct board *b = opaque;
	pic_set_line(&b->pic, line, level);
	ioapic_set_line(&b->ioapic, line == IRQ_PIT ? GSI_PIT : line, level);
}

/* So do those of the interval timer and of the clock, unless the event timer takes their places. */
static void replaceable_line(void *opaque, unsigned line, bool level)
{
	struct board *b = opaque;
	if (!hpet_replaces(&b->hpet))
		isa_line(b, line, level);
}

static void hpet_line(void *opaque, unsigned pin, bool level)
{
	struct board *b = opaque;
	ioapic_set_line(&b->ioapic, pin, level);
}

/* PCI interrupt pins go to the I/O APIC alone. */
static void pci_line(void *opaque, unsigned pin, bool level)
{
	struct board *b = opaque;
	ioapic_set_line(&b->ioapic, GSI_PCI_INTA + pin, level);
}

/* Messages of PCI functions. */
static void pci_message_sent(void *opaque, const struct msi_message *message)
{
	struct board *b = opaque;
	struct interrupt interrupt;
	if (msi_decode(message, false, &interrupt))
		b->interrupt(b->opaque, &interrupt);
}

static struct wire isa_wire(struct board *b, unsigned line)
{
	return (struct wire){ .sink = isa_line, .opaque = b, .pin = line };
}

static void wire_board(struct board *b)
{
	b->pit.irq = (struct wire){ .sink = replaceable_line, .opaque = b, .pin = IRQ_PIT };
	b->rtc.irq = (struct wire){ .sink = replaceable_line, .opaque = b, .pin = IRQ_RTC };
	b->hpet.legacy[0] = isa_wire(b, IRQ_PIT);
	b->hpet.legacy[1] = isa_wire(b, IRQ_RTC);
	for (unsigned i = 0; i < HPET_ROUTES; i++)
		b->hpet.route[i] = (struct wire){ .sink = hpet_line, .opaque = b, .pin = HPET_ROUTE_FIRST + i };
	b->i8042.keyboard_irq = isa_wire(b, IRQ_KEYBOARD);
	b->i8042.mouse_irq = isa_wire(b, IRQ_MOUSE);
	b->uart.irq = isa_wire(b, IRQ_UART0);
	b->pm.sci = isa_wire(b, IRQ_SCI);
	for (unsigned pin = 0; pin < PCI_PINS; pin++)
		b->pci.intx[pin] = (struct wire){ .sink = pci_line, .opaque = b, .pin = pin };
	b->pci.message = pci_message_sent;
	b->pci.opaque = b;
}

/* ---- what the chips ask of the machine ---- */

static void ask_reset(void *opaque)
{
	((struct board *)opaque)->event = BOARD_RESET;
}

static void ask_power_off(void *opaque)
{
	((struct board *)opaque)->event = BOARD_POWER_OFF;
}

static void ask_exit(void *opaque, u32 status)
{
	struct board *b = opaque;
	b->event = BOARD_DEBUG_EXIT;
	b->exit_status = status;
}

static void memory_changed(void *opaque)
{
	((struct board *)opaque)->event = BOARD_MEMORY;
}

static void memory_moved(void *opaque)
{
	((struct board *)opaque)->event = BOARD_MOVED;
}

void board_place_memory(struct board *board)
{
	if (board->backends.vga)
		vga_place(&board->vga);
}

enum board_event board_take_event(struct board *board)
{
	enum board_event event = board->event;
	board->event = BOARD_NOTHING;
	return event;
}

/* ---- the serial port's cable ---- */

static void serial_transmit(void *opaque, u8 byte)
{
	struct board *b = opaque;
	b->backends.serial_put(b->backends.serial, byte);
}

void board_serial_input(struct board *board, u64 now)
{
	u8 byte;
	while (uart_room(&board->uart) && board->backends.serial_get(board->backends.serial, &byte))
		uart_receive(&board->uart, byte, now);
}

static void serial_room(void *opaque, u64 now)
{
	board_serial_input(opaque, now);
}

void board_console_input(struct board *board, unsigned port)
{
	if (port < board->backends.consoles)
		virtio_console_input(&board->console, port);
}

/* ---- assembly ---- */

static int attach_irq_chips(struct board *b)
{
	int error = bus_add(&b->io, "PIC master", PORT_PIC_MASTER, 2, &pic_master_ops, &b->pic);
	error |= bus_add(&b->io, "PIC slave", PORT_PIC_SLAVE, 2, &pic_slave_ops, &b->pic);
	error |= bus_add(&b->io, "ELCR", PORT_PIC_ELCR, 2, &pic_elcr_ops, &b->pic);
	error |= bus_add(&b->io, "PIT", PORT_PIT, PIT_PORT_COUNT, &pit_ops, &b->pit);
	error |= bus_add(&b->io, "system control", PORT_SYSTEM_CONTROL, 1, &system_control_ops, &b->pit);
	error |= bus_add(&b->io, "RTC", PORT_RTC, 2, &rtc_ops, &b->rtc);
	error |= hpet_attach(&b->hpet, &b->memory);
	error |= bus_add(&b->memory, "I/O APIC", MAP_IOAPIC, IOAPIC_MMIO_SIZE, &ioapic_ops, &b->ioapic);
	return error;
}

static int attach_devices(struct board *b, struct ram *ram, u64 now)
{
	int error = uart_attach(&b->uart, &b->io, PORT_UART0);
	error |= i8042_attach(&b->i8042, &b->io);
	error |= pm_attach(&b->pm, &b->io, PORT_PM, now);
	error |= pci_attach(&b->pci, &b->io, &b->memory);
	error |= pci_hotplug_attach(&b->hotplug, &b->io, PORT_PCI_HOTPLUG);
	error |= mch_attach(&b->mch, &b->pci, ram);
	error |= lpc_attach(&b->lpc, &b->pci);
	error |= reset_attach(&b->reset, &b->io, &b->pci.behind);
	error |= debug_console_attach(&b->debug_console, &b->io);
	if (b->backends.debug_exit)
		error |= debug_exit_attach(&b->debug_exit, &b->io);
	return error;
}

static int attach_display(struct board *b, struct ram *ram)
{
	if (!b->backends.vga)
		return 0;
	b->vga.moved = memory_moved;
	b->vga.opaque = b;
	b->vga.firmware = b->backends.firmware;
	b->vga.rom = b->backends.vga_rom;
	b->vga.rom_size = b->backends.vga_rom_size;
	return vga_attach(&b->vga, &b->pci, &b->io, &b->memory, ram, PCI_SLOT_RANDOM, PCI_FUNCTION_DISPLAY);
}

static int attach_firmware(struct board *b, struct ram *ram)
{
	int error = 0;
	if (b->backends.firmware)
		error |= fw_cfg_attach(&b->fw_cfg, &b->io, ram);
	if (b->backends.flash.data)
		error |= pflash_attach(&b->flash, &b->backends.flash, &b->memory, b->backends.flash_base);
	return error;
}

static int attach_disks(struct board *b)
{
	for (unsigned i = 0; i < b->backends.disks; i++) {
		const struct block_backend *disk = &b->backends.disk[i];
		if (disk->submit && disk->bus == BLOCK_VIRTIO && board_plug_disk(b, i, disk, false) < 0)
			return -1;
		if (disk->submit && disk->bus != BLOCK_VIRTIO && !(b->sata[i] = ahci_add(&b->ahci, disk)))
			return -1;
	}
	return b->ahci.ports ? ahci_attach(&b->ahci, &b->pci, b->ram) : 0;
}

static int attach_nets(struct board *b)
{
	for (unsigned i = 0; i < b->backends.nets; i++)
		if (b->backends.net[i].send && board_plug_net(b, i, &b->backends.net[i], false) < 0)
			return -1;
	return 0;
}

static int attach_shares(struct board *b, struct ram *ram)
{
	for (unsigned i = 0; i < b->backends.shares; i++) {
		b->share[i] = host_alloc(sizeof(*b->share[i]));
		if (!b->share[i] || board_list(b, &b->share[i]->virtio, virtio_fs_attach(b->share[i], &b->backends.share[i], &b->pci, ram, PCI_SLOT_SHARE + i)) < 0)
			return -1;
	}
	return 0;
}

static int attach_vsock(struct board *b, struct ram *ram)
{
	if (!b->backends.vsock.cid)
		return 0;
	return board_list(b, &b->vsock.virtio, virtio_vsock_attach(&b->vsock, &b->backends.vsock, &b->pci, ram, PCI_SLOT_VSOCK));
}

static int attach_console(struct board *b, struct ram *ram)
{
	if (!b->backends.consoles)
		return 0;
	b->console.ports = b->backends.consoles;
	for (unsigned i = 0; i < b->console.ports; i++)
		b->console.cable[i] = b->backends.console[i];
	return board_list(b, &b->console.virtio, virtio_console_attach(&b->console, &b->pci, ram, PCI_SLOT_CONSOLE));
}

static int attach_balloon(struct board *b, struct ram *ram)
{
	if (!b->backends.balloon)
		return 0;
	b->balloon.discard = host_ram_discard;
	b->balloon.reporting = b->backends.reporting;
	return board_list(b, &b->balloon.virtio, virtio_balloon_attach(&b->balloon, &b->pci, ram, PCI_SLOT_BALLOON));
}

static int attach_input(struct board *b, struct ram *ram)
{
	if (!b->backends.vga)
		return 0;
	b->keyboard.kind = INPUT_KEYBOARD;
	b->tablet.kind = INPUT_TABLET;
	return board_list(b, &b->keyboard.virtio, virtio_input_attach(&b->keyboard, &b->pci, ram, PCI_SLOT_RANDOM, PCI_FUNCTION_KEYBOARD)) |
	       board_list(b, &b->tablet.virtio, virtio_input_attach(&b->tablet, &b->pci, ram, PCI_SLOT_RANDOM, PCI_FUNCTION_TABLET));
}

static int attach_virtio(struct board *b, struct ram *ram)
{
	b->random.fill = host_random;
	if (board_list(b, &b->random.virtio, virtio_random_attach(&b->random, &b->pci, ram, PCI_SLOT_RANDOM)) < 0)
		return -1;
	return attach_console(b, ram) | attach_balloon(b, ram) | attach_disks(b) | attach_nets(b) | attach_shares(b, ram) |
	       attach_vsock(b, ram) | attach_input(b, ram);
}

int board_create(struct board *board, const struct board_backends *backends, struct ram *ram, unsigned cpus, u64 now,
		 void (*interrupt)(void *opaque, const struct interrupt *interrupt),
		 void (*intr)(void *opaque, unsigned pin, bool level), void *opaque)
{
	struct board *b = board;
	b->backends = *backends;
	b->ram = ram;
	b->cpus = cpus;
	b->interrupt = interrupt;
	b->opaque = opaque;
	ioapic_init(&b->ioapic, interrupt, opaque);
	b->pic.intr = (struct wire){ .sink = intr, .opaque = opaque };
	wire_board(b);
	b->uart.transmit = serial_transmit;
	b->uart.room = serial_room;
	b->uart.opaque = b;
	b->i8042.reset = ask_reset;
	b->i8042.opaque = b;
	b->pm.power_off = ask_power_off;
	b->pm.opaque = b;
	b->hotplug.pm = &b->pm;
	b->hotplug.eject = board_eject;
	b->hotplug.opaque = b;
	b->reset.reset = ask_reset;
	b->reset.opaque = b;
	b->mch.memory_changed = memory_changed;
	b->mch.opaque = b;
	b->mch.firmware = backends->firmware;
	b->debug_console = (struct debug_console){ .emit = backends->debug_put, .opaque = backends->debug };
	b->debug_exit = (struct debug_exit){ .exit = ask_exit, .opaque = b };
	if (attach_irq_chips(b) | attach_devices(b, ram, now) || attach_display(b, ram) || attach_firmware(b, ram) ||
	    attach_virtio(b, ram))
		return -1;
	rtc_init(&b->rtc, host_wallclock(), now);
	rtc_set_memory_size(&b->rtc, MIN(ram->memory_size, MAP_LOW_RAM_END),
			    ram->memory_size - MIN(ram->memory_size, MAP_LOW_RAM_END));
	pic_reset(&b->pic);
	pit_reset(&b->pit);
	return 0;
}

void board_destroy(struct board *board)
{
	mch_destroy(&board->mch);
	vga_destroy(&board->vga);
	ahci_destroy(&board->ahci);
	board_destroy_plugs(board);
	for (unsigned i = 0; i < ARRAY_SIZE(board->share); i++) {
		if (board->share[i])
			virtio_fs_destroy(board->share[i]);
		host_free(board->share[i]);
	}
}

void board_reset(struct board *board, u64 now)
{
	for (unsigned i = 0; i < board->virtio_count; i++) {
		virtio_reset(board->virtio[i]);
		msix_reset(&board->virtio[i]->msix);
	}
	pci_reset(&board->pci);
	pci_hotplug_reset(&board->hotplug);
	if (board->ahci.ports)
		ahci_reset(&board->ahci);
	mch_reset(&board->mch);
	lpc_reset(&board->lpc);
	if (board->backends.vga)
		vga_reset(&board->vga);
	fw_cfg_reset(&board->fw_cfg);
	if (board->backends.flash.data)
		pflash_reset(&board->flash);
	uart_reset(&board->uart);
	i8042_reset(&board->i8042);
	pm_reset(&board->pm, now);
	reset_reset(&board->reset);
	rtc_reset(&board->rtc, now);
	pit_reset(&board->pit);
	hpet_reset(&board->hpet);
	ioapic_reset(&board->ioapic);
	pic_reset(&board->pic);
	board->event = BOARD_NOTHING;
}

bool board_busy(const struct board *board)
{
	for (unsigned i = 0; i < board->virtio_count; i++)
		if (board->virtio[i]->busy && board->virtio[i]->busy(board->virtio[i]))
			return true;
	return ahci_busy(&board->ahci);
}

/* A device whose driver has no table cannot be saved. */
static void virtio_state(struct state *s, struct virtio_device *device, unsigned index)
{
	if (device->state)
		state_section(s, device->name, index, device->state, device);
	else
		state_fail(s, s->loading ? STATE_DIFFERS : STATE_LACKING, device->name);
}

void board_state(struct state *s, struct board *board)
{
	struct board *b = board;
	state_section(s, "PIC", 0, &pic_state, &b->pic);
	state_section(s, "I/O APIC", 0, &ioapic_state, &b->ioapic);
	state_section(s, "PIT", 0, &pit_state, &b->pit);
	state_section(s, "HPET", 0, &hpet_state, &b->hpet);
	state_section(s, "RTC", 0, &rtc_state, &b->rtc);
	state_section(s, "UART", 0, &uart_state, &b->uart);
	state_section(s, "i8042", 0, &i8042_state, &b->i8042);
	state_section(s, "ACPI", 0, &pm_state, &b->pm);
	state_section(s, "reset", 0, &reset_state, &b->reset);
	state_section(s, "ISA bridge", 0, &lpc_state, &b->lpc);
	for (unsigned i = 0; i < b->virtio_count; i++)
		virtio_state(s, b->virtio[i], i);
	if (b->ahci.ports)
		state_section(s, "AHCI", 0, &ahci_state, &b->ahci);
	if (b->backends.vga)
		vga_state(s, &b->vga);
	state_section(s, "PCI hot plug", 0, &pci_hotplug_state, &b->hotplug);
	state_section(s, "PCI", 0, &pci_host_state, &b->pci); /* after its functions */
	mch_state(s, &b->mch);
	if (s->loading)
		board_place_memory(b);
	if (b->backends.firmware)
		state_section(s, "fw_cfg", 0, &fw_cfg_state, &b->fw_cfg);
	if (b->backends.flash.data)
		pflash_state(s, &b->flash);
}

/* ---- time ---- */

u64 board_deadline(const struct board *board)
{
	for (unsigned i = 0; i < board->virtio_count; i++)
		if (virtio_due(board->virtio[i]))
			return 0;
	u64 first = pit_deadline(&board->pit);
	first = MIN(first, rtc_deadline(&board->rtc));
	first = MIN(first, hpet_deadline(&board->hpet));
	first = MIN(first, uart_deadline(&board->uart));
	return MIN(first, pm_deadline(&board->pm));
}

void board_advance(struct board *board, u64 now)
{
	pit_advance(&board->pit, now);
	rtc_advance(&board->rtc, now);
	hpet_advance(&board->hpet, now);
	uart_advance(&board->uart, now);
	pm_advance(&board->pm, now);
	for (unsigned i = 0; i < board->virtio_count; i++)
		virtio_advance(board->virtio[i]);
}
