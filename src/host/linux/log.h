/* Where host_log lines go and which are shown (log.c). */
#ifndef NADIR_HOST_LINUX_LOG_H
#define NADIR_HOST_LINUX_LOG_H

#include "host/port.h"

void log_set_level(enum host_log_level level);
/* The descriptor stays the caller's and must outlive all logging. */
void log_set_fd(int fd);
/* Where host_note_code writes lines as perf reads them from /tmp/perf-PID.map; none: -1. The descriptor stays the caller's. */
void log_set_code_map(int fd);
bool log_has_code_map(void);
/* What host_panic calls before it aborts, to show the vCPUs' state. */
void log_set_panic_dump(void (*dump)(void));

#endif
