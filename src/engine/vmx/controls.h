/* What the processor's VMX offers, and which controls nadir sets (D1): one table decides, for each control, from the capability MSRs. */
#ifndef NADIR_ENGINE_VMX_CONTROLS_H
#define NADIR_ENGINE_VMX_CONTROLS_H

#include "arch/vmx.h"

/* The words of controls. */
enum vmx_word { WORD_PIN, WORD_PROCESSOR, WORD_SECONDARY, WORD_EXIT, WORD_ENTRY, WORD_COUNT };

/* Intel SDM volume 3, "VMX Capability Reporting Facility". */
struct vmx_capabilities {
	u64 basic, misc, ept_vpid;
	u64 cr0_fixed[2], cr4_fixed[2]; /* bits that must be 1; bits that may be 1 */
	u32 must[WORD_COUNT], may[WORD_COUNT]; /* bits of each word that are 1 in any case; that may be 1 */
};

struct vmx_controls {
	u32 word[WORD_COUNT];
	u32 changing[WORD_COUNT]; /* of these, bits that are set and cleared as the guest runs; clear in `word` */
};

enum vmx_use {
	USE_REQUIRED, /* nadir does not run without it */
	USE_WANTED,   /* set where the processor has it */
	USE_SHADOW,   /* required where EPT is not used */
	USE_NO_TPR,   /* required where there is no TPR shadow */
	USE_CHANGES,  /* set while needed: required, too */
	USE_AT_TIMES, /* likewise, where the processor has it */
	USE_NONE,     /* known, and not used */
};

struct vmx_control {
	u8 word; /* enum vmx_word */
	u8 use; /* enum vmx_use */
	u32 mask; /* one bit */
	const char *name;
	const char *missing; /* what to say where it is required and missing: a sentence */
	u64 ept_vpid; /* what it demands of IA32_VMX_EPT_VPID_CAP */
	bool with_ept; /* only where EPT is used */
};

/* All controls that have a name. */
unsigned vmx_control_table(const struct vmx_control **rows);

/* By the processor's MSRs; the caller knows by CPUID that it has VMX. */
void vmx_capabilities_read(struct vmx_capabilities *capabilities, u64 (*read)(u32 msr));

/* Choose. Bits in `without` are not set although they could be. NULL, or the control that is required and missing. */
const struct vmx_control *vmx_controls_choose(const struct vmx_capabilities *capabilities, const u32 without[WORD_COUNT], struct vmx_controls *out);

/* What the processor has and what is used of it, line by line. */
void vmx_describe(const struct vmx_capabilities *capabilities, const struct vmx_controls *controls, void (*line)(void *opaque, const char *text),
		  void *opaque);

#endif
