/* The host port: everything the core asks of the place it runs in. Each host (host/linux, host/metal, and the fake host of
 * the unit tests) implements exactly this; the variant is chosen at link time. Nothing else outside the core may be called
 * from it, but for memcpy, memmove, memset and memcmp, and Zydis.
 *
 * All functions may be called from any thread unless stated otherwise. */
#ifndef NADIR_HOST_PORT_H
#define NADIR_HOST_PORT_H

#include "arch/types.h"

struct host_trap;

/* ---- memory ---- */

/* Zeroed memory aligned to 64 bytes, or NULL. Owned by the caller until host_free. */
void *host_alloc(size_t size);
void host_free(void *p);

/* Zeroed memory of `size` bytes, a multiple of the page size, of which each page is there only once it was touched: for large tables that
 * are used here and there. NULL on failure. */
void *host_table_create(u64 size);
void host_table_destroy(void *table, u64 size);
/* Give whole pages of a table back to the host; they read as zero afterwards. */
void host_table_discard(void *table, u64 size);
/* A table that reads as `value` in each aligned quadword instead of zero until it is written; size is a multiple of 64 KiB. It is emptied by its own
 * discard. The host may take memory for it all. */
u64 *host_table_create_of(u64 size, u64 value);
void host_table_discard_of(u64 *table, u64 size, u64 value);

/* Guest RAM: one shared object of `size` bytes (a multiple of the page size), zeroed, filled lazily. NULL on failure. */
void *host_ram_create(u64 size);
void host_ram_destroy(void *hva, u64 size);
/* Give whole pages back to the host; they read as zero afterwards. */
void host_ram_discard(void *hva, u64 size);
/* [hva, hva + size) of guest RAM is about to be given to somebody who cannot wait for it, such as the host's kernel: let it be there. */
void host_ram_ready(const void *hva, u64 size);
/* A second mapping of two pages of guest RAM, side by side, for an access that crosses from the first into the second. NULL if the host
 * cannot. It lasts until host_unmap_pair. */
u8 *host_map_pair(u8 *first, u8 *second);
void host_unmap_pair(u8 *pair);

/* Memory for generated code, mapped twice: written through rw, executed through rx, never both through one mapping.
 * Returns 0, or a negative value on failure. */
struct host_code {
	u8 *rw;
	u8 *rx;
	size_t size;
};
int host_code_create(struct host_code *code, size_t size);
/* Whole pages of it, which nobody executes, are not needed for now: the host may take them back; what they hold is undefined then. */
void host_code_discard(const struct host_code *code, size_t offset, size_t size);
void host_code_destroy(struct host_code *code);

/* ---- spaces: address spaces of their own for guest user code (C2) ----
 *
 * In a space a guest linear address is a host address, so that translated code needs no check of its memory operands: what the guest may
 * not touch is not mapped. The host keeps each space where nothing else is to be found (host/linux: a process that may do nothing but
 * this). A space belongs to the thread that created it, and so do all calls on it.
 *
 * The only addresses in a space that are not the guest's lie in [hole, hole + HOST_SPACE_HOLE), the same in every space of this program:
 * the code area (executable, at struct host_code's rx address, which lies in the hole), the tables (readable), the window (writable).
 * What comes back in the window is untrusted: a guest that finds it may write anything there. */

#define HOST_SPACE_HOLE (1ull << 30) /* aligned to its size */
#define HOST_SPACE_END (1ull << 47) /* guest addresses from here on are never mapped */

/* Registers as they are in the space, by their x86 numbers. */
struct host_space_regs {
	u64 gpr[16];
	u64 rip;
	u64 rflags; /* in: status flags and DF; out: likewise */
	u64 fs_base, gs_base; /* in and out: the guest's (translated code cannot change them, and has the window at GS) */
	u16 selector[6]; /* out, for code in place: ES, CS, SS, DS, FS, GS */
	u16 unused[2];
};

/* The window, at GS in the space: first what translated code wants to find there (the engine's own layout), then this. All but the last
 * part is writable in the space. */
#define HOST_SPACE_WINDOW_USER 4096
#define HOST_SPACE_CROSSINGS 128
struct host_space_window {
	u8 user[HOST_SPACE_WINDOW_USER];
	struct host_space_regs regs;
	u64 xcr0_mask; /* components of extended state that go along */
	u64 ran_from, ran_to; /* time-stamp counter when the code was entered, and when it left: how long the journey took beside */
	u64 place_target, place_rcx; /* host_space_enter_place() */
	alignas(64) u8 xsave[4096]; /* standard XSAVE format; in and out */
	/* Where code in place goes on instead of trapping when it fetches at an address that it may not execute: translated code, which finds
	 * every register as it was, but the window at GS. By host_space_crossing(). Not with TF or AC set. */
	struct {
		u64 rip, code;
	} crossing[HOST_SPACE_CROSSINGS];
	/* Read-only in the space. Translated code that finds `stop` set leaves soon. Any thread of the VMM may set it (vcpu_set_pending does);
	 * the thread that runs the space clears it. It may be written as long as the program lives, even when the space is gone. A space that
	 * does not leave within seconds of this is broken. */
	alignas(4096) u32 stop;
	u8 host[4 * 4096 - 4];
};

/* The entry of `crossing` for an address. */
static inline unsigned host_space_crossing(u64 rip)
{
	return (unsigned)(rip ^ rip >> 7) % HOST_SPACE_CROSSINGS;
}

struct host_space {
	struct host_space_window *window; /* here; in the space it is at GS */
	u64 window_there; /* its address in the space */
	u8 *tables; /* here, writable */
	u64 tables_there; /* in the space, read-only */
};

enum host_space_exit {
	SPACE_LEFT, /* translated code jumped to host_space_leave(); regs.rip means nothing */
	SPACE_TRAP, /* a hardware exception: *trap says which; pc is regs.rip */
	SPACE_SYSCALL, /* code in place executed SYSCALL or the like, or called what the host has for VSYSCALL: regs are as behind it, trap->address too */
	SPACE_STOPPED, /* code in place was stopped before the instruction at regs.rip, or translated code before it began there */
	SPACE_AT_BREAK, /* code in place is before the instruction at regs.rip, which is one of host_space_break */
	SPACE_BROKEN, /* the space is lost (its process ended, or said nonsense): destroy it. Nothing in the window counts. */
	SPACE_GONE, /* likewise, but nothing was run (the host could not carry out a mapping, say): the state of before still holds */
};

/* With these selectors code in place runs, as Linux has them; ES, DS, FS and GS are 0. The descriptors in the host's GDT: at 20H flat
 * 32-bit code, at 28H flat data, at 30H 64-bit code, all of DPL 3. */
#define HOST_SPACE_CS 0x33
#define HOST_SPACE_SS 0x2b

enum host_space_access { SPACE_READ, SPACE_WRITE, SPACE_EXEC };

/* The hole of this program; 0 if spaces cannot be had, with the reason in *why. */
u64 host_space_hole(const char **why);
/* Where translated code jumps to leave; a constant address in the hole. All registers are kept as they are then; DF is cleared for the
 * host. */
u64 host_space_leave(void);
/* Where translated code jumps, during a run with in_place, to go on in place at window->place_target, below HOST_SPACE_END; window->place_rcx
 * is RCX, all other registers and flags are the guest's. If that cannot be now, it is as a jump to host_space_leave(), with RCX undefined. */
u64 host_space_enter_place(void);
/* `ram` is what host_ram_create gave, of ram_size bytes; tables_size is a multiple of the page size. NULL: no space can be made (now). */
struct host_space *host_space_create(const struct host_code *code, void *ram, u64 ram_size, size_t tables_size);
void host_space_destroy(struct host_space *space);
/* Map whole pages of guest RAM (hva: in `ram`), readable, and writable or executable, over what was there; unmap whatever lies in a
 * range. Both are carried out before the space runs next, in order. 0 is success. -1: what may not be mapped (not below HOST_SPACE_END,
 * in the hole, or an address that the host keeps, such as those below Linux' vm.mmap_min_addr and the last page below HOST_SPACE_END), or
 * too many pieces; unmapping everything, [0, HOST_SPACE_END), the hole excepted, is always possible, but for a space that is lost, and
 * all begins anew. */
int host_space_map(struct host_space *space, u64 gla, void *hva, u64 size, enum host_space_access access);
int host_space_unmap(struct host_space *space, u64 gla, u64 size);
/* Load window->xsave and window->regs, run at regs.rip until the code leaves or traps, and store them back. The thread sleeps meanwhile;
 * extended state of the calling thread is not touched. Kicks: vcpu_watch in vcpu/vcpu.h. What is in the window after it may change under
 * the reader's hands if the guest got hold of the space: copy first, then check. */
/* With in_place, which host_space_runs_in_place() must allow, the guest's own code may be run at its own addresses, with its own GS. It ends
 * by traps and when it is stopped. Translated code may begin and go on there (host_space_enter_place), and be come to (crossing); what such code can do to the VMM and to other spaces is the same as of translated code:
 * nothing. */
enum host_space_exit host_space_run(struct host_space *space, struct host_trap *trap, bool in_place);
bool host_space_runs_in_place(void);
/* From now on code in place comes back with SPACE_AT_BREAK before it executes an instruction that begins at one of these addresses,
 * `count` of them and no more than HOST_SPACE_BREAKS, instead of the addresses given before. By the CPU's debug registers (Intel SDM
 * volume 3, "Debug Registers"): the code itself is as it was. False: the host does not let us have them, and there are none now. */
#define HOST_SPACE_BREAKS 4
bool host_space_break(struct host_space *space, const u64 *address, unsigned count);
/* Set window->stop, and stop code in place; or, on the bare CPU, stop the guest of a struct host_run. May be called by any thread, late too: see
 * vcpu_watch. */
void host_space_stop(u32 *stop);

/* ---- the bare CPU: for engines that use the hardware's virtualization (A2) ----
 *
 * Where the program is the machine's own system (host/metal) it runs at CPL 0, and an engine may execute VMX and SVM instructions, read and
 * write MSRs and control registers. Elsewhere host_bare_cpu says no, and nothing else of this part may be called.
 *
 * Who runs a guest by the hardware does it like this, on the vCPU's thread:
 *
 *     vcpu_watch(vcpu, &run->stop);                     // struct host_run, in the engine's state
 *     for (;;) {
 *             u64 held = host_hold();                   // interrupts off: this thread stays on this CPU
 *             run->cpu = host_cpu();
 *             if (run->stop || vcpu_pending(vcpu)) ...  // see to it: host_release(held) first, if it takes long
 *             ... make *host_cpu_slot() ours: VMXON or EFER.SVME, host save area, VMPTRLD, ASID, extended state ...
 *             ... enter; any interrupt of the host leaves the guest and stays pending ...
 *             ... read what the exit says: exit reason, IDT-vectoring, CR2, debug registers ...
 *             host_release(held);                       // the host takes its interrupt here; other threads may run, and this one may move
 *             ... answer the exit: vcpu->ops->exit, interrupts, memory ...
 *     }
 *     vcpu_watch(vcpu, NULL);
 *
 * Interrupts of the host must leave the guest unacknowledged (VMX: external-interrupt exiting without acknowledge-on-exit; SVM: INTR intercept,
 * V_INTR_MASKING), or be given to the host after it (host_interrupt). Time slices end by such an interrupt, or by host_timer_now; kicks are such. An NMI that left a guest is handed
 * over by host_nmi. FS, GS base, TR, GDTR, IDTR, CR3, CR4 and EFER of the host differ from CPU to CPU or by thread only in GS base, FS base, TR
 * base, GDTR base: read them, between host_hold and host_release, into the host-state area; CR4 has VMXE clear until the engine sets it,
 * EFER SVME likewise, and both may stay set. The host uses vector registers not at all, but keeps a thread's across everything; what it
 * finds in XCR0 and the vector registers at host_release is that thread's (XCR0 must be the host's by then). Debug registers are the
 * thread's who holds the CPU, and nobody keeps them. */

/* False, with a sentence in *why, where the program is not the machine's own system. */
bool host_bare_cpu(const char **why);
/* The physical address of a byte of guest RAM (host_ram_create), or of memory from host_alloc, host_pages_create or host_code_create. Guest
 * RAM is made of naturally aligned pages of 2 MiB as far as there are such: see host_physical_run. Constant as long as the memory lives. */
u64 host_physical(const void *p);
/* The same, and how many bytes from there on follow each other physically, as far as the host's own mapping of it tells: to the end of a page
 * of 4 KiB or 2 MiB. */
u64 host_physical_run(const void *p, u64 *size);
/* Zeroed pages, physically in a row, aligned to the page; NULL: there are none. host_virtual is the way back from their physical addresses, and
 * not from those of other memory. */
void *host_pages_create(unsigned count);
void host_pages_destroy(void *pages, unsigned count);
void *host_virtual(u64 physical);

unsigned host_cpus(void);
/* Interrupts off, and on again if they were. What lies between is short: microseconds, but for a guest that runs. */
u64 host_hold(void);
void host_release(u64 held);
/* Number of the CPU, from 0. Between host_hold and host_release, and so the next two. */
unsigned host_cpu(void);
/* What engines keep about this CPU; NULL at first. Engines of both kinds do not meet on one machine. */
void **host_cpu_slot(void);
/* An NMI left the guest: let the host's handler have it. */
void host_nmi(void);
/* What the time-stamp counter will be when the host's timer interrupts this CPU next, as at the end of the thread's time slice; HOST_NEVER. Between host_hold
 * and host_release. An engine whose CPU has a timer of its own for guests makes them leave then. */
u64 host_timer_due(void);
/* They did: what the interrupt would have done. With nothing held. */
void host_timer_now(void);
/* An interrupt left the guest and has been acknowledged: let the host's handler have it. Between host_hold and host_release, when nothing there depends on the CPU any more: the
 * calling thread may be on another one afterwards. */
void host_interrupt(u8 vector);
/* An interrupt that does nothing to the host, for a processor that runs a guest to look at what was posted: its vector; and send it to a CPU, from any thread. */
u8 host_notification(void);
void host_notify(unsigned cpu);
/* Call a function on a CPU with interrupts off, and wait for it: VMCLEAR of what was loaded there, TLB flushes. Not between host_hold and
 * host_release, and not with a lock held that the function wants. */
void host_cpu_call(unsigned cpu, void (*function)(void *opaque), void *opaque);

/* For vcpu_watch: whatever becomes pending sets `stop`, and an interrupt goes to CPU `cpu`. */
struct host_run {
	u32 stop; /* atomic */
	u32 cpu; /* atomic; where the vCPU's thread entered the guest last */
};

/* ---- locks ---- */

struct host_lock {
	u64 opaque[8];
};
void host_lock_init(struct host_lock *lock);
void host_lock(struct host_lock *lock);
void host_unlock(struct host_lock *lock);

/* ---- time ---- */

#define HOST_NEVER (~0ull)

/* Monotonic nanoseconds. */
u64 host_now(void);
/* Nanoseconds since 1970-01-01 00:00 UTC. */
u64 host_wallclock(void);
/* Frequency of the time-stamp counter in Hz, measured or told by the hardware once at start. */
u64 host_tsc_hz(void);

/* A timer calls `fire(opaque)` on the host's event thread at or soon after its deadline (host_now() scale), once per arming.
 * The callback must not block. Arming replaces an earlier deadline; HOST_NEVER disarms. Destroy waits for a running callback. */
struct host_timer;
struct host_timer *host_timer_create(void (*fire)(void *opaque), void *opaque);
void host_timer_arm(struct host_timer *timer, u64 deadline);
void host_timer_destroy(struct host_timer *timer);

/* ---- vCPU threads ---- */

/* Where a vCPU thread sleeps. wait returns when *word != expected, when woken, at the deadline, or spuriously. */
void host_wait(u32 *word, u32 expected, u64 deadline);
void host_wake(u32 *word);
/* Give the CPU to somebody else for a moment (PAUSE loops). */
void host_yield(void);
/* Whether this program has more than `busy` CPUs for itself, and a thread is woken so slowly that it may look out for a while instead of sleeping. */
bool host_may_look_out(unsigned busy);
/* Nanoseconds that the calling thread, one that runs a vCPU, was ready to run and had no CPU; 0 for ever where the host does not say. */
u64 host_run_delay(void);

/* A full memory barrier on every thread of this program that runs guest code: what they stored before this call is visible when it
 * returns, and what they load afterwards is not older than the call. */
void host_barrier_all(void);

/* Make GS-relative addresses of the calling thread relative to `base`, for generated code. */
void host_set_gs_base(void *base);
/* What it is; for trap handlers. */
void *host_gs_base(void);

/* A fault taken by generated code: the host stopped at `pc` with a hardware exception. The handler, called on the faulting
 * thread in a context where only the fields here may be used, returns true after changing pc to continue there, false if the
 * fault is not its own (the host then treats it as a bug of this program). */
struct host_trap {
	u64 pc;
	u32 vector; /* x86 exception vector */
	u32 error_code;
	u64 address; /* CR2 for page faults */
	u64 rflags;
};
typedef bool (*host_trap_handler)(struct host_trap *trap);
/* Of the calling thread at least, or of all. */
void host_set_trap_handler(host_trap_handler handler);

/* ---- diagnostics ---- */

enum host_log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
void host_log(enum host_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A bug of this program: say what, dump, stop the VM. Never caused by guest input. */
_Noreturn void host_panic(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Code for the guest's instructions at the linear address `guest` was generated: for profilers. May use vector registers. */
void host_note_code(const void *code, size_t size, u64 guest);
int host_snprintf(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Cryptographically good random bytes. */
void host_random(void *buf, size_t size);

#endif
