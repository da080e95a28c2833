/* The port to KVM (host/kvm.h): there is none on the bare machine, so that nothing but the first two functions is ever called. */
#include "host/kvm.h"
#include "host/port.h"

#define ENOENT 2

int host_kvm_open(void)
{
	return -ENOENT;
}

const char *host_kvm_obstacle(void)
{
	return "KVM is Linux', and this is the bare machine";
}

int host_kvm_call(int file, u64 request, u64 argument)
{
	host_panic("KVM is called where there is none");
}

void host_kvm_close(int file)
{
}

int host_kvm_map(struct host_kvm_vcpu *vcpu, int file, u64 size, u64 immediate_exit)
{
	host_panic("KVM is called where there is none");
}

void host_kvm_unmap(struct host_kvm_vcpu *vcpu)
{
}

int host_kvm_run(struct host_kvm_vcpu *vcpu)
{
	host_panic("KVM is called where there is none");
}

void host_kvm_stop(struct host_kvm_vcpu *vcpu)
{
}

const char *host_kvm_trial(void)
{
	return host_kvm_obstacle();
}
