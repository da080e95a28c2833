/* The disks and network cards of a guest: from options to cables of its board. */
#ifndef NADIR_HOST_METAL_DEVICES_H
#define NADIR_HOST_METAL_DEVICES_H

#include "host/metal/boot_info.h"
#include "host/metal/options.h"
#include "host/metal/thread.h"
#include "vm/vm.h"

struct devices;

/* What disk, cdrom and net say; back ends go to `backends`, and stay there until devices_close. NULL: there is a sentence in `error`. */
struct devices *devices_open(const struct guest_options *options, const struct boot_info *info, struct board_backends *backends, char *error, size_t error_size);
/* The VM is there: from now on it is told of what is done. `setup` is what the guest's threads are made with. False: there is no memory. */
bool devices_start(struct devices *devices, struct vm *vm, const struct thread_setup *setup);
/* The VM has ended, and its vCPUs run no more: it is told nothing any longer. Then vm_destroy, then close. */
void devices_stop(struct devices *devices);
void devices_close(struct devices *devices);
/* A line for each disk of what it was asked for. */
void devices_report(const struct devices *devices, void (*line)(void *opaque, const char *text), void *opaque);

#endif
