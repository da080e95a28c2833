/* The engines there are, in the order of preference. */
#include "engine/engine.h"

#include "lib/string.h"

const struct engine_ops *const engines[ENGINE_COUNT] = { &engine_kvm, &engine_svm, &engine_vmx, &engine_bt, &engine_step, &engine_lockstep };

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

bool engine_preferred(const struct engine_ops *engine, const char **why)
{
	return engine->preferred ? engine->preferred(why) : engine->available(why);
}

const struct engine_ops *engine_find(const char *name)
{
	const char *why;
	for (unsigned i = 0; i < ENGINE_COUNT; i++)
		if (same(name, engines[i]->name) || (same(name, "auto") && engine_preferred(engines[i], &why)))
			return engines[i];
	return NULL;
}
