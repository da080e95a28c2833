/* What lies where in the hole of a space, shared by the VMM, the process that runs in the space and its assembly.
 *
 *   hole + 0                     nothing: null pointers of the runtime fault
 *   + SPACE_RUNTIME              the runtime, executable (space_runtime.S)
 *   + SPACE_WINDOW               the window's writable part; GS points here
 *   + SPACE_CONTROL              the window's read-only part: `stop`, then struct space_control
 *   + SPACE_ANSWER               struct space_answer and the runtime's stack, writable
 *   + SPACE_SIGNAL_STACK         where the kernel stores the registers of a trap, writable
 *   + SPACE_TABLES               the engine's tables, read-only
 *   + SPACE_CODE                 code areas (struct host_code), executable, the only thing that is there in the VMM as well
 *
 * From the window to the tables all is one slot of an object that the VMM has mapped whole, elsewhere. */
#ifndef NADIR_HOST_LINUX_SPACE_LAYOUT_H
#define NADIR_HOST_LINUX_SPACE_LAYOUT_H

#define SPACE_HOLE 0x40000000
#define SPACE_RUNTIME 0x10000
#define SPACE_RUNTIME_SIZE 0x1000
#define SPACE_WINDOW 0x20000
#define SPACE_CONTROL 0x23000
#define SPACE_ANSWER 0x27000
#define SPACE_STACK_TOP 0x28000
#define SPACE_SIGNAL_STACK 0x28000
#define SPACE_SIGNAL_STACK_SIZE 0x8000
#define SPACE_TABLES 0x30000
#define SPACE_CODE 0x1000000
#define SPACE_SLOT_SIZE 0x400000
#define SPACE_TABLES_MAX (SPACE_SLOT_SIZE - (SPACE_TABLES - SPACE_WINDOW))

/* struct host_space_window */
#define WINDOW_GPR 4096
#define WINDOW_RIP (WINDOW_GPR + 128)
#define WINDOW_RFLAGS (WINDOW_GPR + 136)
#define WINDOW_FS_BASE (WINDOW_GPR + 144)
#define WINDOW_GS_BASE (WINDOW_GPR + 152)
#define WINDOW_SELECTORS (WINDOW_GPR + 160)
#define WINDOW_XCR0_MASK (WINDOW_GPR + 176)
#define WINDOW_RAN_FROM (WINDOW_GPR + 184)
#define WINDOW_RAN_TO (WINDOW_GPR + 192)
#define WINDOW_PLACE_TARGET (WINDOW_GPR + 200)
#define WINDOW_PLACE_RCX (WINDOW_GPR + 208)
#define WINDOW_XSAVE (WINDOW_GPR + 256)
#define SPACE_CROSSINGS 128
#define WINDOW_CROSSING (WINDOW_XSAVE + 4096)

/* struct space_control, which begins with `stop` */
#define CONTROL_STOP 0
#define CONTROL_SEQUENCE 4
#define WAITING_ASLEEP 1
#define WAITING_PUZZLED 2
#define CONTROL_WAITING 8
#define CONTROL_RUN 12
#define CONTROL_COUNT 16
#define CONTROL_FSGSBASE 20
#define CONTROL_SPIN 24
#define CONTROL_RDTSCP 28
#define CONTROL_MOVE 32
#define CONTROL_IN_PLACE 40
#define CONTROL_BLOCK 44
#define CONTROL_GS_BASE 48
#define CONTROL_RING 64
#define CONTROL_CPUS 128
#define SPACE_CPUS 1024
#define CONTROL_COMMAND (CONTROL_CPUS + SPACE_CPUS / 8)
#define SPACE_COMMANDS ((0x4000 - CONTROL_COMMAND) / 32)

/* struct space_answer */
#define ANSWER_DONE 0
#define ANSWER_SLEEPING 4
#define ANSWER_KIND 8
#define ANSWER_VECTOR 16
#define ANSWER_ERROR 24
#define ANSWER_ADDRESS 32
#define ANSWER_FS_BASE 40
#define ANSWER_CPU 48
#define ANSWER_PASS 56
#define ANSWER_USAGE 128

#define KIND_LEFT 1 /* translated code jumped to leave */
#define KIND_TRAP 2
#define KIND_DONE 3 /* commands are carried out; there was nothing to run */
#define KIND_FAILED 4 /* a command could not be carried out; nothing was run */
#define KIND_SYSCALL 5 /* code in place asked its kernel for something */
#define KIND_STOPPED 6 /* code in place was interrupted */
#define KIND_BREAK 7 /* code in place came to a break point */

#define SPACE_STOP_SIGNAL 10 /* SIGUSR1 */

#define SPACE_RAM_FD 3 /* the space's files: guest RAM, */
#define SPACE_RING_FD 4 /* and the eventfd by which it tells that it waits */

#ifndef __ASSEMBLER__
#include "host/port.h"

#include <sys/resource.h>

/* A call of mmap (flags set) or munmap (flags 0) for the space to make. */
struct space_command {
	u64 address, size, offset;
	u32 protection, flags;
};

/* Written by the VMM, and by the server when the process has ended. */
struct space_control {
	u32 stop; /* struct host_space_window */
	u32 sequence; /* futex: one more is a request */
	u32 waiting; /* the VMM sleeps at `done`; WAITING_PUZZLED: after it has spun in vain */
	u32 run; /* whether to run after the commands */
	u32 count; /* of commands */
	u32 fsgsbase; /* the instructions of that name may be used */
	u32 spin; /* TSC ticks for which the space looks out for a request before it sleeps */
	u32 rdtscp; /* the instruction may be used */
	u32 move; /* to `cpus`, before all else */
	u32 dead; /* the process has ended */
	u32 in_place; /* what runs is the guest's own code: it must be interrupted, since it does not look at `stop` */
	u32 block; /* SYSCALL_DISPATCH_FILTER_*: no system calls but the runtime's */
	u64 gs_base; /* to begin with */
	alignas(64) u64 ring[2]; /* what the space rings with after requests of even and of odd number */
	alignas(64) u64 cpus[SPACE_CPUS / 64];
	alignas(64) struct space_command command[SPACE_COMMANDS];
};

/* Written by the space: not to be trusted. */
struct space_answer {
	u32 done; /* futex: the sequence number that it is done with */
	u32 sleeping; /* the space sleeps at `sequence` */
	u32 kind, unused;
	u64 vector, error, address;
	u64 fs_base; /* as last set, without the instruction for it */
	u32 cpu; /* where it took up the request: TSC_AUX as Linux sets it */
	/* What commands are signed with: upper halves. From the VMM, and taken away by the runtime when they are carried out. */
	u64 pass[2];
	alignas(64) struct rusage usage; /* of the space, for a VMM that is puzzled */
};

static_assert(SPACE_HOLE == HOST_SPACE_HOLE, "the hole's size");
static_assert(SPACE_CROSSINGS == HOST_SPACE_CROSSINGS, "crossings");
static_assert(offsetof(struct host_space_window, regs.gpr) == WINDOW_GPR, "window");
static_assert(offsetof(struct host_space_window, regs.rip) == WINDOW_RIP, "window");
static_assert(offsetof(struct host_space_window, regs.rflags) == WINDOW_RFLAGS, "window");
static_assert(offsetof(struct host_space_window, regs.fs_base) == WINDOW_FS_BASE, "window");
static_assert(offsetof(struct host_space_window, regs.gs_base) == WINDOW_GS_BASE, "window");
static_assert(offsetof(struct host_space_window, regs.selector) == WINDOW_SELECTORS, "window");
static_assert(offsetof(struct host_space_window, xcr0_mask) == WINDOW_XCR0_MASK, "window");
static_assert(offsetof(struct host_space_window, ran_from) == WINDOW_RAN_FROM, "window");
static_assert(offsetof(struct host_space_window, ran_to) == WINDOW_RAN_TO, "window");
static_assert(offsetof(struct host_space_window, place_target) == WINDOW_PLACE_TARGET, "window");
static_assert(offsetof(struct host_space_window, place_rcx) == WINDOW_PLACE_RCX, "window");
static_assert(offsetof(struct host_space_window, crossing) == WINDOW_CROSSING, "window");
static_assert(offsetof(struct host_space_window, xsave) == WINDOW_XSAVE, "window");
static_assert(offsetof(struct host_space_window, stop) == SPACE_CONTROL - SPACE_WINDOW, "the window's read-only part");
static_assert(sizeof(struct host_space_window) == SPACE_ANSWER - SPACE_WINDOW, "the window's end");
static_assert(offsetof(struct space_control, sequence) == CONTROL_SEQUENCE, "control");
static_assert(offsetof(struct space_control, waiting) == CONTROL_WAITING, "control");
static_assert(offsetof(struct space_control, run) == CONTROL_RUN, "control");
static_assert(offsetof(struct space_control, count) == CONTROL_COUNT, "control");
static_assert(offsetof(struct space_control, fsgsbase) == CONTROL_FSGSBASE, "control");
static_assert(offsetof(struct space_control, spin) == CONTROL_SPIN, "control");
static_assert(offsetof(struct space_control, rdtscp) == CONTROL_RDTSCP, "control");
static_assert(offsetof(struct space_control, move) == CONTROL_MOVE, "control");
static_assert(offsetof(struct space_control, block) == CONTROL_BLOCK, "control");
static_assert(offsetof(struct space_control, in_place) == CONTROL_IN_PLACE, "control");
static_assert(offsetof(struct space_control, gs_base) == CONTROL_GS_BASE, "control");
static_assert(offsetof(struct space_control, ring) == CONTROL_RING, "control");
static_assert(offsetof(struct space_control, cpus) == CONTROL_CPUS, "control");
static_assert(offsetof(struct space_control, command) == CONTROL_COMMAND, "control");
static_assert(sizeof(struct space_control) <= SPACE_ANSWER - SPACE_CONTROL, "control");
static_assert(offsetof(struct space_answer, sleeping) == ANSWER_SLEEPING, "answer");
static_assert(offsetof(struct space_answer, kind) == ANSWER_KIND, "answer");
static_assert(offsetof(struct space_answer, vector) == ANSWER_VECTOR, "answer");
static_assert(offsetof(struct space_answer, error) == ANSWER_ERROR, "answer");
static_assert(offsetof(struct space_answer, address) == ANSWER_ADDRESS, "answer");
static_assert(offsetof(struct space_answer, cpu) == ANSWER_CPU, "answer");
static_assert(offsetof(struct space_answer, pass) == ANSWER_PASS, "answer");
static_assert(offsetof(struct space_answer, usage) == ANSWER_USAGE, "answer");
static_assert(offsetof(struct space_answer, fs_base) == ANSWER_FS_BASE, "answer");

/* space_runtime.S: the code, its size, and offsets of its entries. */
extern const u8 space_runtime[];
extern const u32 space_runtime_size, space_runtime_leave, space_runtime_enter_place, space_runtime_trap, space_runtime_rung[2];
#endif

#endif
