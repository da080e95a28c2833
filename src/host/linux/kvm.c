/* The port to the host's KVM (host/kvm.h): /dev/kvm, and how a vCPU that runs is stopped: its immediate_exit makes KVM_RUN return at once,
 * a signal ends one that is under way. Linux documentation, "The Definitive KVM API Documentation", KVM_RUN. */
#define _GNU_SOURCE
#include "host/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/linux/kvm.h"
#include "host/linux/probe_kvm.h"

#define STOP_SIGNAL SIGRTMIN

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int kvm_file; /* 0: not opened yet; or a negative errno */

static void on_stop(int number)
{
}

static void open_device(void)
{
	struct sigaction action = { .sa_handler = on_stop, .sa_flags = SA_ONSTACK | SA_RESTART };
	kvm_file = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm_file < 0)
		kvm_file = -errno;
	else
		sigaction(STOP_SIGNAL, &action, NULL);
}

int host_kvm_open(void)
{
	pthread_once(&once, open_device);
	return kvm_file;
}

void kvm_forget(void)
{
	if (kvm_file > 0)
		close(kvm_file);
	kvm_file = -ENODEV;
}

const char *host_kvm_obstacle(void)
{
	switch (host_kvm_open()) {
	case -ENOENT:
		return "there is no /dev/kvm: the host kernel has no KVM, or the processor nothing that it uses";
	case -EACCES:
	case -EPERM:
		return "/dev/kvm may not be opened: join the group that owns it";
	default:
		return "/dev/kvm does not open";
	}
}

int host_kvm_call(int file, u64 request, u64 argument)
{
	int result = ioctl(file, request, argument);
	return result < 0 ? -errno : result;
}

void host_kvm_close(int file)
{
	close(file);
}

int host_kvm_map(struct host_kvm_vcpu *vcpu, int file, u64 size, u64 immediate_exit)
{
	void *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (run == MAP_FAILED)
		return -errno;
	*vcpu = (struct host_kvm_vcpu){ .file = file, .run = run, .size = size, .immediate_exit = (u8 *)run + immediate_exit };
	return 0;
}

void host_kvm_unmap(struct host_kvm_vcpu *vcpu)
{
	munmap(vcpu->run, vcpu->size);
	close(vcpu->file);
}

int host_kvm_run(struct host_kvm_vcpu *vcpu)
{
	static __thread u32 self;
	if (!self)
		self = (u32)gettid();
	if (vcpu->thread != self)
		__atomic_store_n(&vcpu->thread, self, __ATOMIC_SEQ_CST);
	return ioctl(vcpu->file, KVM_RUN, 0) < 0 ? -errno : 0;
}

void host_kvm_stop(struct host_kvm_vcpu *vcpu)
{
	__atomic_store_n(vcpu->immediate_exit, 1, __ATOMIC_SEQ_CST);
	u32 thread = __atomic_load_n(&vcpu->thread, __ATOMIC_SEQ_CST);
	if (thread && thread != (u32)gettid())
		syscall(SYS_tgkill, getpid(), thread, STOP_SIGNAL);
}

const char *host_kvm_trial(void)
{
	static struct kvm_report report;
	if (!report.steps)
		probe_kvm(&report);
	return report.usable ? NULL : report.verdict;
}
