/* Detection of guests that will never do anything again (watchdog.c). */
#ifndef NADIR_VM_WATCHDOG_H
#define NADIR_VM_WATCHDOG_H

struct vm;

/* Watch the VM if its configuration has a hang timeout. 0 or negative. */
int watchdog_start(struct vm *vm);
void watchdog_stop(struct vm *vm);

#endif
