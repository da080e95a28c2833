/* The data behind the CPUID policy: named models, who provides which feature, and which feature needs which. */
#ifndef NADIR_CPU_CPUID_MODELS_H
#define NADIR_CPU_CPUID_MODELS_H

#include "arch/cpuid.h"

struct cpu_model {
	const char *name;
	const char *base;     /* the model whose features it has too, or NULL */
	const char *features; /* names, separated by spaces; NULL: everything the host has */
	const char *vendor;   /* 12 characters; NULL: the host's */
	u8 family, model,
		stepping; /* as displayed; family 0: the host's for `host`, a typical one of its vendor otherwise */
};

extern const struct cpu_model cpu_models[];
extern const unsigned cpu_model_count;
extern const char *const cpu_model_names[]; /* ended by NULL */

/* Features that nadir provides itself, whatever the host has. */
extern const u8 cpu_features_own[];
extern const unsigned cpu_features_own_count;
/* Features that no guest sees, with the reason in the table. */
extern const u8 cpu_features_never[];
extern const unsigned cpu_features_never_count;
/* Features every guest sees unless the user takes them away: what nadir's timers and clocks offer. */
extern const u8 cpu_features_always[];
extern const unsigned cpu_features_always_count;
/* Features that have a meaning on AMD's processors only. */
extern const u8 cpu_features_amd[];
extern const unsigned cpu_features_amd_count;

struct cpu_dependency {
	u8 feature, needs;
};
extern const struct cpu_dependency cpu_dependencies[];
extern const unsigned cpu_dependency_count;

#endif
