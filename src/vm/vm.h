/* A virtual machine: what everything hangs on, and what a host does with it.
 *
 * Threads: each vCPU runs on a thread of the host's own making, in vm_run_vcpu. Timers fire on the host's event thread. The functions
 * here say who may call them. `lock` serializes the board (devices, PIC, I/O APIC); a vCPU's local APIC belongs to its thread alone,
 * others reach it through its posted-interrupt descriptor and its request bits. */
#ifndef NADIR_VM_VM_H
#define NADIR_VM_VM_H

#include "boot/boot.h"
#include "boot/firmware_files.h"
#include "cpu/cpuid.h"
#include "cpu/pvclock.h"
#include "engine/engine.h"
#include "host/port.h"
#include "irq/lapic.h"
#include "irq/posted.h"
#include "mmu/ram.h"
#include "vm/board.h"
#include "vm/debugger.h"
#include "vm/stats.h"

#define VM_CPUS_MAX 64

/* How a VM ended. */
enum vm_end {
	VM_RUNNING,
	VM_POWEROFF, /* the guest powered itself off */
	VM_REBOOT, /* the guest rebooted, and the configuration says not to */
	VM_DEBUG_EXIT, /* the guest wrote to the debug-exit port */
	VM_CRASHED, /* triple fault, hang, ...: see crash_reason */
	VM_STOPPED, /* vm_stop */
	VM_FAILED, /* the VMM could not go on */
};

/* What happens to a VM that goes on. */
enum vm_event { VM_EVENT_PAUSED, VM_EVENT_RESUMED, VM_EVENT_RESET };

enum vm_crash_action { CRASH_REPORT, CRASH_RESET, CRASH_DEBUG };

struct vm_config {
	u64 memory; /* bytes, a multiple of the page size */
	unsigned cpus;
	const char *cpu_model;
	const struct engine_ops *engine;
	enum direct_mode direct;
	enum mmu_mode mmu_mode;
	u64 without; /* techniques of the processor that are not used (engine/hw/features.h) */
	struct boot_source boot; /* buffers and strings stay the host's until vm_destroy */
	/* A saved state (vm/state.h) to go on from instead of loading the guest; needed by vm_create only. The VM is held once then: memory must be as it was
	 * before vm_release. */
	const u8 *state;
	size_t state_size;
	struct board_backends backends;
	enum vm_crash_action on_crash;
	u64 hang_timeout; /* seconds; 0: never */
	bool no_reboot;
	bool stats_by_site;
	u32 trace; /* TRACE_* (vcpu/trace.h) */
	/* Told when the VM has ended, once, on any thread: every vCPU thread is about to return. */
	void (*ended)(void *opaque);
	/* Told what happened, on any thread, under the lock. May be NULL. */
	void (*event)(void *opaque, enum vm_event event);
	/* Told that vm_take_ejected has something to say, likewise. */
	void (*ejected)(void *opaque);
	/* One line of a crash report. Lines of one report come in a row from one thread. */
	void (*report)(void *opaque, const char *line);
	/* For a debugger (vm/debugger.h): the machine has stopped. On any thread, with the VM's lock held. NULL: there will never be one. */
	void (*debug_stopped)(void *opaque);
	void *opaque;
};

/* Bits of vm_cpu.requests. */
#define REQUEST_INIT BIT(0)
#define REQUEST_SIPI BIT(1) /* its vector is in sipi_vector */
#define REQUEST_CRASH BIT(2) /* the watchdog found it hung */
#define REQUEST_FLUSH BIT(3) /* the chipset changed what memory shows */

/* Guest time: the host's monotonic clock without the times at which the VM was held (vm/pause.c). Written under the lock while every vCPU
 * is parked; read by vCPUs that are not, and under the lock. */
struct vm_time {
	u64 lost; /* vm_now() is host_now() less this */
	bool stopped; /* it stands still, since: */
	u64 stopped_now; /* this value of vm_now() */
	u64 stopped_tsc; /* the host's counter */
	u64 stopped_wallclock;
};

struct vm_cpu {
	struct vcpu vcpu;
	struct lapic lapic; /* this vCPU's thread only */
	struct posted posted; /* any thread */
	struct vm *vm;
	struct host_timer *timer; /* fires when the local APIC's timer is due while the vCPU runs */
	u64 timer_armed; /* this vCPU's thread only */
	u32 requests; /* REQUEST_*, atomic */
	u8 sipi_vector; /* atomic */
	bool pic_intr; /* level of the 8259 pair's INTR at LINT0, atomic */
	u32 pic_rises; /* how often it has risen, atomic */
	bool extint; /* a message asks to take a vector from the 8259 pair, atomic */
	bool unhalted; /* another vCPU's hypercall ends a HLT, this or the next; atomic */
	bool pv_eoi; /* the guest has been offered to end an interrupt by a word in memory (vm/paravirt.h); this vCPU's thread, as what follows */
	u64 steal_asked; /* when the host was last asked how long this thread waited for a CPU, */
	u64 steal_waited; /* and what it said */
	bool lint0; /* the level the local APIC has been told; this vCPU's thread only */
	u32 lint0_rises; /* pic_rises when LINT0 was last brought up to date */
	u32 wake; /* sleeping place; bumped by whoever wants attention, atomic */
	struct { /* vm/look_out.h; this vCPU's thread */
		u64 length, looked, delay, not_before;
	} look_out;
	bool asleep; /* its thread sleeps there, or is about to; atomic */
	bool held; /* a debugger wants this vCPU to stay while others go on; atomic, changed with the VM's lock held */
	struct stats stats; /* this vCPU's thread */
	u32 ringing; /* odd while it looks whether a write is a doorbell, which takes no lock (vm_doorbell); atomic */
	u64 progress; /* exits and interrupts so far: this vCPU's thread, read by the watchdog, atomic */
	struct { /* since when it is looked at whether the vCPU is idle, how long it had slept by then, and so often in a row it was (atomic) */
		u64 since, asleep;
		u32 idle;
	} rest; /* this vCPU's thread; others read `idle` */
	struct { /* the watchdog's: what it saw when it last looked */
		u64 progress, registers;
	} watch;
};

struct vm {
	struct vm_config config;
	struct ram ram;
	u8 *memory; /* config.memory bytes, in slots of `ram` */
	struct cpuid_policy *policy;
	struct host_lock lock;
	struct board board; /* lock */
	struct host_timer *board_timer;
	u64 board_armed; /* lock */
	struct host_timer *watchdog;
	u64 suspicion; /* the watchdog's: tenths of seconds without a sign of life */
	struct boot_entry entry;
	struct firmware_files firmware; /* what firmware reads; lock */
	struct pvclock clock; /* changes with `time` */
	u64 tsc_offset; /* of all vCPUs at power-on */
	u32 end; /* enum vm_end, atomic: set once */
	int exit_status; /* with VM_DEBUG_EXIT */
	const char *crash_reason; /* with VM_CRASHED */
	bool reset_wanted; /* atomic */
	bool place_wanted; /* memory of a device is to move (board_place_memory); atomic */
	bool pause_wanted; /* `holds` is not 0; atomic, written under the lock */
	unsigned holds; /* who holds the VM still; lock */
	bool paused; /* one of them is vm_pause; lock */
	unsigned parked; /* vCPUs waiting for a reset, to be released, or for a debugger to let them go on; lock */
	struct vm_time time;
	u32 settles; /* sleeping place of vm_settle, atomic */
	unsigned flushes; /* who uses the back ends of disks without the lock; lock */
	struct debugger debugger; /* lock */
	struct vm_cpu *cpu[VM_CPUS_MAX];
};

/* Make a VM and load its guest. NULL on failure, with one sentence in `error`; *user_error says that the user can mend it (an option or
 * file is wrong), not that the host lacks something. Owned by the caller; vm_destroy when no vCPU thread is left. */
struct vm *vm_create(const struct vm_config *config, char *error, size_t error_size, bool *user_error);
void vm_destroy(struct vm *vm);

/* The thread of one vCPU; returns when the VM has ended. */
void vm_run_vcpu(struct vm *vm, unsigned index);

/* From any thread. */
void vm_stop(struct vm *vm); /* as pulling the plug */
void vm_reset(struct vm *vm); /* as the reset button */

/* Hold the VM still. Holders are counted, and each releases it once; the guest goes on when none is left. It returns at once: vCPUs park one
 * after the other, and then the guest's time stops. vm_settle waits for that and for requests in the hands of back ends: from then on until
 * the release neither CPUs, devices, memory nor time change, but for a reset (vm_reset is obeyed at once, and its memory is the new guest's). False: the
 * VM has ended instead. Not on a vCPU's thread, and without the lock. Input from outside waits in the back ends meanwhile. */
void vm_hold(struct vm *vm);
bool vm_settle(struct vm *vm);
void vm_release(struct vm *vm);
/* Make the files of all disks whole, for who wants to copy them. Between vm_settle and vm_release. 0 or negative. */
int vm_flush_disks(struct vm *vm);
/* The log of pages of memory that are written, by whom ever, for who keeps copies of it (mmu/ram.h): start it, with no page dirty, or stop it; and take
 * what was written since it was started or harvested last, added to a bitmap of ram_log_words words. Between vm_settle and vm_release. */
void vm_log_dirty(struct vm *vm, bool on);
u64 vm_harvest_dirty(struct vm *vm, u64 *bitmap);
/* The user's pause: a holder of its own, on or off. */
void vm_pause(struct vm *vm, bool pause);

void vm_power_button(struct vm *vm);
/* Ask the guest for so many bytes of its memory, if it has a balloon device. */
void vm_resize_balloon(struct vm *vm, u64 size);
/* Bytes that are asked for, that the guest has given, and that it has ever reported as free. */
struct vm_balloon {
	u64 wanted, actual, reported;
};
struct vm_balloon vm_balloon(struct vm *vm);
static inline enum vm_end vm_ended(const struct vm *vm)
{
	return (enum vm_end)__atomic_load_n(&vm->end, __ATOMIC_SEQ_CST);
}

/* Input for the guest waits in a back end: look at it. From any thread. */
void vm_serial_input(struct vm *vm);
void vm_console_input(struct vm *vm, unsigned port);
/* Requests of a disk are complete. From any thread. */
void vm_disk_completed(struct vm *vm, unsigned disk);
/* Requests of a shared folder are complete. From any thread. */
void vm_share_completed(struct vm *vm, unsigned share);
/* A network has frames, room, or another state of its link. True: there is more; call again, soon. From any thread. */
bool vm_net_ready(struct vm *vm, unsigned net);

/* Packets wait for the socket device, or there is room for its own. From any thread. */
void vm_vsock_ready(struct vm *vm);

/* Nanoseconds of guest time since the VM was made. From any thread. */
u64 vm_time(struct vm *vm);

/* What the picture is made of, if there is a VGA: draw it by vga_draw from these and vm->board.vga.memory. From any thread. */
bool vm_display(struct vm *vm, struct vga_regs *regs);
/* Input, to the virtio keyboard and tablet if there is one that the guest drives, else to the PS/2 ones (input.c). False: try again, the guest has not read
 * the last. From any thread; lost while the VM is held. A key is one of ps2_keyboard_key. */
struct vm_pointer {
	u16 x, y; /* where it is: 0 to INPUT_POSITION_MAX, for a tablet */
	s32 dx, dy; /* how far it moved, upwards, for a mouse */
	u8 buttons; /* as virtio_input_pointer */
};
bool vm_key(struct vm *vm, u16 code, bool down);
bool vm_pointer(struct vm *vm, const struct vm_pointer *pointer);

/* What was asked of a disk so far; BLOCK_KINDS counts. False: there is none of this number. From any thread. */
bool vm_disk_count(struct vm *vm, unsigned disk, struct block_count *count);
/* What went through a network's card so far. Likewise. */
bool vm_net_count(struct vm *vm, unsigned net, struct net_count *count);

/* ---- disks and networks that come and go (plug.c); from any thread of the host's but a vCPU's, one at a time ---- */

/* Plug one into an empty place, and tell the guest, which takes it up when it likes. Whoever serves the back end must be ready. False: the place is taken,
 * or there is no memory. */
bool vm_plug_disk(struct vm *vm, unsigned index, const struct block_backend *backend);
bool vm_plug_net(struct vm *vm, unsigned index, const struct net_backend *backend);
/* Ask the guest to let go of one. False: it is not there, or cannot be plugged out. The guest may not obey; a reset does. */
bool vm_ask_eject(struct vm *vm, enum board_kind kind, unsigned index);
/* One that the guest has ejected, asked or not: when this returns true nobody is within its back end, or will be, and its place is free. */
bool vm_take_ejected(struct vm *vm, enum board_kind *kind, unsigned *index);
/* Whether there is one in a place. */
bool vm_has(struct vm *vm, enum board_kind kind, unsigned index);

/* Add up the statistics of all vCPUs. */
void vm_stats(const struct vm *vm, struct stats *sum);

/* ---- within the vm layer ---- */

static inline struct vm_cpu *vm_cpu_of(struct vcpu *vcpu)
{
	return container_of(vcpu, struct vm_cpu, vcpu);
}

/* Whether a vCPU's write to memory that is no RAM was a doorbell that needs nothing else. On its thread, without the lock. */
bool vm_doorbell(struct vm_cpu *cpu, gpa_t gpa);
/* board.ejected */
void vm_ejected(void *vm);

/* The vCPU did something that the VMM sees; on its thread. */
static inline void vm_progress(struct vm_cpu *cpu)
{
	__atomic_store_n(&cpu->progress, cpu->progress + 1, __ATOMIC_RELAXED);
}

/* End the VM, if it has not ended yet. From any thread. */
void vm_end(struct vm *vm, enum vm_end how, int status, const char *reason);
/* Make a vCPU look up: wake it if it sleeps, make its engine return if it runs. From any thread. */
void vm_kick(struct vm_cpu *cpu, u32 pending);
/* Deliver an interrupt message to the local APICs it addresses. From any thread. */
void vm_interrupt(struct vm *vm, const struct interrupt *interrupt, struct vm_cpu *sender);
/* Deliver it to this one. */
void vm_interrupt_cpu(struct vm_cpu *cpu, const struct interrupt *interrupt);
/* vm_hold and vm_release with the lock held; vm_kick_all must follow. */
void vm_hold_locked(struct vm *vm);
void vm_release_locked(struct vm *vm);
void vm_kick_all(struct vm *vm);
/* What devices and local APICs are told as `now`, and when on the host's clock a deadline of theirs is. */
u64 vm_now(const struct vm *vm);
u64 vm_host_deadline(const struct vm *vm, u64 deadline);
/* Let memory of devices follow their BARs, as soon as every vCPU has parked. */
void vm_place_memory(struct vm *vm);
/* Tell the host. The lock is held. */
void vm_tell(struct vm *vm, enum vm_event event);
/* Every vCPU is parked: stop the guest's time, if it has not been. The lock is held. */
void vm_time_stop(struct vm *vm);
/* What vm_settle waits for may have come. */
void vm_settled(struct vm *vm);
/* The board's or local APIC's deadlines may have changed. */
void vm_board_changed(struct vm *vm, u64 now); /* lock held */
void vm_lapic_changed(struct vm_cpu *cpu, u64 now);
/* RESET, or INIT, of one vCPU with its local APIC. On its own thread, or while it is parked. */
void vm_reset_cpu(struct vm_cpu *cpu, bool init);
/* vcpu_ops (vm/dispatch.c, vm/interrupts.c) */
void vm_exit(struct vcpu *vcpu, struct exit *exit);
int vm_interrupt_acknowledge(struct vcpu *vcpu);
bool vm_interrupt_refresh(struct vcpu *vcpu);
/* Whether an external interrupt could be taken now if IF were set: drains what was posted. This vCPU's thread. */
bool vm_interrupt_ready(struct vm_cpu *cpu);

#endif
