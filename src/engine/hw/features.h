/* Techniques of a processor's virtualization that can be left unused although it has them, so that what each is good for can be measured. */
#ifndef NADIR_ENGINE_HW_FEATURES_H
#define NADIR_ENGINE_HW_FEATURES_H

#include "arch/types.h"

/* X(NAME, text of the option). Those above the line are VT-x', those below AMD-V's. */
#define HW_TECHNIQUES(X) \
	X(TPR_SHADOW, "tpr-shadow") \
	X(APIC_ACCESS, "apic-access") \
	X(APIC_REGISTERS, "apic-registers") \
	X(X2APIC, "x2apic") \
	X(INTERRUPT_DELIVERY, "interrupt-delivery") \
	X(POSTED, "posted") \
	X(VPID, "vpid") \
	X(UNRESTRICTED, "unrestricted") \
	X(MSR_BITMAPS, "msr-bitmaps") \
	X(PAUSE_LOOP, "pause-loop") \
	X(PREEMPTION_TIMER, "preemption-timer") \
	/* ---- */ \
	X(VIRTUAL_TPR, "virtual-tpr") \
	X(NEXT_RIP, "next-rip") \
	X(CLEAN_BITS, "clean-bits") \
	X(FLUSH_BY_ASID, "flush-by-asid") \
	X(DECODE_ASSISTS, "decode-assists") \
	X(PAUSE_FILTER, "pause-filter")

#define X(name, text) HW_##name,
enum hw_technique { HW_TECHNIQUES(X) HW_TECHNIQUE_COUNT };
#undef X
static_assert(HW_TECHNIQUE_COUNT <= 64, "a set of techniques is a word");

/* A list of names with commas between them, as a set of BIT(HW_*). False: it has a word that is none, or none at all. */
bool hw_techniques_read(const char *list, u64 *set);

#endif
