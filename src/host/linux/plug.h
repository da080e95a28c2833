/* Disks and networks that come and go while the machine runs (plug.c): what the control API's vm.add-disk, vm.add-net and vm.remove-device do.
 *
 * A thread of their own opens, starts, ends and closes them, so that the control socket's does nothing of that. It is made before the process is
 * confined, and the threads it makes are confined as it is. */
#ifndef NADIR_HOST_LINUX_PLUG_H
#define NADIR_HOST_LINUX_PLUG_H

#include "host/linux/passed_files.h"
#include "vm/vm.h"

struct plug_device {
	enum board_kind kind;
	unsigned index; /* among those of its kind */
	unsigned slot; /* its PCI device; 0: none of its own */
	bool asked; /* the guest was told to let go of it */
	const char *option; /* as the user gave it */
};

/* Note what the machine begins with, when it has been opened. Before confinement. */
void plug_init(struct vm *vm, bool confined);
/* Start the thread. 0 or an error number. */
int plug_start(void);
/* End it: nothing comes or goes any more. */
void plug_stop(void);

/* Add one, as the option --disk or --net says; `files` are what it needs, as disk_prepare or net_prepare made them, or none where the process may open
 * them itself. NULL, and the device; or why it cannot be, in one sentence. */
const char *plug_add(enum board_kind kind, const char *option, struct passed_files *files, struct plug_device *device);
/* Ask the guest to let go of one. When it has, the event device-removed tells so. NULL, or why not. */
const char *plug_remove(enum board_kind kind, unsigned index);
/* Each one there is. `each` may not call back. */
void plug_list(void (*each)(void *opaque, const struct plug_device *device), void *opaque);
/* vm_config.ejected */
void plug_ejected(void *opaque);

#endif
