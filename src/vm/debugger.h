/* A debugger outside the guest: it stops all vCPUs together, looks at them and changes them, and lets them go on, each as it likes.
 *
 * It is one of those who hold the VM still (vm/pause.c). When the last vCPU has parked the machine is stopped, and config.debug_stopped is called. What
 * it stopped for is told once: where others meet a point of theirs at the same time, they meet it again when they go on (debug_put_back).
 *
 * The debugger is one thread of the host's. It calls these functions with vm->lock held, unless stated otherwise, and does whatever it wants with
 * vCPUs and guest memory only while debugger_stopped says yes, and without giving the lock back meanwhile: a reset needs it. */
#ifndef NADIR_VM_DEBUGGER_H
#define NADIR_VM_DEBUGGER_H

#include "vcpu/exit.h"
#include "vcpu/vcpu.h"

struct vm;
struct vm_cpu;

enum debugger_reason {
	DEBUGGER_ASKED, /* debugger_hold */
	DEBUGGER_STEP, /* an instruction was executed, as wanted */
	DEBUGGER_POINT, /* a point was met */
	DEBUGGER_CRASH, /* the guest is about to crash: a triple fault */
};

struct debugger_stop {
	enum debugger_reason reason;
	unsigned cpu; /* who met it; of an ASKED one, the last that met anything */
	enum debug_kind kind; /* with POINT: which, and its address */
	gla_t gla;
};

/* Of struct vm; lock. */
struct debugger {
	bool attached; /* atomic, too: the watchdog reads it */
	bool holding; /* it holds the VM */
	struct debugger_stop stop; /* why */
};

/* Stop the machine, and all that it does by itself in case of trouble, for a debugger that has come. */
void debugger_attach(struct vm *vm);
/* No points any more, and all vCPUs go on. The machine is stopped. */
void debugger_detach(struct vm *vm);
/* No points any more, but all stays as it is. The machine is stopped. */
void debugger_clear(struct vm *vm);
/* Stop the machine. */
void debugger_hold(struct vm *vm);
/* Whether that has come about. */
bool debugger_stopped(const struct vm *vm);

/* The user has been told of the stop: where that vCPU stands no break point is met when it goes on. The machine is stopped. */
void debugger_told(struct vm *vm);

enum debugger_action { ACTION_HOLD, ACTION_RUN, ACTION_STEP };
/* What each vCPU does from here on; at least one moves. quiet: steps are not interrupted. The machine is stopped. */
void debugger_resume(struct vm *vm, const enum debugger_action *action, bool quiet);

/* Points of all vCPUs. The machine is stopped. False: no room, or no such point is possible. */
bool debugger_insert(struct vm *vm, const struct debug_point *point);
void debugger_remove(struct vm *vm, const struct debug_point *point);

/* Guest memory as the vCPU sees it now, or by physical address, of RAM and ROM; nothing notices. Read: how many bytes there are, from the
 * first. Write: all or nothing. The machine is stopped. */
u64 debugger_read(struct vm_cpu *cpu, u64 address, bool physical, void *buf, u64 size);
bool debugger_write(struct vm_cpu *cpu, u64 address, bool physical, const void *buf, u64 size);

/* ---- for vm/run.c, on the vCPU's thread, without the lock ---- */

/* A run ended with EXIT_DEBUG. */
void debugger_met(struct vm_cpu *cpu, const struct exit *exit);
/* The same of a vCPU that fell asleep over it; false if it did not. */
bool debugger_met_asleep(struct vm_cpu *cpu);
/* The guest crashes on this vCPU. True: a debugger shall see it, so park. */
bool debugger_crashed(struct vm_cpu *cpu);

#endif
