/* `nadir run`: one virtual machine in this process (run.c). */
#ifndef NADIR_HOST_LINUX_RUN_H
#define NADIR_HOST_LINUX_RUN_H

#include "host/linux/options.h"

/* Exit statuses, as the manual page lists them. */
enum exit_status {
	STATUS_OK = 0, /* the guest powered itself off, or the user ended it */
	STATUS_FAILURE = 1, /* nadir could not go on */
	STATUS_USAGE = 2, /* an option or file is wrong */
	STATUS_CRASH = 3, /* the guest crashed */
};

/* Run the machine to its end; the process's exit status. */
int run_main(const struct run_options *options);

#endif
