/* Registers in an XSAVE image: a ZMM register lies in up to three components. */
#include "engine/step/image.h"

#include "engine/step/state.h"
#include "lib/string.h"

enum component {
	COMPONENT_SSE = 1,
	COMPONENT_AVX = 2,
	COMPONENT_OPMASK = 5,
	COMPONENT_ZMM_HI256 = 6,
	COMPONENT_HI16_ZMM = 7
};

#define IMAGE_FSW 2
#define IMAGE_MMX 32
#define IMAGE_XMM 160
#define IMAGE_XSTATE_BV 512

static u32 component_offset(enum component component)
{
	u32 offset, size;
	xstate_component(component, &offset, &size);
	return offset;
}

/* Where byte `offset` of the register lies, and in which component. */
static u32 vector_offset(unsigned reg, unsigned offset, enum component *component)
{
	if (reg >= 16) {
		*component = COMPONENT_HI16_ZMM;
		return component_offset(*component) + (reg - 16) * 64 + offset;
	}
	if (offset < 16) {
		*component = COMPONENT_SSE;
		return IMAGE_XMM + reg * 16 + offset;
	}
	if (offset < 32) {
		*component = COMPONENT_AVX;
		return component_offset(*component) + reg * 16 + offset - 16;
	}
	*component = COMPONENT_ZMM_HI256;
	return component_offset(*component) + reg * 32 + offset - 32;
}

static void mark_in_use(struct vcpu *vcpu, enum component component)
{
	vcpu->xsave[IMAGE_XSTATE_BV] |= (u8)(1u << component);
}

u64 image_vector_read(const struct vcpu *vcpu, unsigned reg, unsigned offset, unsigned size)
{
	enum component component;
	u64 value = 0;
	memcpy(&value, vcpu->xsave + vector_offset(reg, offset, &component), size);
	return value;
}

void image_vector_write(struct vcpu *vcpu, unsigned reg, unsigned offset, unsigned size, u64 value)
{
	enum component component;
	u32 at = vector_offset(reg, offset, &component);
	memcpy(vcpu->xsave + at, &value, size);
	mark_in_use(vcpu, component);
}

/* The upper components may not exist on this host; registers end with the last that does. */
static unsigned vector_bytes(const struct vcpu *vcpu)
{
	u64 mask = ((const struct step *)vcpu->engine_state)->xstate_mask;
	return (mask & XCR0_AVX512) == XCR0_AVX512 ? 64 : mask & XCR0_AVX ? 32 : 16;
}

void image_vector_clear(struct vcpu *vcpu, unsigned reg, unsigned offset)
{
	for (; offset < vector_bytes(vcpu); offset += 8)
		image_vector_write(vcpu, reg, offset & ~7u, 8, 0);
}

u64 image_mask_read(const struct vcpu *vcpu, unsigned reg)
{
	u64 value;
	memcpy(&value, vcpu->xsave + component_offset(COMPONENT_OPMASK) + reg * 8, sizeof(value));
	return value;
}

void image_mask_write(struct vcpu *vcpu, unsigned reg, u64 value)
{
	memcpy(vcpu->xsave + component_offset(COMPONENT_OPMASK) + reg * 8, &value, sizeof(value));
	mark_in_use(vcpu, COMPONENT_OPMASK);
}

/* The image has ST0 first; MMX registers are the physical ones below it. */
u64 image_mmx_read(const struct vcpu *vcpu, unsigned reg)
{
	u64 value;
	unsigned top = vcpu->xsave[IMAGE_FSW + 1] >> 3 & 7;
	memcpy(&value, vcpu->xsave + IMAGE_MMX + ((reg - top) & 7) * 16, sizeof(value));
	return value;
}

bool image_x87_pending(const struct vcpu *vcpu)
{
	return (vcpu->xsave[IMAGE_XSTATE_BV] & 1) && (vcpu->xsave[IMAGE_FSW] & 0x80);
}
