/* Who may use an I/O port. Intel SDM volume 1, "Protected-Mode I/O", "I/O Permission Bit Map"; volume 3, "I/O in
 * Virtual-8086 Mode". */
#include "cpu/control.h"
#include "mmu/mmu.h"

#define TSS_IO_MAP_BASE 102
#define TSS_LIMIT_MIN 103

static bool read_tss_u16(struct vcpu *vcpu, u32 offset, u16 *value)
{
	return mmu_read(vcpu, vcpu->tr.base + offset, value, sizeof(*value), ACCESS_READ | ACCESS_IMPLICIT);
}

/* The bitmap is read two bytes at a time, both of which must be within the TSS. */
static bool bitmap_allows(struct vcpu *vcpu, u16 port, unsigned size)
{
	u32 type = vcpu->tr.attr & SEG_ATTR_TYPE;
	u16 map, bits;
	if ((type != SYS_TSS && type != SYS_TSS_BUSY) || vcpu->tr.limit < TSS_LIMIT_MIN)
		return vcpu_raise_gp(vcpu, 0);
	if (!read_tss_u16(vcpu, TSS_IO_MAP_BASE, &map))
		return false;
	u32 offset = (u32)map + port / 8;
	if (offset + 1 > vcpu->tr.limit)
		return vcpu_raise_gp(vcpu, 0);
	if (!read_tss_u16(vcpu, offset, &bits))
		return false;
	if (bits >> port % 8 & mask_of(size))
		return vcpu_raise_gp(vcpu, 0);
	return true;
}

bool control_check_io(struct vcpu *vcpu, u16 port, unsigned size)
{
	if (!vcpu_protected(vcpu) || (!vcpu_v86(vcpu) && vcpu->cpl <= vcpu_iopl(vcpu)))
		return true;
	return bitmap_allows(vcpu, port, size);
}
