/* Where the host's own words go, and its end. */
#ifndef NADIR_HOST_METAL_LOG_H
#define NADIR_HOST_METAL_LOG_H

#include "host/metal/trap_frame.h"
#include "host/port.h"

void log_set_level(enum host_log_level level);
/* A line of the host's, whatever the level: "nadir: " is put in front. */
void log_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* What host_panic calls to show the vCPUs' state. */
void log_set_panic_dump(void (*dump)(void));
/* An exception that is nobody's: say everything and stop. */
_Noreturn void log_panic_frame(const struct frame *frame, u64 address);
/* An NMI came: the CPU stops if another has panicked. */
void log_stop_if_panicking(void);

#endif
