/* What is told about a run beside what the guest says: log, trace, names for perf (diagnostics.c). */
#ifndef NADIR_HOST_LINUX_DIAGNOSTICS_H
#define NADIR_HOST_LINUX_DIAGNOSTICS_H

#include "host/linux/options.h"

/* TRACE_* bits of --trace; ~0 after one sentence on stderr. */
u32 diagnostics_trace(const char *names);
/* Open the files of the log and of names for perf. 0, or -1 after one sentence on stderr. */
int diagnostics_open(const struct run_options *options);

#endif
