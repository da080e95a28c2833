/* Vector and mask registers in an XSAVE image, for the instructions whose elements are done one by one.
 * Intel SDM volume 1, "Standard Format of XSAVE Area", "XSAVE-Managed State". */
#ifndef NADIR_ENGINE_STEP_IMAGE_H
#define NADIR_ENGINE_STEP_IMAGE_H

#include "vcpu/vcpu.h"

/* The image must hold every component: vector_ready, then vector_sync, come before. */

/* Read and write `size` bytes (at most 8, inside one 16-byte lane) at byte `offset` of ZMM register `reg`. */
u64 image_vector_read(const struct vcpu *vcpu, unsigned reg, unsigned offset, unsigned size);
void image_vector_write(struct vcpu *vcpu, unsigned reg, unsigned offset, unsigned size, u64 value);
/* Clear the register from byte `offset` on, as VEX and EVEX instructions do above their vector length. */
void image_vector_clear(struct vcpu *vcpu, unsigned reg, unsigned offset);

u64 image_mask_read(const struct vcpu *vcpu, unsigned reg);
void image_mask_write(struct vcpu *vcpu, unsigned reg, u64 value);
u64 image_mmx_read(const struct vcpu *vcpu, unsigned reg);
/* Whether an unmasked x87 exception waits for the next waiting instruction (the status word's ES). */
bool image_x87_pending(const struct vcpu *vcpu);

#endif
