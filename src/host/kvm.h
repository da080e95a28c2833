/* The host's KVM, for engine/kvm: files, requests, and the one thing that is not a request, making a vCPU leave its guest. The requests
 * and their structs are those of <linux/kvm.h>, which the engine knows; a host without KVM says so in host_kvm_open and never sees another
 * call. A part of the host port (host/port.h). */
#ifndef NADIR_HOST_KVM_H
#define NADIR_HOST_KVM_H

#include "arch/types.h"

/* A file for requests to KVM itself, or a negative errno. It is opened once and stays the host's. */
int host_kvm_open(void);
/* Why host_kvm_open failed, for people: how to mend it. */
const char *host_kvm_obstacle(void);
/* An ioctl: its result, or a negative errno. `argument` is a pointer or a number, as the request wants it. */
int host_kvm_call(int file, u64 request, u64 argument);
void host_kvm_close(int file);

struct host_kvm_vcpu {
	int file;
	void *run; /* struct kvm_run, shared with KVM; room for `size` bytes */
	u64 size;
	u8 *immediate_exit; /* in it */
	u32 thread; /* the host's, of the thread in host_kvm_run */
};

/* Map what KVM and the engine share for the vCPU of this file. immediate_exit is the offset of that field. 0 or a negative errno. */
int host_kvm_map(struct host_kvm_vcpu *vcpu, int file, u64 size, u64 immediate_exit);
/* Closes the file, too. No thread may be about to call host_kvm_stop. */
void host_kvm_unmap(struct host_kvm_vcpu *vcpu);
/* KVM_RUN on the calling thread: 0 or a negative errno. */
int host_kvm_run(struct host_kvm_vcpu *vcpu);
/* Make host_kvm_run return soon; if nobody is in it, the next one. Any thread. */
void host_kvm_stop(struct host_kvm_vcpu *vcpu);

/* How well this host's KVM runs an unmodified 64-bit kernel, found out by a trial: NULL if well, else one sentence. Slow: milliseconds. */
const char *host_kvm_trial(void);

#endif
