/* --engine, --direct and --trace (run_engine.h). */
#define _GNU_SOURCE
#include "host/linux/run_engine.h"

#include "host/linux/diagnostics.h"
#include "host/linux/kvm.h"

#include <stdio.h>
#include <string.h>

static int check(const struct engine_ops *engine, u32 trace)
{
	const char *why;
	if (!engine->available(&why)) {
		fprintf(stderr, "nadir: --engine %s cannot run here: %s\n", engine->name, why);
		return -1;
	}
	if ((trace & TRACE_TRANSLATED) && (engine == &engine_step || engine == &engine_kvm)) {
		fprintf(stderr, "nadir: --trace in_asm and out_asm show translated code, and --engine %s translates none\n", engine->name);
		return -1;
	}
	return 0;
}

int run_engine(const struct run_options *o, struct vm_config *config)
{
	config->trace = diagnostics_trace(o->trace);
	if (config->trace == ~0u)
		return -1;
	config->engine = engine_find(o->engine);
	config->direct = o->perf_map || !strcmp(o->direct, "off") ? DIRECT_OFF : !strcmp(o->direct, "always") ? DIRECT_ALWAYS : DIRECT_AUTO;
	if (config->engine != &engine_kvm)
		kvm_forget();
	return check(config->engine, config->trace);
}
