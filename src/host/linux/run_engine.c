/* --engine, --direct and --trace (run_engine.h). */
#define _GNU_SOURCE
#include "host/linux/run_engine.h"

#include "host/linux/kvm.h"

#include <stdio.h>
#include <string.h>

static u32 trace_bits(const char *names)
{
	static const struct {
		const char *name;
		u32 bit;
	} kinds[] = {
		{ "exits", TRACE_EXITS }, { "io", TRACE_IO }, { "mmio", TRACE_MMIO }, { "msr", TRACE_MSR }, { "irq", TRACE_IRQ },
		{ "int", TRACE_INT }, { "exec", TRACE_EXEC }, { "in_asm", TRACE_IN_ASM }, { "out_asm", TRACE_OUT_ASM },
	};
	u32 bits = 0;
	while (names && *names) {
		size_t length = strcspn(names, ",");
		u32 found = 0;
		for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
			if (strlen(kinds[i].name) == length && !strncmp(kinds[i].name, names, length))
				found = kinds[i].bit;
		if (!found) {
			fprintf(stderr, "nadir: --trace: '%.*s' is not one of exits, io, mmio, msr, irq, int, exec, in_asm, out_asm\n", (int)length,
				names);
			return ~0u;
		}
		bits |= found;
		names += length + (names[length] == ',');
	}
	return bits;
}

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
	config->trace = trace_bits(o->trace);
	if (config->trace == ~0u)
		return -1;
	config->engine = engine_find(o->engine);
	config->direct = !strcmp(o->direct, "off") ? DIRECT_OFF : !strcmp(o->direct, "always") ? DIRECT_ALWAYS : DIRECT_AUTO;
	if (config->engine != &engine_kvm)
		kvm_forget();
	return check(config->engine, config->trace);
}
