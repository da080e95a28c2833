/* What the Linux host does with its KVM beside host/kvm.h. */
#ifndef NADIR_HOST_LINUX_KVM_H
#define NADIR_HOST_LINUX_KVM_H

/* Another engine was chosen: close what was opened to find out. KVM is not there any more. */
void kvm_forget(void);

#endif
