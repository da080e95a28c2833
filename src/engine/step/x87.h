/* The x87 instruction and data pointers. The real CPU records where snippets and host memory lie, which a guest must
 * neither rely on nor learn; the engine records where the guest's instruction and operand lie and puts that in its
 * place wherever the guest can look. Intel SDM volume 1, "x87 FPU Instruction and Data (Operand) Pointers". */
#ifndef NADIR_ENGINE_STEP_X87_H
#define NADIR_ENGINE_STEP_X87_H

#include "engine/step/state.h"

/* An x87 instruction that records pointers was executed; gva is its memory operand, if it has one. */
void x87_note(struct vcpu *vcpu, struct step *step, const struct op *op, gva_t gva);
/* The image was just saved from the registers: replace what points into the host. */
void x87_patch_image(struct vcpu *vcpu, struct step *step);
/* The guest (or somebody outside) has loaded the image: take the pointers from it. */
void x87_reload(struct vcpu *vcpu, struct step *step);

#endif
