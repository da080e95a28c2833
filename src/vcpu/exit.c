/* Names of the exit reasons, for statistics and diagnostics. */
#include "vcpu/exit.h"

static const char *const names[EXIT_REASON_COUNT] = {
#define X(name, text) [EXIT_##name] = text,
	EXIT_REASONS(X)
#undef X
};

const char *exit_reason_name(enum exit_reason reason)
{
	return (unsigned)reason < EXIT_REASON_COUNT ? names[reason] : "unknown";
}
