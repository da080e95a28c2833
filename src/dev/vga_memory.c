/* The window of a VGA between 0xa0000 and 0xc0000 (vga.h): one byte of the guest's becomes up to four, one in each plane, by what the graphics
 * controller is told ("Graphics Controller", "Write Modes", "Read Modes"). */
#include "dev/vga.h"

#include "lib/string.h"

#define BANK_SHIFT 16

/* Where an address in the window is in video memory, in bytes that the guest sees. False: the window does not answer there. */
static bool decode(const struct vga_regs *r, u64 offset, u64 *at)
{
	static const struct {
		u32 start, size;
	} windows[] = { { 0, 0x20000 }, { 0, 0x10000 }, { 0x10000, 0x8000 }, { 0x18000, 0x8000 } };
	unsigned which = r->gr[GR_MISC] >> 2 & 3;
	*at = offset - windows[which].start;
	if (*at >= windows[which].size)
		return false;
	if (which == 1)
		*at += (u64)r->dispi[DISPI_BANK] << BANK_SHIFT;
	return true;
}

/* The four bytes of planes at an offset; beyond the memory it begins again. */
static u8 *planes(struct vga *v, u64 offset)
{
	return v->memory + (4 * offset & (VGA_MEMORY_SIZE - 1));
}

/* One plane after the other. NULL: no byte of the chain is written there. */
static u8 *chained(struct vga *v, u64 at, bool write)
{
	const struct vga_regs *r = &v->regs;
	bool all = r->sr[SR_MODE] & SR_MODE_CHAIN4;
	unsigned plane = all ? at & 3 : (r->gr[GR_READ_PLANE] & 2) | (at & 1);
	if (write && !(r->sr[SR_MASK] & BIT(plane)))
		return NULL;
	return planes(v, all ? at >> 2 : at >> 1) + plane;
}

static bool is_chained(const struct vga_regs *r)
{
	return (r->sr[SR_MODE] & SR_MODE_CHAIN4) || (r->gr[GR_MODE] & GR_MODE_ODD_EVEN);
}

/* Pixels of the color that is looked for, in the planes that matter. */
static u8 compare(const struct vga *v)
{
	const struct vga_regs *r = &v->regs;
	u8 differ = 0;
	for (unsigned p = 0; p < 4; p++)
		if (r->gr[GR_DONT_CARE] & BIT(p))
			differ |= v->latch[p] ^ (r->gr[GR_COMPARE] & BIT(p) ? 0xff : 0);
	return (u8)~differ;
}

static u8 read_byte(struct vga *v, u64 offset)
{
	const struct vga_regs *r = &v->regs;
	u64 at;
	if (!decode(r, offset, &at))
		return 0xff;
	if (is_chained(r)) {
		u8 value = *chained(v, at, false);
		memcpy(v->latch, planes(v, r->sr[SR_MODE] & SR_MODE_CHAIN4 ? at >> 2 : at >> 1), sizeof(v->latch));
		return value;
	}
	memcpy(v->latch, planes(v, at), sizeof(v->latch));
	return r->gr[GR_MODE] & 8 ? compare(v) : v->latch[r->gr[GR_READ_PLANE] & 3];
}

static u8 rotate(u8 value, unsigned count)
{
	return (u8)(value >> count | value << (8 - count));
}

/* What the byte becomes in a plane, before it meets the latch. */
static u8 data_of(const struct vga_regs *r, unsigned mode, unsigned plane, u8 value)
{
	bool set = r->gr[GR_SET_RESET] & BIT(plane);
	switch (mode) {
	case 0:
		return r->gr[GR_ENABLE_SET_RESET] & BIT(plane) ? (set ? 0xff : 0) : value;
	case 2:
		return value & BIT(plane) ? 0xff : 0;
	default:
		return set ? 0xff : 0;
	}
}

static u8 combine(unsigned function, u8 data, u8 latch)
{
	switch (function) {
	case 1:
		return data & latch;
	case 2:
		return data | latch;
	case 3:
		return data ^ latch;
	default:
		return data;
	}
}

static void write_planes(struct vga *v, u8 *to, u8 value)
{
	const struct vga_regs *r = &v->regs;
	unsigned mode = r->gr[GR_MODE] & 3;
	u8 mask = r->gr[GR_BIT_MASK], turned = mode == 0 || mode == 3 ? rotate(value, r->gr[GR_ROTATE] & 7) : value;
	if (mode == 3)
		mask &= turned;
	for (unsigned p = 0; p < 4; p++) {
		if (!(r->sr[SR_MASK] & BIT(p)))
			continue;
		u8 data = mode == 1 ? v->latch[p] : combine(r->gr[GR_ROTATE] >> 3 & 3, data_of(r, mode, p, turned), v->latch[p]);
		to[p] = mode == 1 ? data : (u8)((data & mask) | (v->latch[p] & ~mask));
	}
}

static void write_byte(struct vga *v, u64 offset, u8 value)
{
	u64 at;
	if (!decode(&v->regs, offset, &at))
		return;
	if (is_chained(&v->regs)) {
		u8 *to = chained(v, at, true);
		if (!to)
			return;
		*to = value;
		vga_written(v, to, 1);
	} else {
		write_planes(v, planes(v, at), value);
		vga_written(v, planes(v, at), 4);
	}
}

static u64 window_read(void *device, u64 offset, unsigned size, u64 now)
{
	u64 value = 0;
	for (unsigned i = 0; i < size; i++)
		value |= (u64)read_byte(device, offset + i) << (8 * i);
	return value;
}

static void window_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	for (unsigned i = 0; i < size; i++)
		write_byte(device, offset + i, (u8)(value >> (8 * i)));
}

const struct region_ops vga_window_ops = { .read = window_read, .write = window_write };
