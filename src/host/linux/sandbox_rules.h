/* What the confined process and each role of its threads may ask of the kernel (A7): one table, from which filters are made. */
#ifndef NADIR_HOST_LINUX_SANDBOX_RULES_H
#define NADIR_HOST_LINUX_SANDBOX_RULES_H

#include <seccomp.h>

#include "arch/types.h"

/* Sets of roles (enum sandbox_role). Everybody's are those that threads are confined by; the process's filter has more: what leads to them. */
#define SANDBOX_EVERYBODY (BIT(SANDBOX_ROLES) - 1)
#define SANDBOX_PROCESS BIT(SANDBOX_ROLES)

/* Let those roles make this call with this file as its first argument. */
void sandbox_rules_grant(int call, int fd, u32 roles);
/* Requests to KVM go to files from this one on. */
void sandbox_rules_use_kvm(int file);
/* Disks and networks can be added. */
void sandbox_rules_use_plugging(void);

/* Add the rules of any of these roles. 0 or a negative error. */
int sandbox_rules_add(scmp_filter_ctx filter, u32 roles);
/* Whether there is one for this call. */
bool sandbox_rules_match(int call, const u64 *argument, u32 roles);

#endif
