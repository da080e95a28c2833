/* Registers of the VGA (vga.h): ports 0x3b0 to 0x3df, Bochs' at 0x1ce, both again as memory in BAR2; and the device's life. */
#include "dev/vga.h"

#include "dev/map.h"
#include "host/port.h"
#include "lib/string.h"

#define VENDOR 0x1234
#define DEVICE 0x1111
#define SUBSYSTEM_VENDOR 0x1af4
#define SUBSYSTEM 0x1100
#define CLASS 0x030000
#define REVISION 2
#define BAR_PREFETCHABLE 0x8

#define REGISTERS_SIZE 4096
#define PORTS 0x3b0 /* the first of 48 */
#define PORTS_COUNT 0x30
#define DISPI_PORTS 0x1ce /* index; data at 0x1cf, and for those who cannot do odd ports at 0x1d0 */
#define DISPI_ID5 0xb0c5
#define DISPI_HEIGHT_MAX 4096u

#define MISC_COLOR 0x01 /* the CRT controller is at 0x3d4, not 0x3b4 */
#define CR_PROTECTED 0x80
#define CR_COUNT 0x19

/* ---- what is no register ---- */

/* "Input Status Register One" of a picture of 60 Hz with 525 lines: how far it is drawn. */
#define FRAME 16683333u
#define LINE (FRAME / 525)
#define STATUS_RETRACE 0x08
#define STATUS_BLANK 0x01

static u8 status_one(u64 now)
{
	u64 in_frame = now % FRAME, in_line = in_frame % LINE;
	bool vertical = in_frame >= FRAME - FRAME / 12;
	return (vertical ? STATUS_RETRACE : 0) | (vertical || in_line >= LINE - LINE / 5 ? STATUS_BLANK : 0);
}

/* ---- the color table ("Video DAC") ---- */

static void dac_write(struct vga_regs *r, u8 value)
{
	r->dac_new[r->dac_part++] = value;
	if (r->dac_part < 3)
		return;
	memcpy(&r->dac[3 * r->dac_write++], r->dac_new, 3);
	r->dac_part = 0;
}

static u8 dac_read(struct vga_regs *r)
{
	u8 value = r->dac[3 * r->dac_read + r->dac_part++];
	if (r->dac_part == 3) {
		r->dac_part = 0;
		r->dac_read++;
	}
	return value;
}

static void dac_start(struct vga_regs *r, bool reading, u8 index)
{
	r->dac_reading = reading;
	r->dac_part = 0;
	*(reading ? &r->dac_read : &r->dac_write) = index;
}

/* ---- Bochs' registers ---- */

static u16 dispi_maximum(unsigned index)
{
	return index == DISPI_WIDTH ? VGA_WIDTH_MAX : index == DISPI_HEIGHT ? DISPI_HEIGHT_MAX : 32;
}

static u16 dispi_read(const struct vga_regs *r, unsigned index)
{
	if (index >= VGA_DISPIS)
		return 0;
	if (index == DISPI_MEMORY)
		return VGA_MEMORY_SIZE >> 16;
	if (index >= DISPI_WIDTH && index <= DISPI_BPP && (r->dispi[DISPI_ENABLE] & DISPI_CAPABILITIES))
		return dispi_maximum(index);
	return r->dispi[index];
}

static bool is_depth(u16 bpp)
{
	return bpp == 4 || bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

/* How many lines of that width the memory holds. */
static unsigned lines_of(const struct vga_regs *r)
{
	unsigned bits = r->dispi[DISPI_BPP] == 15 ? 16 : r->dispi[DISPI_BPP];
	u64 line = (u64)r->dispi[DISPI_VIRTUAL_WIDTH] * bits / 8;
	return line ? (unsigned)MIN(VGA_MEMORY_SIZE / line, 0xffff) : 0;
}

/* A picture that the memory holds; what does not fit is cut. */
static void start_picture(struct vga *v)
{
	struct vga_regs *r = &v->regs;
	u16 *d = r->dispi;
	d[DISPI_BPP] = is_depth(d[DISPI_BPP]) ? d[DISPI_BPP] : 8;
	d[DISPI_WIDTH] = (u16)MAX(8, MIN(d[DISPI_WIDTH] & ~7, VGA_WIDTH_MAX));
	d[DISPI_VIRTUAL_WIDTH] = d[DISPI_WIDTH];
	d[DISPI_VIRTUAL_HEIGHT] = (u16)lines_of(r);
	d[DISPI_HEIGHT] = (u16)MAX(1, MIN(d[DISPI_HEIGHT], MIN(d[DISPI_VIRTUAL_HEIGHT], DISPI_HEIGHT_MAX)));
	d[DISPI_X] = d[DISPI_Y] = 0;
	if (!(d[DISPI_ENABLE] & DISPI_KEEP_MEMORY)) {
		host_ram_discard(v->memory, VGA_MEMORY_SIZE);
		vga_written(v, v->memory, VGA_MEMORY_SIZE);
	}
}

/* The window shows memory as it is, or planes of 16 colors. */
static void open_window(struct vga_regs *r)
{
	bool planar = r->dispi[DISPI_BPP] == 4;
	r->gr[GR_MISC] = (r->gr[GR_MISC] & ~0x0c) | 0x04 | GR_MISC_GRAPHICS;
	r->gr[GR_MODE] &= ~(0x60 | GR_MODE_ODD_EVEN);
	r->gr[GR_MODE] |= planar ? 0 : 0x40;
	r->sr[SR_MODE] = planar ? r->sr[SR_MODE] & ~SR_MODE_CHAIN4 : r->sr[SR_MODE] | SR_MODE_CHAIN4;
	r->sr[SR_MASK] |= 0xf;
}

static void dispi_enable(struct vga *v, u16 value)
{
	struct vga_regs *r = &v->regs;
	bool starts = (value & DISPI_ENABLED) && !vga_extended(r);
	r->dispi[DISPI_ENABLE] = value;
	r->dispi[DISPI_BANK] = 0;
	if (!starts)
		return;
	start_picture(v);
	open_window(r);
}

static void dispi_virtual_width(struct vga_regs *r, u16 value)
{
	u16 before = r->dispi[DISPI_VIRTUAL_WIDTH];
	r->dispi[DISPI_VIRTUAL_WIDTH] = MAX(value, r->dispi[DISPI_WIDTH]);
	if (lines_of(r) < r->dispi[DISPI_HEIGHT])
		r->dispi[DISPI_VIRTUAL_WIDTH] = before;
	r->dispi[DISPI_VIRTUAL_HEIGHT] = (u16)lines_of(r);
}

static void dispi_write(struct vga *v, unsigned index, u16 value)
{
	struct vga_regs *r = &v->regs;
	switch (index) {
	case DISPI_ID:
		if ((value & 0xfff0) == (DISPI_ID5 & 0xfff0) && value <= DISPI_ID5)
			r->dispi[index] = value;
		break;
	case DISPI_WIDTH:
	case DISPI_HEIGHT:
	case DISPI_BPP:
		if (!vga_extended(r))
			r->dispi[index] = value;
		break;
	case DISPI_ENABLE:
		dispi_enable(v, value);
		break;
	case DISPI_BANK:
		r->dispi[index] = value & ((VGA_MEMORY_SIZE >> 16) - 1);
		break;
	case DISPI_VIRTUAL_WIDTH:
		if (vga_extended(r))
			dispi_virtual_width(r, value);
		break;
	case DISPI_X:
	case DISPI_Y:
		r->dispi[index] = value;
		break;
	}
}

/* ---- the ports ---- */

static void attribute_write(struct vga_regs *r, u8 value)
{
	unsigned index = r->ar_index & 0x1f;
	if (!r->ar_data)
		r->ar_index = value & (AR_ENABLE | 0x1f);
	else if (index < VGA_ARS && (index >= AR_MODE || !(r->ar_index & AR_ENABLE)))
		r->ar[index] = value & 0x3f;
	if (r->ar_data && index == AR_MODE)
		r->ar[AR_MODE] = value;
	r->ar_data = !r->ar_data;
}

/* Timing is locked by a bit of its own, but for the one that compares lines. */
static void crt_write(struct vga_regs *r, u8 value)
{
	u8 index = r->cr_index;
	if (index >= CR_COUNT)
		return;
	if (index > CR_OVERFLOW || !(r->cr[CR_PROTECT] & CR_PROTECTED))
		r->cr[index] = value;
	else if (index == CR_OVERFLOW)
		r->cr[index] = (r->cr[index] & ~0x10) | (value & 0x10);
}

/* Ports that move with the choice of color or monochrome: 0x3b4 to 0x3ba, 0x3d4 to 0x3da. */
static bool crt_port(const struct vga_regs *r, unsigned port, unsigned *which)
{
	*which = port & 0xf;
	return (port & 0x3f0) == (r->misc & MISC_COLOR ? 0x3d0 : 0x3b0);
}

static u8 port_read(struct vga *v, unsigned port, u64 now)
{
	struct vga_regs *r = &v->regs;
	unsigned which;
	switch (port) {
	case 0x3c0:
		return r->ar_index;
	case 0x3c1:
		return (r->ar_index & 0x1f) < VGA_ARS ? r->ar[r->ar_index & 0x1f] : 0;
	case 0x3c2:
		return 0x10; /* a monitor is there */
	case 0x3c4:
		return r->sr_index;
	case 0x3c5:
		return r->sr[r->sr_index];
	case 0x3c6:
		return r->dac_mask;
	case 0x3c7:
		return r->dac_reading ? 3 : 0;
	case 0x3c8:
		return r->dac_write;
	case 0x3c9:
		return dac_read(r);
	case 0x3cc:
		return r->misc;
	case 0x3ce:
		return r->gr_index;
	case 0x3cf:
		return r->gr[r->gr_index];
	}
	if (!crt_port(r, port, &which))
		return 0xff;
	if (which == 4)
		return r->cr_index;
	if (which == 5)
		return r->cr_index < VGA_CRS ? r->cr[r->cr_index] : 0;
	if (which != 0xa)
		return 0xff;
	r->ar_data = false;
	return status_one(now);
}

static void port_write(struct vga *v, unsigned port, u8 value)
{
	static const u8 sr_bits[VGA_SRS] = { 0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff };
	static const u8 gr_bits[VGA_GRS] = { 0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff };
	struct vga_regs *r = &v->regs;
	unsigned which;
	switch (port) {
	case 0x3c0:
		attribute_write(r, value);
		return;
	case 0x3c2:
		r->misc = value & ~0x10;
		return;
	case 0x3c4:
		r->sr_index = value & (VGA_SRS - 1);
		return;
	case 0x3c5:
		r->sr[r->sr_index] = value & sr_bits[r->sr_index];
		return;
	case 0x3c6:
		r->dac_mask = value;
		return;
	case 0x3c7:
		dac_start(r, true, value);
		return;
	case 0x3c8:
		dac_start(r, false, value);
		return;
	case 0x3c9:
		dac_write(r, value);
		return;
	case 0x3ce:
		r->gr_index = value & (VGA_GRS - 1);
		return;
	case 0x3cf:
		r->gr[r->gr_index] = value & gr_bits[r->gr_index];
		return;
	}
	if (crt_port(r, port, &which) && which == 4)
		r->cr_index = value;
	else if (crt_port(r, port, &which) && which == 5)
		crt_write(r, value);
}

static u64 ports_read(void *device, u64 offset, unsigned size, u64 now)
{
	return port_read(device, PORTS + (unsigned)offset, now);
}

/* A word is an index and its data. */
static void ports_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	port_write(device, PORTS + (unsigned)offset, (u8)value);
}

static u64 dispi_port_read(void *device, u64 offset, unsigned size, u64 now)
{
	const struct vga *v = device;
	return offset ? dispi_read(&v->regs, v->regs.dispi_index) : v->regs.dispi_index;
}

static void dispi_port_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct vga *v = device;
	if (offset)
		dispi_write(v, v->regs.dispi_index, (u16)value);
	else
		v->regs.dispi_index = (u16)value;
}

static const struct region_ops ports_ops = { .read = ports_read, .write = ports_write, .width = 1 };
static const struct region_ops dispi_ops = { .read = dispi_port_read, .write = dispi_port_write, .width = 2 };

/* ---- BAR2: the same as memory, from port 0x3c0 and Bochs' index 0 on, and what QEMU added ---- */

#define AT_PORTS 0x400
#define AT_DISPI 0x500
#define AT_QEMU 0x600
#define QEMU_SIZE 8
#define LITTLE_ENDIAN_PIXELS 0x1e1e1e1e

static u64 registers_read(void *device, u64 offset, unsigned size, u64 now)
{
	struct vga *v = device;
	if (offset >= AT_PORTS && offset < AT_PORTS + 0x20)
		return port_read(v, 0x3c0 + (unsigned)(offset - AT_PORTS), now);
	if (offset >= AT_DISPI && offset < AT_DISPI + 2 * VGA_DISPIS && !(offset & 1))
		return dispi_read(&v->regs, (unsigned)(offset - AT_DISPI) / 2);
	if (offset == AT_QEMU)
		return QEMU_SIZE;
	return offset == AT_QEMU + 4 ? LITTLE_ENDIAN_PIXELS : 0;
}

static void registers_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct vga *v = device;
	if (offset >= AT_PORTS && offset < AT_PORTS + 0x20) {
		port_write(v, 0x3c0 + (unsigned)(offset - AT_PORTS), (u8)value);
		if (size > 1)
			port_write(v, 0x3c1 + (unsigned)(offset - AT_PORTS), (u8)(value >> 8));
	} else if (offset >= AT_DISPI && offset < AT_DISPI + 2 * VGA_DISPIS && !(offset & 1)) {
		dispi_write(v, (unsigned)(offset - AT_DISPI) / 2, (u16)value);
	}
}

static const struct region_ops registers_ops = { .read = registers_read, .write = registers_write, .width = 4 };

/* ---- BAR0: where it is not memory (yet) ---- */

static u64 memory_read(void *device, u64 offset, unsigned size, u64 now)
{
	const struct vga *v = device;
	u64 value = 0;
	memcpy(&value, v->memory + offset, size);
	return value;
}

static void memory_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct vga *v = device;
	memcpy(v->memory + offset, &value, size);
	vga_written(v, v->memory + offset, size);
}

static const struct region_ops memory_ops = { .read = memory_read, .write = memory_write };

/* Where the guest wants its memory. Nothing is moved over the local APIC, which is no device of the bus. */
static gpa_t wanted_base(const struct vga *v)
{
	const struct pci_bar *bar = &v->function.bar[0];
	if (!bar->bus || (bar->base <= MAP_LAPIC && MAP_LAPIC < bar->base + VGA_MEMORY_SIZE))
		return RAM_NOWHERE;
	return bar->base;
}

void vga_place(struct vga *vga)
{
	gpa_t base = wanted_base(vga);
	if (!ram_move(vga->ram, vga->memory, base))
		ram_move(vga->ram, vga->memory, RAM_NOWHERE);
}

static void config_written(void *opaque, unsigned offset, unsigned size, u64 now)
{
	struct vga *v = opaque;
	if (wanted_base(v) != ram_place(v->ram, v->memory))
		v->moved(v->opaque);
}

/* ---- life ---- */

void vga_reset(struct vga *vga)
{
	vga->regs = (struct vga_regs){ .misc = MISC_COLOR, .dac_mask = 0xff, .dispi = { [DISPI_ID] = DISPI_ID5 } };
	memset(vga->latch, 0, sizeof(vga->latch));
	host_ram_discard(vga->memory, VGA_MEMORY_SIZE);
	if (!vga->firmware)
		vga_set_text_mode(vga);
	vga_place(vga);
}

static int describe(struct vga *v)
{
	struct pci_function *f = &v->function;
	f->written = config_written;
	f->opaque = v;
	pci_function_init(f, VENDOR, DEVICE, CLASS, REVISION);
	pci_put(f, PCI_SUBSYSTEM_VENDOR, 2, SUBSYSTEM_VENDOR);
	pci_put(f, PCI_SUBSYSTEM, 2, SUBSYSTEM);
	/* Ports and window of a VGA answer as long as the machine runs, but firmware enables them by this bit. */
	int error = pci_add_bar(f, 0, PCI_BAR_MEM32, VGA_MEMORY_SIZE, "VGA memory", &memory_ops, v);
	error |= pci_add_bar(f, 2, PCI_BAR_MEM32, REGISTERS_SIZE, "VGA registers", &registers_ops, v);
	pci_put(f, PCI_BAR0, 4, BAR_PREFETCHABLE);
	pci_allow(f, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	return error;
}

int vga_attach(struct vga *vga, struct pci_host *host, struct bus *io, struct bus *memory, struct ram *ram, unsigned slot,
	       unsigned function)
{
	struct vga *v = vga;
	v->ram = ram;
	v->memory = host_ram_create(VGA_MEMORY_SIZE);
	if (!v->memory || ram_add(ram, RAM_NOWHERE, VGA_MEMORY_SIZE, v->memory, false) < 0)
		return -1;
	int error = describe(v);
	error |= bus_add(io, "VGA", PORTS, PORTS_COUNT, &ports_ops, v);
	error |= bus_add(io, "VGA extensions", DISPI_PORTS, 4, &dispi_ops, v);
	error |= bus_add(memory, "VGA window", MAP_LEGACY_HOLE, MAP_PAM - MAP_LEGACY_HOLE, &vga_window_ops, v);
	if (error)
		return -1;
	vga_reset(v);
	return pci_add(host, &v->function, slot, function);
}

void vga_destroy(struct vga *vga)
{
	if (vga->memory)
		host_ram_destroy(vga->memory, VGA_MEMORY_SIZE);
}

/* ---- state ---- */

/* What a picture of a linear mode needs was checked when the mode was set. */
static bool regs_loaded(void *object)
{
	const struct vga_regs *r = object;
	return !vga_extended(r) || is_depth(r->dispi[DISPI_BPP]);
}

static const struct state_table regs_state = STATE_TABLE(struct vga_regs, regs_loaded,
	STATE(struct vga_regs, misc), STATE_MAX(struct vga_regs, sr_index, VGA_SRS - 1), STATE(struct vga_regs, sr),
	STATE(struct vga_regs, cr_index), STATE(struct vga_regs, cr), STATE_MAX(struct vga_regs, gr_index, VGA_GRS - 1),
	STATE(struct vga_regs, gr), STATE(struct vga_regs, ar_index), STATE(struct vga_regs, ar), STATE(struct vga_regs, ar_data),
	STATE(struct vga_regs, dac_mask), STATE(struct vga_regs, dac_read), STATE(struct vga_regs, dac_write),
	STATE_MAX(struct vga_regs, dac_part, 2), STATE(struct vga_regs, dac_reading), STATE(struct vga_regs, dac_new),
	STATE(struct vga_regs, dac), STATE(struct vga_regs, dispi_index), STATE(struct vga_regs, dispi));

static const struct state_table vga_state_table = STATE_TABLE(struct vga, NULL,
	STATE_NONE(struct vga, moved), STATE_NONE(struct vga, opaque), STATE_SAME(struct vga, firmware), STATE_NONE(struct vga, rom),
	STATE_NONE(struct vga, rom_size), STATE_IN(struct vga, function, pci_function_state), STATE_NONE(struct vga, ram),
	STATE_NONE(struct vga, memory), STATE_IN(struct vga, regs, regs_state), STATE(struct vga, latch));

/* Of the memory only pieces that are not zero are there. */
#define PIECE (64u << 10)
#define PIECES (VGA_MEMORY_SIZE / PIECE)

static bool is_zero(const u8 *p, size_t size)
{
	return !p[0] && !memcmp(p, p + 1, size - 1);
}

void vga_state(struct state *s, struct vga *vga)
{
	u8 used[PIECES] = { 0 };
	state_section(s, "VGA", 0, &vga_state_table, vga);
	for (unsigned i = 0; !s->loading && i < PIECES; i++)
		used[i] = !is_zero(vga->memory + i * PIECE, PIECE);
	state_bytes(s, "VGA memory", 0, used, sizeof(used));
	if (s->loading)
		host_ram_discard(vga->memory, VGA_MEMORY_SIZE);
	for (unsigned i = 0; i < PIECES && state_good(s); i++)
		if (used[i])
			state_bytes(s, "VGA memory piece", i, vga->memory + i * PIECE, PIECE);
}
