/* The engines there are, in the order of preference. */
#include "engine/engine.h"

#include "lib/string.h"

const struct engine_ops *const engines[ENGINE_COUNT] = { &engine_bt, &engine_step, &engine_lockstep };

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

const struct engine_ops *engine_find(const char *name)
{
	const char *why;
	for (unsigned i = 0; i < ENGINE_COUNT; i++)
		if (same(name, engines[i]->name) || (same(name, "auto") && engines[i]->available(&why)))
			return engines[i];
	return NULL;
}
